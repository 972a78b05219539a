//! Clocks of this machine that are wrong or set back.

use super::*;

#[tokio::test(start_paused = true)]
async fn future_entries_are_removed_when_clock_is_set_back() {
    let mut harness = TestHarness::new();
    let (start, end) = (-90_000, -89_900);
    let pending = harness.request(start, end, Priority::Interactive).await;
    harness.next_run().await.succeed();
    answered(pending).await;
    let fetcher = harness.stage.0.clone();
    fetcher.remove_future_entries(at(5_000 - 60));
    assert_eq!(
        answered(harness.request(start, end, Priority::Interactive).await).await.outcome,
        Outcome::Hit,
        "within a minute"
    );
    fetcher.remove_future_entries(at(5_000 - 61));
    assert_eq!(fetcher.memory.bytes(), 0);
    let again = harness.request(start, end, Priority::Interactive).await;
    harness.next_run().await.succeed();
    assert_whole(&answered(again).await, start, end);
}

#[tokio::test(start_paused = true)]
async fn settled_data_is_not_stored_while_clock_is_wrong() {
    let mut harness = TestHarness::new();
    let clock = harness.stage.0.clock.clone();
    for (date, outcome) in [(at(-5_000), Outcome::Miss), (at(5_000), Outcome::Hit)] {
        for _ in 0..3 {
            clock.compare(at(5_000), date);
        }
        let pending = harness.request(-90_000, -89_900, Priority::Interactive).await;
        harness.next_run().await.succeed();
        answered(pending).await;
        let again = harness.request(-90_000, -89_900, Priority::Interactive).await;
        if outcome == Outcome::Miss {
            harness.next_run().await.succeed();
        }
        assert_eq!(answered(again).await.outcome, outcome);
    }
}
