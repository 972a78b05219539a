//! The queue timeout of a request, whatever becomes of the runs that it waits for.

use tokio::time::{Instant, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn not_leader() -> RunOutcome {
    Err(PagingError::Quota(QuotaError::NotLeader))
}

/// Waits until the quota refuses a request; returns after how many seconds.
async fn seconds_until_refused(pending: PendingAnswer) -> u64 {
    let started = Instant::now();
    let refused = pending.await.unwrap();
    assert!(
        matches!(refused, Err(CacheError::QuotaExhausted(Exhausted { retry_after })) if retry_after >= SECOND),
        "{refused:?}"
    );
    started.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn request_without_a_call_ends_after_the_queue_timeout() {
    let mut harness = TestHarness::new();
    let pending = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    assert_eq!(seconds_until_refused(pending).await, 29, "the run was started a moment later");
    assert!(run.run.waiters.is_abandoned());
    run.finish(Err(PagingError::Quota(QuotaError::Abandoned)));
    settle().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn request_may_set_its_queue_timeout() {
    for wait in [5, 100] {
        let harness = TestHarness::new();
        let options = QueryOptions { queue_timeout: Some(wait * SECOND), ..QueryOptions::default() };
        let query = query(series(), interval(0, 100), Requester::anyone());
        let pending = tokio::spawn(harness.stage.clone().oneshot(WindowQuery { options, ..query }));
        assert_eq!(seconds_until_refused(pending).await, u64::from(wait));
    }
}

#[tokio::test(start_paused = true)]
async fn queue_timeout_continues_over_leader_changes() {
    let mut harness = TestHarness::new();
    let pending = harness.request(0, 100, Priority::Interactive).await;
    let mut leaders = 0;
    while !pending.is_finished() {
        let run = harness.next_run().await;
        leaders += 1;
        assert!(leaders < 10, "the timeout restarts at each leader");
        sleep(8 * SECOND).await;
        run.finish(not_leader());
        settle().await;
    }
    seconds_until_refused(pending).await;
    assert_eq!(leaders, 4, "the request has ended before the fourth leader");
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn queue_timeout_restarts_with_each_page() {
    let mut harness = TestHarness::new();
    let all = harness.request(0, 1_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    for _ in 0..5 {
        sleep(25 * SECOND).await;
        run.page();
    }
    assert!(!all.is_finished());
    run.succeed_up_to(1_000);
    assert_whole(&answered(all).await, 0, 1_000);
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn pages_repeated_by_a_new_leader_do_not_restart_timeout() {
    let mut harness = TestHarness::new();
    let pending = harness.request(0, 1_000, Priority::Interactive).await;
    let mut leaders = 0;
    while !pending.is_finished() {
        let run = harness.next_run().await;
        leaders += 1;
        run.page();
        run.page();
        sleep(14 * SECOND).await;
        run.finish(not_leader());
        settle().await;
    }
    assert_eq!(leaders, 3);
    seconds_until_refused(pending).await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn queue_timeout_stops_while_a_call_is_in_progress() {
    let mut harness = TestHarness::new();
    let first = harness.request(0, 100, Priority::Interactive).await;
    let run = harness.next_run().await;
    sleep(20 * SECOND).await;
    let calling = run.run.waiters.calling();
    sleep(100 * SECOND).await;
    assert!(!first.is_finished());
    drop(calling);
    assert_eq!(seconds_until_refused(first).await, 9);
    drop(run);
}
