mod callers;
#[cfg(feature = "interleavings")]
mod interleavings;
mod lending;
mod reload;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::config::QuotaConfig;
use crate::config::QuotaLimit;
use crate::quota::LimitUsage;
use crate::quota::lease::SharedQuota;
use crate::replicas::ReplicaId;
use crate::request::{Priority, QueueTimeout, Requester, RunWaiters};
use crate::upstream::{RateLimitHeader, SpentLimit};

fn scheduler_with(limits: &[(u32, u64)], queue_seconds: u64, reserve: f64) -> Arc<CallScheduler> {
    let limits =
        limits.iter().map(|(requests, per)| QuotaLimit { requests: *requests, per: Duration::from_secs(*per) });
    let queue_timeout = Duration::from_secs(queue_seconds);
    let quota =
        QuotaConfig { queue_timeout, max_wait: Duration::from_mins(5), interactive_reserve: reserve, state_file: None };
    CallScheduler::new(&"a".into(), limits.collect(), &quota, 8, None)
}

fn scheduler(limits: &[(u32, u64)], queue_seconds: u64) -> Arc<CallScheduler> {
    scheduler_with(limits, queue_seconds, 0.0)
}

fn requester(caller: &str, weight: u32, priority: Priority) -> Requester {
    Requester { caller: caller.into(), weight, priority }
}

/// Waiters of a run of the only caller.
fn sole_run() -> Arc<RunWaiters> {
    RunWaiters::new(Requester::anyone())
}

/// Makes a call of 150 ms. Returns the time that it waited for its permit.
async fn call(scheduler: &Arc<CallScheduler>, waiters: &Arc<RunWaiters>) -> Result<Duration, AcquireError> {
    let entered = Instant::now();
    let permit = scheduler.acquire(waiters).await?;
    let waited = entered.elapsed();
    tokio::time::sleep(Duration::from_millis(150)).await;
    permit.answered(None);
    Ok(waited)
}

