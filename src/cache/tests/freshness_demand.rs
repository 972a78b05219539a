//! What requests demand of the age of cached data, and requests for which nothing is fetched.

use super::harness::*;
use super::*;
use crate::request::Requester;
use crate::window::FreshnessDemand;

/// How a request is answered.
#[derive(Debug, PartialEq)]
enum Answered {
    FromCache,
    ByRun,
    NotCached,
}

fn bounded(max_age: u64, max_stale: u64) -> FreshnessDemand {
    let seconds = Duration::from_secs;
    FreshnessDemand::Bounded { max_age: seconds(max_age), max_stale: seconds(max_stale) }
}

/// How a request at `asked_at` is answered whose window was fetched at 5,000.
async fn answered_at((start, end): (i64, i64), asked_at: i64, options: QueryOptions) -> Answered {
    let mut harness = TestHarness::with_tier(Duration::from_hours(1), Duration::from_secs(30));
    let first = harness.request(start, end, Priority::Interactive).await;
    harness.next_run().await.succeed();
    let all = seconds(&answered(first).await);
    let query = query(series(), interval(start, end), Requester::anyone());
    let query = WindowQuery { asked_at: at(asked_at), options, ..query };
    let mut pending = tokio::spawn(harness.stage.clone().oneshot(query));
    let run = tokio::select! {
        biased;
        answer = &mut pending => {
            return match answer.unwrap() {
                Ok(answer) => {
                    assert_eq!((seconds(&answer), answer.calls), (all, 0));
                    Answered::FromCache
                }
                Err(CacheError::NotCached) => Answered::NotCached,
                Err(error) => panic!("{error}"),
            };
        }
        run = harness.next_run() => run,
    };
    assert_eq!(run.interval(), (start, end));
    run.succeed();
    assert_eq!(seconds(&answered(pending).await), all);
    Answered::ByRun
}

#[tokio::test(start_paused = true)]
async fn age_of_cached_data_is_held_to_the_demand() {
    let (settled, open) = ((-90_060, -90_000), (4000, 4060));
    for (window, asked_at, freshness, is_cached) in [
        (settled, 5020, FreshnessDemand::POLICY, true),
        (settled, 5020, bounded(0, 0), true),
        (settled, 5020, FreshnessDemand::Refetch, false),
        (open, 5020, FreshnessDemand::POLICY, true),
        (open, 5020, FreshnessDemand::Refetch, false),
        (open, 5020, bounded(20, 0), true),
        (open, 5020, bounded(19, 0), false),
        (open, 5020, bounded(19, 1), true),
        (open, 5031, FreshnessDemand::POLICY, false),
        (open, 5031, bounded(60, 0), false),
        (open, 5040, bounded(60, 10), true),
        (open, 5041, bounded(60, 10), false),
    ] {
        for only_cached in [false, true] {
            let options = QueryOptions { freshness, only_cached, queue_timeout: None };
            let expected = match (is_cached, only_cached) {
                (true, _) => Answered::FromCache,
                (false, true) => Answered::NotCached,
                (false, false) => Answered::ByRun,
            };
            let found = answered_at(window, asked_at, options).await;
            assert_eq!(found, expected, "{window:?} at {asked_at}: {freshness:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cached_only_request_neither_waits_for_a_fetch_nor_ends_it() {
    let mut harness = TestHarness::new();
    let first = harness.request(100, 200, Priority::Interactive).await;
    let run = harness.next_run().await;
    let query = query(series(), interval(100, 200), Requester::anyone());
    let options = QueryOptions { only_cached: true, ..QueryOptions::default() };
    let refused = harness.stage.clone().oneshot(WindowQuery { options, ..query }).await;
    assert!(matches!(refused, Err(CacheError::NotCached)), "{refused:?}");
    run.succeed();
    assert_eq!(seconds(&answered(first).await).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn joined_fetch_makes_no_other_entry_fresh() {
    let mut harness = TestHarness::with_tier(Duration::from_hours(24), Duration::from_secs(30));
    let slow = harness.request(0, 1_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    let behind = harness.request(1_000, 2_000, Priority::Interactive).await;
    harness.next_run().await.succeed();
    assert_whole(&answered(behind).await, 1_000, 2_000);
    // The entry behind the fetch under way is stale by now.
    let both = harness.request_at(5_036, (0, 2_000), FreshnessDemand::POLICY).await;
    run.succeed_in_parts(&[(0, 1_000, 5_010)]);
    let again = harness.next_run().await;
    assert_eq!(again.interval(), (1_000, 2_000));
    again.succeed();
    assert_whole(&answered(both).await, 0, 2_000);
    assert_whole(&answered(slow).await, 0, 1_000);
}

#[tokio::test(start_paused = true)]
async fn stale_part_of_a_shared_fetch_is_fetched_again() {
    let mut harness = TestHarness::with_tier(Duration::from_hours(24), Duration::from_secs(30));
    let first = harness.request(0, 1_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    let policy = harness.request_at(5_040, (0, 1_000), FreshnessDemand::POLICY).await;
    let refetch = harness.request_at(5_040, (0, 1_000), FreshnessDemand::Refetch).await;
    let stale = harness.request_at(5_040, (0, 1_000), bounded(3_600, 10)).await;
    // The run fetched its first page at 5,000, waited for the quota, and fetched the rest at 5,039.
    run.succeed_in_parts(&[(0, 600, 5_000), (600, 1_000, 5_039)]);
    assert_whole(&answered(first).await, 0, 1_000);
    let again = harness.next_run().await;
    assert_eq!(again.interval(), (0, 600), "only what is stale");
    // The request that accepts stale data does not wait for it.
    assert_whole(&answered(stale).await, 0, 1_000);
    // Fetched by a clock that was set back: fresh all the same, since it was fetched for the requests.
    again.succeed_in_parts(&[(0, 600, 4_000)]);
    for pending in [policy, refetch] {
        assert_whole(&answered(pending).await, 0, 1_000);
    }
    harness.assert_no_run().await;
}

#[tokio::test(start_paused = true)]
async fn fetch_of_a_moment_ago_is_shared_however_short_the_freshness() {
    let mut harness = TestHarness::new();
    let first = harness.request(0, 1_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    let soon = harness.request_at(5_005, (0, 1_000), FreshnessDemand::POLICY).await;
    let late = harness.request_at(5_006, (0, 1_000), FreshnessDemand::POLICY).await;
    run.succeed();
    assert_whole(&answered(first).await, 0, 1_000);
    assert_whole(&answered(soon).await, 0, 1_000);
    harness.next_run().await.succeed();
    assert_whole(&answered(late).await, 0, 1_000);
}
