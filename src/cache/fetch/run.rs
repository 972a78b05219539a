//! The life of a fetch, from its start to its end, and the reasons for not caching anything of one that failed
//! ([`not_stored_reason`]).

use std::sync::Arc;

use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::coalesce::BatchedRun;
use super::fetcher::Fetcher;
use super::remote::ExactWindow;
use super::task::FetchTask;
use crate::cache::error::CacheError;
use crate::cache::outcome::NotStored;
use crate::cache::series::{FetchSpec, FetchedInterval, InFlightFetch, SeriesState, SharedSeriesState};
use crate::cache::store::ChunkPacker;
use crate::paging::{FetchedRun, PagingError, PlacementCheck, RowOrder, Run};
use crate::quota::QuotaError;
use crate::request::{RunWaiters, Series};
use crate::sync::spawn;
use crate::telemetry;
use crate::traces::{Span, SpanKind};
use crate::window::{Interval, PlannedRun, Timestamp, small_run_length};

impl Fetcher {
    /// Starts one run of a batch. The caller holds the lock of the series. Log lines of the run have the ids of the request
    /// that began it.
    pub(super) fn start_fetch(
        self: &Arc<Self>,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        state: &mut SeriesState,
        run: BatchedRun,
        began_at: Timestamp,
    ) -> Arc<InFlightFetch> {
        let BatchedRun { plan: PlannedRun { interval, items }, agentic, owner } = run;
        let epoch = self.purges.epoch(&series.account);
        let spec = FetchSpec { interval, agentic, placement: PlacementCheck::Checked, began_at, epoch };
        let scheduler = self.quotas.scheduler(&series.account);
        let span = run_span(&owner.span, interval);
        let waiters = RunWaiters::traced(owner.requester, span);
        let fetch = InFlightFetch::new(spec, items, waiters, scheduler.as_ref());
        let task = FetchTask::new(series, shared, state, fetch.clone(), &owner.waiters);
        spawn(self.clone().run_fetch(task, items).in_current_span());
        fetch
    }

    /// Starts a fetch of exactly one window, which is not divided into chunks. The caller holds the lock of the series.
    pub(in crate::cache) fn fetch_exactly(self: &Arc<Self>, window: ExactWindow<'_>) -> Arc<InFlightFetch> {
        if let Some(remote) = self.remote(&window.series.account) {
            return remote.fetch_exactly(self, window);
        }
        let ExactWindow { series, shared, state, interval, waiter, .. } = window;
        let (began_at, epoch) = (self.clock.now(), self.purges.epoch(&series.account));
        let spec =
            FetchSpec { interval, agentic: series.agentic, placement: PlacementCheck::Unchecked, began_at, epoch };
        let scheduler = self.quotas.scheduler(&series.account);
        let waiters = RunWaiters::traced(waiter.requester.clone(), run_span(&waiter.span, interval));
        let fetch = InFlightFetch::new(spec, None, waiters, scheduler.as_ref());
        let task = FetchTask::new(series, shared, state, fetch.clone(), [waiter]);
        spawn(self.clone().run_fetch(task, None).in_current_span());
        fetch
    }

    /// Fetches one run and finishes its fetch. `planned` is the number of expected items, if anything is known.
    async fn run_fetch(self: Arc<Self>, task: FetchTask, planned: Option<f64>) {
        let InFlightFetch { spec, waiters, .. } = &*task.fetch;
        let settings = self.settings.of(&task.series);
        let policy = &settings.freshness_policy;
        let run = Run {
            series: task.series.clone(),
            interval: spec.interval,
            placement: spec.placement,
            planned,
            waiters: waiters.clone(),
            status: task.fetch.status().clone(),
            packer: ChunkPacker::new(policy, self.settings.grid, spec.placement, spec.epoch),
        };
        // A task of its own: should it panic, the fetch is lost and its waiters are still notified.
        let fetched = spawn(self.paging.clone().oneshot(run).in_current_span()).await;
        let result = match fetched.unwrap_or(Err(PagingError::Lost)) {
            Ok(FetchedRun { interval, mut packed, order, halved }) => {
                packed.sort_unstable_by_key(|chunk| chunk.interval().start);
                let chunks = self.store_chunks(&task, interval, &packed);
                self.check_field_of_chunks(&task, &chunks);
                let run_length = &mut task.state.lock().run_length;
                if halved && order == RowOrder::Other {
                    run_length.on_oversized_run(interval.length(), true, interval.length());
                } else {
                    run_length.on_run(interval.length(), order == RowOrder::Other);
                }
                Ok(FetchedInterval { interval, chunks: chunks.into() })
            }
            Err(PagingError::Oversized) => {
                // Where rows come in no order, a window of unknown density begins with a small run.
                let first = small_run_length(spec.interval, &self.settings.grid);
                let run_length = &mut task.state.lock().run_length;
                run_length.on_oversized_run(spec.interval.length(), planned.is_some(), first);
                Ok(FetchedInterval::nothing())
            }
            Err(PagingError::Lost) => Err(CacheError::FetchLost),
            Err(error) => Err(CacheError::Paging(error)),
        };
        self.finish_fetch(&task, result);
    }

