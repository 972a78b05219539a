//! The task of a job: fetches the window, drops its items, and notes how far it is.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tower::ServiceExt as _;

use super::manager::Manager;
use super::record::{JobOutcome, JobRecord, LIFETIME};
use crate::cache::{CacheError, CostQuery, RemainingStream, StreamEvent, WindowAnswer, WindowQuery};
use crate::paging::PagingError;
use crate::quota::QuotaError;

/// How often the progress of a job is noted.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The shortest pause before a window is asked for again.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The longest: meanwhile a limit may have been raised, or the window fetched for somebody else.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Runs a job until it has ended or was removed from the registry.
pub(super) async fn run(manager: Arc<Manager>, record: watch::Sender<JobRecord>) {
    let (id, query) = {
        let record = record.borrow();
        (record.id.clone(), record.query())
    };
    let Ok(permit) = manager.permits.clone().acquire_owned().await else { return };
    if !manager.is_known(&id) {
        return;
    }
    record.send_modify(JobRecord::start);
    note_progress(&manager, &record, &query).await;
    let ends_at = Instant::now() + LIFETIME.saturating_sub(manager.clock.now().since(query.asked_at));
    let result = tokio::select! {
        biased;
        result = fetch(&manager, &query, permit, ends_at) => result,
        () = watch_progress(&manager, &record, &query, &id) => return,
    };
    let result = result.map_err(|error| (manager.describe)(&error));
    record.send_modify(|record| record.finish(result, manager.clock.now()));
    manager.after_end(&record).await;
}

/// Fetches the window. Waits as often as the quota, the caller's own limit, or this replica has no room; meanwhile another
/// job has the `permit`.
async fn fetch(
    manager: &Manager,
    query: &WindowQuery,
    permit: OwnedSemaphorePermit,
    ends_at: Instant,
) -> Result<JobOutcome, CacheError> {
    let (mut permit, mut spent, mut last) = (Some(permit), 0, CacheError::FetchLost);
    let attempts = async {
        loop {
            let error = match attempt(manager, query, &mut spent).await {
                Err(error) => error,
                done @ Ok(_) => return done,
            };
            let Some(pause) = retry_after(&error) else { return Err(error) };
            last = error;
            permit = None;
            sleep(pause.clamp(LEAST_PAUSE, LONGEST_PAUSE)).await;
            permit = manager.permits.clone().acquire_owned().await.ok();
        }
    };
    let result = timeout_at(ends_at, attempts).await;
    drop(permit);
    // Its reason is that of the last attempt.
    result.unwrap_or(Err(last))
}

/// When a window that could not be fetched may be had; `None` if something else than waiting is needed.
fn retry_after(error: &CacheError) -> Option<Duration> {
    match error {
        CacheError::QuotaExhausted(exhausted)
        | CacheError::Paging(PagingError::Quota(
            QuotaError::Exhausted(exhausted) | QuotaError::Refused { exhausted, .. },
        )) => Some(exhausted.retry_after),
        CacheError::Paging(PagingError::Quota(QuotaError::CallerLimit(exceeded))) => Some(exceeded.retry_after),
        CacheError::TooManyFetches { retry_after } => Some(*retry_after),
        // Most likely a new configuration is being rolled out.
        CacheError::PinnedMemoryFull | CacheError::ConfigMismatch => Some(PROGRESS_INTERVAL),
        _ => None,
    }
}

/// Fetches the window once. Adds its calls to `spent`, whether it succeeds or not.
async fn attempt(manager: &Manager, query: &WindowQuery, spent: &mut u32) -> Result<JobOutcome, CacheError> {
    let WindowAnswer { items, rest, calls, .. } = manager.windows()?.oneshot(query.clone()).await?;
    *spent = spent.saturating_add(calls);
    let mut count = items.count;
    drop(items);
    if let Some(mut rest) = rest {
        let drained = drain(&mut rest).await;
        *spent = spent.saturating_add(rest.settle_calls());
        count += drained?;
    }
    Ok(JobOutcome { items: count, calls: *spent })
}

/// Drops the items of a streamed answer, and counts them.
async fn drain(rest: &mut RemainingStream) -> Result<u64, CacheError> {
    let mut items = 0;
    loop {
        match poll_fn(|context| rest.poll_next(context)).await {
            Some(Ok(StreamEvent::Slice(slice))) => items += slice.rows.len() as u64,
            Some(Ok(StreamEvent::End)) => return Ok(items),
            Some(Err(error)) => return Err(error),
            None => return Err(CacheError::FetchLost),
        }
    }
}

/// Notes the progress at intervals. Ends when the job was cancelled.
async fn watch_progress(manager: &Arc<Manager>, record: &watch::Sender<JobRecord>, query: &WindowQuery, id: &str) {
    let mut ticks = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut removed = manager.removed.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = removed.changed() => {}
            _ = ticks.tick() => note_progress(manager, record, query).await,
        }
        if !manager.is_known(id) {
            return;
        }
    }
}

