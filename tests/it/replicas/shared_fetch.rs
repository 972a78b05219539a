//! Windows requested at several replicas at once: they cost the calls that one gateway would make.

use std::time::Duration;

use super::replica_set::{Replica, ReplicaSet, overlapping_windows, window_requests};
use crate::support::{HOUR, Settings, TestHarness, TestResponse, UpperBound, Window, at, exact_profile};

#[tokio::test]
async fn overlapping_windows_on_three_replicas_cost_one_gateway() {
    let windows = overlapping_windows(40);
    let single = TestHarness::start_exact(900, 4).await;
    single.gateway.send_all(&window_requests(&windows)).await;
    let set = ReplicaSet::start(exact_profile(900, 4), Settings::default(), 3).await;
    set.open_connections(40).await;
    let responses = set.get_all(&windows).await;
    assert_eq!(set.harness.calls(), single.calls());
    let reported: u64 = responses.iter().map(TestResponse::reported_calls).sum();
    assert_eq!(reported, single.calls(), "each call is reported once");
    assert!(responses.iter().any(|response| response.cache_status().contains("collapsed")));
}

#[tokio::test]
async fn many_callers_on_eight_replicas_cost_fewest_calls() {
    let hour_from = |number: u32| {
        let from = at("2026-02-23") + Duration::from_mins(5) * number;
        Window::seconds(from, from + Duration::from_mins(59), UpperBound::Inclusive)
    };
    let windows: Vec<Window> = (0..200).map(hour_from).collect();
    let set = ReplicaSet::start_together(exact_profile(600, 4), Settings::default(), 8).await;
    set.open_connections(200).await;
    let responses = set.get_all(&windows).await;
    let fewest = set.fewest_calls(&windows);
    assert_eq!((set.harness.calls(), responses.iter().map(TestResponse::reported_calls).sum()), (fewest, fewest));
}

#[tokio::test]
async fn adjacent_windows_before_election_cost_one_scan() {
    let hour = |number: u32| {
        let from = at("2026-02-23") + HOUR * number;
        Window::seconds(from, from + HOUR, UpperBound::Inclusive)
    };
    let windows: Vec<Window> = (0..24).map(hour).collect();
    let mut calls = Vec::new();
    // The leader collects requests for a short time only, which a replica may miss on a busy machine: two of three
    // suffice.
    for _ in 0..3 {
        let set = ReplicaSet::start_undecided(exact_profile(900, 4), Settings::default(), 8).await;
        assert!(set.replicas.iter().all(Replica::is_undecided));
        set.get_all(&windows).await;
        calls.push((set.harness.calls(), set.fewest_calls(&windows)));
    }
    assert!(calls.iter().filter(|(calls, fewest)| calls == fewest).count() >= 2, "(calls, fewest): {calls:?}");
}
