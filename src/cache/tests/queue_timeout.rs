//! How long somebody waits for the quota, whatever becomes of the runs that it waits for.

use tokio::time::{Instant, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn elsewhere() -> RunOutcome {
    Err(PagingError::Quota(QuotaError::NotLeader))
}

/// Waits until somebody is told to come again; gives after how many seconds.
async fn told_to_come_again(answering: ResponseFuture) -> u64 {
    let begun = Instant::now();
    let told = answering.await.unwrap();
    assert!(
        matches!(told, Err(CacheError::QuotaExhausted(Exhausted { retry_after })) if retry_after >= SECOND),
        "{told:?}"
    );
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn who_is_granted_no_call_is_told_to_come_again() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    assert_eq!(told_to_come_again(asking).await, 29, "the run was begun a moment later");
    assert!(run.run.demand.is_abandoned());
    run.end(Err(PagingError::Quota(QuotaError::Abandoned)));
    settle().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn time_that_is_lost_at_each_new_caller_counts() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 100, Priority::Interactive).await;
    let mut callers = 0;
    while !asking.is_finished() {
        let run = rig.run().await;
        callers += 1;
        assert!(callers < 10, "it begins to wait anew at each");
        sleep(8 * SECOND).await;
        run.end(elsewhere());
        settle().await;
    }
    told_to_come_again(asking).await;
    assert_eq!(callers, 4, "by the time that the fourth is gone, it has been told");
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn long_run_is_waited_for_while_its_pages_come() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 1_000, Priority::Interactive).await;
    let run = rig.run().await;
    for _ in 0..5 {
        sleep(25 * SECOND).await;
        run.page();
    }
    assert!(!all.is_finished());
    run.bring_up_to(1_000);
    assert_whole(&answered(all).await, 0, 1_000);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn pages_that_come_once_more_at_a_new_caller_are_no_news() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 1_000, Priority::Interactive).await;
    let mut callers = 0;
    while !asking.is_finished() {
        let run = rig.run().await;
        callers += 1;
        run.page();
        run.page();
        sleep(14 * SECOND).await;
        run.end(elsewhere());
        settle().await;
    }
    assert_eq!(callers, 3);
    told_to_come_again(asking).await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_not_the_quota() {
    let mut rig = Rig::new();
    let first = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    sleep(20 * SECOND).await;
    let calling = run.run.demand.calling();
    sleep(100 * SECOND).await;
    assert!(!first.is_finished());
    drop(calling);
    assert_eq!(told_to_come_again(first).await, 9);
    drop(run);
}