#[tokio::test(start_paused = true)]
async fn long_run_is_paced_within_the_queue_timeout() {
    let scheduler = scheduler(&[(60, 60), (1800, 3600)], 30);
    let begun = Instant::now();
    for _ in 0..600 {
        call(&scheduler, &sole_run()).await.expect("paced");
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    assert!(600.0 / 60.0 / minutes >= 0.95, "{minutes} minutes for 600 calls");
}

/// One call's share of the window is a minute, longer than the queue timeout.
#[tokio::test(start_paused = true)]
async fn limit_of_one_call_a_minute_is_not_paced() {
    let scheduler = scheduler(&[(60, 3600)], 30);
    for _ in 0..60 {
        drop(scheduler.acquire(&sole_run()).await.expect("there is quota left"));
    }
    assert!(scheduler.acquire(&sole_run()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn call_waits_as_long_as_its_most_patient_waiter() {
    let scheduler = scheduler(&[(1, 60)], 30);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let run = sole_run();
    let join = |wait| run.join(Requester::anyone(), Some(&Arc::new(QueueTimeout::new(Duration::from_secs(wait)))));
    let _waiting = [5, 90].map(join);
    assert!(scheduler.acquire(&run).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn hour_spent_fails_at_once() {
    let scheduler = scheduler(&[(100, 60), (2, 3600)], 30);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let begun = Instant::now();
    let Err(AcquireError::Exhausted(exhausted)) = scheduler.acquire(&sole_run()).await else {
        panic!("the hour is spent")
    };
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(exhausted.retry_after > Duration::from_secs(3590), "{exhausted:?}");
}

/// Backoff and ledger are asked together, for the later of their times.
#[tokio::test(start_paused = true)]
async fn hour_spent_fails_at_once_during_a_pause() {
    let scheduler = scheduler(&[(100, 60), (2, 3600)], 30);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let spent = RateLimitHeader { limit: Some(2), remaining: 0, reset: Some(Duration::from_secs(5)) };
    scheduler.acquire(&sole_run()).await.unwrap().answered(Some(&spent));
    let started = Instant::now();
    let Err(AcquireError::Exhausted(exhausted)) = scheduler.acquire(&sole_run()).await else {
        panic!("the hour is spent")
    };
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(exhausted.retry_after > Duration::from_secs(3590), "{exhausted:?}");
}

#[tokio::test(start_paused = true)]
async fn account_refused_pauses_for_retry_after() {
    let scheduler = scheduler(&[(60, 60)], 30);
    let refused = |retry_after| {
        let scheduler = scheduler.clone();
        async move { scheduler.acquire(&sole_run()).await.unwrap().refused(SpentLimit::Unnamed, retry_after, None) }
    };
    assert_eq!(refused(Some(Duration::from_secs(7))).await.closed_for, Duration::from_secs(7));
    let LimitUsage { remaining, more_in, .. } = scheduler.limit_usage()[0];
    assert_eq!((remaining, more_in), (0, Some(Duration::from_secs(7))));
    let begun = Instant::now();
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn long_retry_after_is_probed_and_ended_by_first_page() {
    let scheduler = scheduler(&[(60, 60), (1800, 3600)], 30);
    let asked = Some(Duration::from_secs(1_000_000_000_000));
    let refused = scheduler.acquire(&sole_run()).await.unwrap().refused(SpentLimit::Unnamed, asked, None);
    assert_eq!((refused.closed_for, refused.retry_after), (Duration::from_hours(1), Duration::from_mins(2)));
    assert_eq!(scheduler.closed_for(), Some(Duration::from_hours(1)));
    let exhausted = async |seconds| {
        let retry_after = Duration::from_secs(seconds);
        assert_eq!(
            scheduler.acquire(&sole_run()).await.map(drop),
            Err(AcquireError::Exhausted(Exhausted { retry_after }))
        );
    };
    exhausted(120).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    exhausted(40).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let probe = scheduler.acquire(&sole_run()).await.unwrap();
    exhausted(120).await;
    let refused = probe.refused(SpentLimit::Unnamed, asked, None);
    assert_eq!(refused.retry_after, Duration::from_mins(2));
    tokio::time::sleep(Duration::from_mins(2)).await;
    let probe = scheduler.acquire(&sole_run()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    probe.answered(None);
    assert_eq!(call(&scheduler, &sole_run()).await, Ok(Duration::ZERO));
    assert_eq!(scheduler.closed_for(), None);
}

#[tokio::test(start_paused = true)]
async fn reset_far_away_closes_account_until_next_probe() {
    let scheduler = scheduler(&[(60, 60), (1800, 3600)], 30);
    let spent = RateLimitHeader { limit: None, remaining: 0, reset: Some(Duration::from_hours(24)) };
    scheduler.acquire(&sole_run()).await.unwrap().answered(Some(&spent));
    assert_eq!(scheduler.closed_for(), Some(Duration::from_hours(1)));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(call(&scheduler, &sole_run()).await, Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn account_refused_without_retry_after_pauses_longer_each_time() {
    let scheduler = scheduler(&[(60, 60)], 30);
    let mut closed = Vec::new();
    loop {
        match scheduler.acquire(&sole_run()).await {
            Ok(permit) => closed.push(permit.refused(SpentLimit::Minute, None, None).closed_for.as_secs()),
            Err(AcquireError::Exhausted(exhausted)) => break assert!(exhausted.retry_after > Duration::from_secs(30)),
            Err(error) => panic!("the run is neither abandoned nor limited: {error:?}"),
        }
    }
    assert_eq!(closed, [1, 2, 4, 8, 16, 32]);
}

/// Refusals with no page between them reduce the budget once.
#[tokio::test(start_paused = true)]
async fn budget_after_outage_was_reduced_once() {
    let scheduler = scheduler(&[(60, 60)], 300);
    for _ in 0..8 {
        scheduler.acquire(&sole_run()).await.unwrap().refused(SpentLimit::Unnamed, None, None);
    }
    call(&scheduler, &sole_run()).await.unwrap();
    assert!((42..=45).contains(&scheduler.limit_usage()[0].budget), "reduced once, and grown a little");
    scheduler.acquire(&sole_run()).await.unwrap().refused(SpentLimit::Unnamed, None, None);
    assert!(scheduler.limit_usage()[0].budget < 42, "reduced again");
}

#[tokio::test(start_paused = true)]
async fn queued_call_cancelled_lets_the_next_begin() {
    let scheduler = scheduler(&[(1, 10)], 60);
    let first = scheduler.acquire(&sole_run()).await.unwrap();
    let wait = || {
        let scheduler = scheduler.clone();
        tokio::spawn(async move { scheduler.acquire(&sole_run()).await })
    };
    let (second, third) = (wait(), wait());
    tokio::task::yield_now().await;
    assert_eq!(scheduler.queue_length(), 2);
    second.abort();
    drop(first);
    assert!(third.await.unwrap().is_ok());
    assert_eq!(scheduler.queue_length(), 0);
}

#[tokio::test(start_paused = true)]
async fn queued_call_abandoned_is_not_made() {
    let scheduler = scheduler(&[(1, 10)], 60);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let waiters = sole_run();
    let waiting = waiters.join(waiters.cause().clone(), None);
    let take = tokio::spawn({
        let (scheduler, waiters) = (scheduler.clone(), waiters.clone());
        async move { scheduler.acquire(&waiters).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(scheduler.queue_length(), 1);
    let begun = Instant::now();
    drop(waiting);
    assert_eq!(take.await.unwrap(), Err(AcquireError::Abandoned));
    assert_eq!((scheduler.queue_length(), begun.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn call_not_sent_is_refunded() {
    let scheduler = scheduler(&[(1, 10)], 60);
    for _ in 0..5 {
        scheduler.acquire(&sole_run()).await.unwrap().refund();
    }
    assert_eq!(scheduler.limit_usage()[0].remaining, 1);
    assert_eq!(scheduler.spent_by("c").0, 0);
}

/// Calls of each caller in `minutes`, if each has `workers` that call without a pause.
async fn calls_by_caller(scheduler: &Arc<CallScheduler>, weights: &[u32], workers: usize, minutes: u64) -> Vec<u64> {
    let tasks: Vec<_> = weights
        .iter()
        .enumerate()
        .flat_map(|(caller, weight)| std::iter::repeat_n((caller.to_string(), *weight), workers))
        .map(|(caller, weight)| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                loop {
                    // Each call belongs to a run of its own.
                    let waiters = RunWaiters::new(requester(&caller, weight, Priority::Interactive));
                    let _ = call(&scheduler, &waiters).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    (0..weights.len()).map(|caller| scheduler.spent_by(&caller.to_string()).0).collect()
}

#[tokio::test(start_paused = true)]
async fn callers_competing_get_calls_by_weight() {
    for workers in [1, 2, 10] {
        let calls = calls_by_caller(&scheduler(&[(60, 60), (1800, 3600)], 30), &[1, 1, 2], workers, 2).await;
        let all: u64 = calls.iter().sum();
        assert!(all >= 116, "{calls:?}");
        for (calls, share) in calls.iter().zip([0.25, 0.25, 0.5]) {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
            let ratio = *calls as f64 / all as f64 / share;
            assert!(
                (0.9..=1.1).contains(&ratio),
                "{workers} workers each: {calls} of {all} is {ratio} of a share of {share}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn single_call_beside_backlog_waits_three_seconds_at_most() {
    let scheduler = scheduler(&[(60, 60), (1800, 3600)], 30);
    let backlog = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { calls_by_caller(&scheduler, &[1, 1, 2], 5, 4).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..15 {
        let waited = call(&scheduler, &RunWaiters::new(requester("rare", 1, Priority::Interactive))).await.unwrap();
        // The interval after the call before it, and its own.
        assert!(waited <= Duration::from_secs(3), "{waited:?}");
        tokio::time::sleep(Duration::from_secs(13)).await;
    }
    backlog.abort();
}

#[tokio::test(start_paused = true)]
async fn background_calls_leave_the_reserve_free() {
    let scheduler = scheduler_with(&[(60, 60)], 30, 0.2);
    let background: Vec<_> = (0..10)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                loop {
                    let _ = call(&scheduler, &RunWaiters::new(requester("backfill", 9, Priority::Background))).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_mins(2)).await;
    let before = scheduler.spent_by("backfill").0;
    for _ in 0..60 {
        // Twelve a minute, which is the whole reserve, without waiting.
        assert_eq!(call(&scheduler, &sole_run()).await.unwrap(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(4850)).await;
    }
    let after = scheduler.spent_by("backfill").0 - before;
    assert!((171..=185).contains(&after), "{after} in five minutes: 60 - 12 - 12 a minute");
    background.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn background_run_joined_by_interactive_request_goes_first() {
    let scheduler = scheduler(&[(1, 10)], 60);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let take = |waiters: &Arc<RunWaiters>| {
        let (scheduler, waiters) = (scheduler.clone(), waiters.clone());
        tokio::spawn(async move { call(&scheduler, &waiters).await.unwrap() })
    };
    let (backfill, refresh) = (
        RunWaiters::new(requester("b", 1, Priority::Background)),
        RunWaiters::new(requester("r", 1, Priority::Refresh)),
    );
    let (backfill_goes, refresh_goes) = (take(&backfill), take(&refresh));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = backfill.join(requester("c", 1, Priority::Interactive), None);
    assert_eq!(backfill_goes.await.unwrap().as_secs(), 10);
    assert_eq!(refresh_goes.await.unwrap().as_secs(), 20);
    assert_eq!(scheduler.spent_by("b").0, 1, "the cause is charged");
    drop(waiting);
}

const PLENTY: (u32, u64) = (10_000, 60);

#[tokio::test(start_paused = true)]
async fn spare_calls_of_idle_account_are_bounded_by_concurrency() {
    let scheduler = scheduler(&[PLENTY], 30);
    assert_eq!(
        (scheduler.spare_calls(Priority::Interactive, 3), scheduler.spare_calls(Priority::Interactive, 100)),
        (3, 8)
    );
    let _turn = scheduler.acquire(&sole_run()).await.unwrap();
    assert_eq!(scheduler.spare_calls(Priority::Interactive, 100), 7);
    assert_eq!(scheduler.expected_wait(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn spare_calls_with_queued_call_are_none() {
    let scheduler = scheduler(&[(1, 60)], 30);
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    let waiting = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.acquire(&sole_run()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(scheduler.spare_calls(Priority::Interactive, 8), 0);
    assert_eq!(scheduler.expected_wait(), Duration::from_mins(1));
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn spare_calls_leave_a_fifth_of_each_limit() {
    // A limit of five calls is not paced.
    assert_eq!(scheduler(&[(5, 3600)], 30).spare_calls(Priority::Interactive, 8), 4);
    // The first twenty calls of a minute begin at once, and the others at intervals.
    let paced = scheduler(&[(60, 60)], 30);
    for _ in 0..22 {
        paced.acquire(&sole_run()).await.unwrap().answered(None);
    }
    assert_eq!(paced.spare_calls(Priority::Interactive, 8), 0);
    assert_eq!(paced.expected_wait(), Duration::from_secs(1));
    let refused = scheduler(&[PLENTY], 30);
    refused.acquire(&sole_run()).await.unwrap().refused(SpentLimit::Unnamed, Some(Duration::from_secs(1)), None);
    assert_eq!(refused.spare_calls(Priority::Interactive, 8), 0, "the account is closed");
}

#[tokio::test(start_paused = true)]
async fn spare_calls_for_background_leave_the_reserve() {
    assert_eq!(scheduler_with(&[PLENTY], 30, 0.5).spare_calls(Priority::Background, 8), 4);
}