    /// Removes a fetch from its series and notifies the waiters.
    pub(in crate::cache) fn finish_fetch(
        self: &Arc<Self>,
        task: &FetchTask,
        result: Result<FetchedInterval, CacheError>,
    ) {
        // Another replica makes the calls now: the waiters plan again, and ask that one.
        let result = if is_not_leader(&result) { Ok(FetchedInterval::nothing()) } else { result };
        if let Err(error) = &result
            && !task.fetch.waiters.is_abandoned()
        {
            // A failure on another replica is reported there.
            if !task.fetch.is_remote() {
                telemetry::run_failed(&task.series.account, error);
                telemetry::not_stored(not_stored_reason(error).label());
            }
        }
        match &result {
            Err(CacheError::Paging(PagingError::Torn(interval))) => task.state.lock().mark_torn(*interval),
            Err(CacheError::Paging(error)) => self.check_field_of_failure(task, error),
            Ok(_) | Err(_) => {}
        }
        let mut state = task.state.lock();
        end_span(task.fetch.waiters.span(), &result);
        state.in_flight.retain(|fetch| !Arc::ptr_eq(fetch, &task.fetch));
        // Under the lock: a request that does not find the fetch in the series any more finds its result.
        task.fetch.complete(result);
        drop(state);
        self.series_map.remove_if_idle(&task.series, &task.state);
    }
}

/// The span of a run that a request begins.
fn run_span(request: &Span, interval: Interval) -> Span {
    let span = request.child(SpanKind::Internal, "run");
    span.set_interval(interval);
    span
}

/// Ends the span of a fetch.
fn end_span(span: &Span, result: &Result<FetchedInterval, CacheError>) {
    match result {
        Ok(fetched) => span.set("koregate.chunks", fetched.chunks.len()),
        Err(error) => span.fail(not_stored_reason(error).label()),
    }
    span.end();
}

/// Whether the calls were not made because another replica has become the leader.
fn is_not_leader<T>(result: &Result<T, CacheError>) -> bool {
    matches!(result, Err(CacheError::Paging(PagingError::Quota(QuotaError::NotLeader))))
}

/// Why the items of a failed fetch are not stored.
fn not_stored_reason(error: &CacheError) -> NotStored {
    match error {
        CacheError::QuotaExhausted(_)
        | CacheError::Paging(PagingError::Quota(QuotaError::Exhausted(_) | QuotaError::Refused { .. })) => {
            NotStored::QuotaSpent
        }
        CacheError::Paging(PagingError::Quota(QuotaError::CallerLimit(_))) => NotStored::CallerLimit,
        CacheError::Paging(PagingError::Quota(QuotaError::Cordoned)) => NotStored::Cordoned,
        CacheError::Paging(PagingError::Quota(QuotaError::Token(_))) => NotStored::UpstreamFailed,
        CacheError::Paging(PagingError::Quota(QuotaError::Abandoned | QuotaError::NotLeader)) => NotStored::Unwanted,
        CacheError::Paging(PagingError::Torn(_)) | CacheError::ItemsMoving => NotStored::RowsMoved,
        CacheError::Paging(PagingError::WindowField) => NotStored::WrongWindowField,
        CacheError::Paging(PagingError::OutsideInterval(_)) => NotStored::OutsideInterval,
        CacheError::Paging(PagingError::WithoutTimestamp | PagingError::AllWithoutTimestamp) => NotStored::NoTimestamp,
        CacheError::Paging(PagingError::Oversized | PagingError::TooLarge { .. })
        | CacheError::TooLargeToBuffer { .. } => NotStored::TooLarge,
        // No fetch fails with the last three, which concern answers.
        CacheError::TooManyFetches { .. }
        | CacheError::FetchLost
        | CacheError::Paging(PagingError::Lost)
        | CacheError::Damaged(_)
        | CacheError::ConfigMismatch
        | CacheError::PinnedMemoryFull
        | CacheError::FractionOfSecond
        | CacheError::NotCached => NotStored::Lost,
    }
}