/// Notes how many pages are still missing.
async fn note_progress(manager: &Manager, record: &watch::Sender<JobRecord>, query: &WindowQuery) {
    let Some(costs) = manager.costs() else { return };
    let Ok(cost) = costs.oneshot(CostQuery(query.clone())).await;
    let scheduler = manager.quotas.scheduler(&query.series.account);
    let calls = cost.expected.map_or(1, |calls| u32::try_from(calls).unwrap_or(u32::MAX));
    let time = scheduler.map(|scheduler| scheduler.forecast(calls, query.requester.priority)).unwrap_or_default();
    record.send_modify(|record| record.note_remaining(cost.expected, time, manager.clock.now()));
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::service_fn;
    use tower::util::BoxCloneSyncService;

    use super::super::manager::MAX_RUNNING;
    use super::super::record::JobState;
    use super::super::record::tests::{at, record};
    use super::*;
    use crate::cache::{Cost, CostBasis, DensitySource, Outcome};
    use crate::clock::Clock;
    use crate::config;
    use crate::quota::{CallerLimitExceeded, Exhausted, QuotaManager};

    /// A manager whose quota is spent for a day for the caller `spent`, and whose other windows fail.
    fn manager() -> Arc<Manager> {
        let settings = config::JobsConfig { per_caller: 100, keep_for: Duration::from_hours(1) };
        let quota = config::QuotaConfig {
            queue_timeout: Duration::from_secs(30),
            max_wait: Duration::from_mins(5),
            interactive_reserve: 0.0,
            state_file: None,
        };
        let clock = Clock::manual(at(1000));
        let quotas = QuotaManager::new(&[], &quota, 8, Duration::ZERO, &clock.clone().into()).unwrap();
        let describe = |error: &CacheError| serde_json::Value::String(error.to_string());
        let manager = Manager::new(settings, None, &quotas, &clock, describe);
        let windows = service_fn(|query: WindowQuery| async move {
            let exhausted = Exhausted { retry_after: Duration::from_hours(24) };
            let is_spent = &*query.requester.caller == "spent";
            Err::<WindowAnswer, _>(if is_spent {
                CacheError::QuotaExhausted(exhausted)
            } else {
                CacheError::ItemsMoving
            })
        });
        let unknown = Cost {
            runs: Vec::new(),
            expected: None,
            under_way: Vec::new(),
            chunks: 0,
            hits: 0,
            outcome: Outcome::Miss,
            basis: CostBasis { source: DensitySource::Series, items: 0, length: Duration::ZERO },
            settled_until: at(0),
        };
        let costs = service_fn(move |_: CostQuery| std::future::ready(Ok::<_, Infallible>(unknown.clone())));
        assert!(manager.set_below((BoxCloneSyncService::new(windows), BoxCloneSyncService::new(costs))));
        Arc::new(manager)
    }

    #[tokio::test(start_paused = true)]
    async fn job_that_waits_lets_others_run_and_fails_with_its_reason() {
        let manager = manager();
        let start = |nth: usize, caller: &str| {
            let running = manager.registry().insert(record(&nth.to_string(), caller), false);
            tokio::spawn(run(manager.clone(), running.clone()));
            running.subscribe()
        };
        let mut waiting: Vec<_> = (0..MAX_RUNNING).map(|nth| start(nth, "spent")).collect();
        let mut other = start(MAX_RUNNING, "other");
        let begun = Instant::now();
        let ended = other.wait_for(JobRecord::is_finished).await.unwrap().clone();
        assert!(begun.elapsed() < LONGEST_PAUSE, "{:?}", begun.elapsed());
        assert!(matches!(ended.state, JobState::Failed { .. }));
        let late = waiting[0].wait_for(JobRecord::is_finished).await.unwrap().clone();
        assert!(begun.elapsed() >= LIFETIME);
        let reason = CacheError::QuotaExhausted(Exhausted { retry_after: Duration::from_hours(24) }).to_string();
        assert!(matches!(late.state, JobState::Failed { problem, .. } if problem == reason), "its last reason");
    }

    #[test]
    fn job_waits_for_room_and_fails_of_everything_else() {
        let exhausted = Exhausted { retry_after: Duration::from_secs(7) };
        let quota = |error| CacheError::Paging(PagingError::Quota(error));
        for (error, waits) in [
            (CacheError::QuotaExhausted(exhausted), true),
            (quota(QuotaError::Exhausted(exhausted)), true),
            (quota(QuotaError::Refused { exhausted, status: None }), true),
            (quota(QuotaError::CallerLimit(CallerLimitExceeded::an_hour(exhausted.retry_after))), true),
            (CacheError::TooManyFetches { retry_after: exhausted.retry_after }, true),
            (CacheError::PinnedMemoryFull, true),
            (CacheError::ItemsMoving, false),
            (CacheError::Paging(PagingError::WindowField), false),
        ] {
            assert_eq!(retry_after(&error).is_some(), waits, "{error}");
        }
    }
}
