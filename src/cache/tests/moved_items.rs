//! Items that are in two chunks, because they have moved, or because the upstream holds them twice.

use super::*;
use crate::window::FreshnessDemand;

/// A cache of two chunks of open data, each of which has item 7; the first one was fetched first.
async fn with_item_in_two_chunks() -> TestHarness {
    let mut harness = TestHarness::with_tier(Duration::from_hours(24), Duration::from_hours(1));
    for (start, fetched_at) in [(0, 4_998), (100, 4_999)] {
        let pending = harness.request(start, start + 100, Priority::Interactive).await;
        let run = harness.next_run().await;
        run.call();
        run.succeed_with([(start + 1, start + 1), (start + 50, 7)], start + 100, fetched_at);
        assert_eq!(seconds(&answered(pending).await), [start + 1, 7]);
    }
    harness
}

#[tokio::test(start_paused = true)]
async fn chunk_that_an_item_has_left_is_fetched_again() {
    let mut harness = with_item_in_two_chunks().await;
    let pending = harness.request(0, 200, Priority::Interactive).await;
    {
        let state = harness.stage.0.series_map.get_or_insert(&series());
        let state = state.lock();
        let request = &state.pending.as_ref().unwrap().requests[0];
        assert_eq!(request.freshness, FreshnessDemand::Refetch, "no copy of another replica takes its place");
        assert!(request.redis_checked, "nor one in Redis");
    }
    let run = harness.next_run().await;
    assert_eq!(run.interval(), (0, 100));
    run.call();
    run.succeed_with([(1, 1)], 100, 5_000);
    assert_eq!(seconds(&answered(pending).await), [1, 101, 7]);
    let again = harness.request(0, 200, Priority::Interactive).await;
    assert_eq!(seconds(&answered(again).await), [1, 101, 7]);
}

#[tokio::test(start_paused = true)]
async fn item_that_the_upstream_holds_twice_is_served_twice() {
    let mut harness = with_item_in_two_chunks().await;
    let pending = harness.request(0, 200, Priority::Interactive).await;
    for (start, fetched_at) in [(0, 5_001), (100, 5_002)] {
        let run = harness.next_run().await;
        assert_eq!(run.interval(), (start, start + 100));
        run.call();
        run.succeed_with([(start + 1, start + 1), (start + 50, 7)], start + 100, fetched_at);
    }
    assert_eq!(seconds(&answered(pending).await), [1, 7, 101, 7]);
    harness.assert_no_run().await;
}
