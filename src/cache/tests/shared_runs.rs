//! Fetches that requests share: waiters that join, leave, and are more urgent than the run.

use super::*;
use crate::quota::CallerLimitExceeded;

/// A background request for seconds 0 to 1,000, and its run of thirty pages, each of which waits for the quota for a
/// second.
async fn slow_background_run(harness: &mut TestHarness) -> (PendingAnswer, TestRun) {
    let all = harness.request(0, 1_000, Priority::Background).await;
    let run = harness.next_run().await;
    run.page();
    run.shorten(1_000, 3_000.0);
    assert!(run.run.waiters.begin(Duration::from_secs(1)));
    (all, run)
}

#[tokio::test(start_paused = true)]
async fn fetch_finished_during_batch_window_is_not_repeated() {
    let mut harness = TestHarness::new();
    let first = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    let second = harness.request(0, 200, Priority::Interactive).await;
    run.succeed();
    assert_whole(&answered(first).await, 0, 100);
    let run = harness.next_run().await;
    assert_eq!(run.interval(), (100, 200));
    run.succeed();
    assert_whole(&answered(second).await, 0, 200);
    harness.assert_no_run().await;
}

#[tokio::test(start_paused = true)]
async fn urgent_request_fetches_its_part_of_slow_run_separately() {
    let mut harness = TestHarness::new();
    let (all, run) = slow_background_run(&mut harness).await;
    let urgent = harness.request(400, 430, Priority::Interactive).await;
    let own = harness.next_run().await;
    assert_eq!((own.interval(), own.run.waiters.priority()), ((400, 430), Priority::Interactive));
    let joins = harness.request(405, 420, Priority::Interactive).await;
    harness.assert_no_run().await;
    own.succeed();
    assert_whole(&answered(urgent).await, 400, 430);
    assert_whole(&answered(joins).await, 405, 420);
    run.succeed_up_to(1_000);
    assert_whole(&answered(all).await, 0, 1_000);
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn separate_run_that_grows_is_not_left_again() {
    let mut harness = TestHarness::new();
    let (all, run) = slow_background_run(&mut harness).await;
    let near = harness.request(400, 430, Priority::Interactive).await;
    let far = harness.request(425, 800, Priority::Interactive).await;
    let own = harness.next_run().await;
    assert_eq!(own.interval(), (400, 800));
    // More pages than were expected, so it may be as large as any run, and `near` needs little of it.
    own.page();
    own.page();
    assert!(own.run.waiters.begin(Duration::from_secs(1)));
    own.shorten(800, 100.0);
    harness.assert_no_run().await;
    own.succeed_up_to(800);
    assert_whole(&answered(near).await, 400, 430);
    assert_whole(&answered(far).await, 425, 800);
    run.succeed_up_to(1_000);
    assert_whole(&answered(all).await, 0, 1_000);
}

#[tokio::test(start_paused = true)]
async fn request_after_last_waiter_left_starts_a_new_fetch() {
    let mut harness = TestHarness::new();
    let first = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    cancel(first).await;
    let second = harness.request(0, 100, Priority::Interactive).await;
    // Both fetches are in the series for a while.
    let next = harness.next_run().await;
    run.finish(Err(PagingError::Quota(QuotaError::Abandoned)));
    next.succeed();
    assert_whole(&answered(second).await, 0, 100);
    harness.assert_no_run().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn request_cancelled_during_batch_window_costs_nothing() {
    let mut harness = TestHarness::new();
    let (left, stays) =
        (harness.request(0, 100, Priority::Interactive).await, harness.request(200, 300, Priority::Interactive).await);
    cancel(left).await;
    let run = harness.next_run().await;
    assert_eq!(run.interval(), (200, 300));
    run.succeed();
    assert_whole(&answered(stays).await, 200, 300);
    harness.assert_no_run().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn remaining_waiter_is_served_by_the_same_run() {
    let mut harness = TestHarness::new();
    let leaves = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    let stays = harness.request(0, 100, Priority::Background).await;
    cancel(leaves).await;
    assert_eq!(run.run.waiters.priority(), Priority::Background, "it is no longer urgent");
    run.succeed();
    assert_whole(&answered(stays).await, 0, 100);
    harness.assert_no_run().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn paused_run_refuses_only_less_urgent_waiters() {
    let mut harness = TestHarness::new();
    let pause = |run: &TestRun, seconds| {
        let phase =
            RunPhase::Paused { until: Instant::now() + Duration::from_secs(seconds), priority: Priority::Background };
        run.run.status.send_modify(|status| status.phase = phase);
    };
    let patient = harness.request(0, 100, Priority::Background).await;
    let run = harness.next_run().await;
    run.call();
    pause(&run, 29);
    settle().await;
    assert!(!patient.is_finished(), "the pause is shorter than the queue timeout");
    pause(&run, 300);
    let refused = timeout(Duration::from_secs(1), patient).await.unwrap().unwrap();
    assert!(matches!(refused, Err(CacheError::QuotaExhausted(_))), "{refused:?}");
    let urgent = harness.request(0, 100, Priority::Interactive).await;
    settle().await;
    assert!(!urgent.is_finished());
    run.run.status.send_modify(|status| status.phase = RunPhase::Fetching);
    run.succeed_up_to(100);
    assert_whole(&answered(urgent).await, 0, 100);
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn run_paused_for_its_callers_refuses_only_these() {
    let mut harness = TestHarness::new();
    let limited = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    let spent = |callers: &[&str]| {
        let exceeded = CallerLimitExceeded::an_hour(Duration::from_mins(5));
        let (until, callers) = (Instant::now() + exceeded.retry_after, callers.iter().map(|name| Arc::from(*name)));
        let phase = RunPhase::CallersSpent { until, exceeded, callers: callers.collect() };
        run.run.status.send_modify(|status| status.phase = phase);
    };
    spent(&["another"]);
    settle().await;
    assert!(!limited.is_finished(), "the limit is not that of this caller");
    spent(&["another", &run.run.waiters.cause().caller]);
    let refused = timeout(Duration::from_secs(1), limited).await.unwrap().unwrap();
    let is_limit = matches!(refused, Err(CacheError::Paging(PagingError::Quota(QuotaError::CallerLimit(_)))));
    assert!(is_limit, "{refused:?}");
    run.run.status.send_modify(|status| status.phase = RunPhase::Fetching);
    run.succeed_up_to(100);
    settle().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn leader_change_makes_waiters_fetch_again() {
    let mut harness = TestHarness::new();
    let pending = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    run.finish(Err(PagingError::Quota(QuotaError::NotLeader)));
    let run = harness.next_run().await;
    assert_eq!(run.interval(), (0, 100));
    run.succeed();
    let answer = answered(pending).await;
    assert_whole(&answer, 0, 100);
    assert_eq!((answer.calls, answer.outcome), (2, Outcome::Miss));
    harness.assert_no_run().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn repeated_leader_changes_end_in_an_error() {
    let mut harness = TestHarness::new();
    let pending = harness.request(0, 100, Priority::Interactive).await;
    let mut runs = 0;
    while !pending.is_finished() {
        let Ok(Some(run)) = timeout(Duration::from_secs(1), harness.runs.recv()).await else { break };
        run.finish(Err(PagingError::Quota(QuotaError::NotLeader)));
        runs += 1;
    }
    assert!(matches!(pending.await.unwrap(), Err(CacheError::ItemsMoving)) && runs > 10, "{runs}");
    harness.assert_idle();
}
