//! Long windows at a follower: streamed run by run as the leader fetches them.

use super::replica_set::ReplicaSet;
use crate::support::{Fault, FaultPlan, GatewayClient, OpenResponse, Settings, TestRequest, at, exact_profile};

/// Forty settled days with 300 items each.
const FORTY_DAYS: &str = "from=2026-01-15&to=2026-02-23";
const PAGES: u64 = 120;
/// A small first run, and runs of about forty pages, of which the last pages need not be full.
const RUNS: u64 = 5;
/// More pages than the first run has.
const FIRST_PAGES: u64 = 20;

async fn start(count: usize) -> ReplicaSet {
    let settings = Settings::one_second_limit().section("cache", "memory = '16MiB'");
    ReplicaSet::start(exact_profile(300, 45), settings, count).await
}

fn forty_days(set: &ReplicaSet) -> Vec<Vec<u8>> {
    set.harness.items(at("2026-01-15"), at("2026-02-24"))
}

/// Reads the beginning of the window at a follower.
async fn read_beginning(gateway: &GatewayClient) -> OpenResponse {
    let mut response = gateway.open(&TestRequest::get(FORTY_DAYS)).await;
    response.read(10_000).await;
    response
}

#[tokio::test]
async fn followed_stream_is_complete_at_few_extra_calls() {
    let set = start(3).await;
    let expected = forty_days(&set);
    assert_eq!(expected.len() as u64, PAGES * 100);
    let response = set.follower(0).get(FORTY_DAYS).await;
    assert_eq!(response.cache_status(), "koregate; fwd=miss; ttl=31536000; detail=\"streamed\"");
    response.assert_complete(&expected, "streamed");
    let calls = set.harness.calls();
    assert!((PAGES..=PAGES + RUNS).contains(&calls), "{calls}");
    for gateway in [set.follower(1), set.leader()] {
        let cached = gateway.get(FORTY_DAYS).await;
        cached.assert_hit();
        cached.assert_complete(&expected, "cached");
    }
    assert_eq!(set.harness.calls(), calls);
}

#[tokio::test]
async fn followed_stream_starts_before_fetch_ends() {
    let set = start(2).await;
    // The upstream never answers the calls that follow.
    set.harness.control.set_faults(FaultPlan::always(Fault::Slow).after(FIRST_PAGES));
    let mut response = read_beginning(set.follower(0)).await;
    let beginning = [b"{\"data\":[", &forty_days(&set)[0][..]].concat();
    assert!(response.read(beginning.len()).await.starts_with(&beginning));
}

#[tokio::test]
async fn followed_stream_unread_stops_fetching() {
    let set = start(2).await;
    let (follower, harness) = (set.follower(0), &set.harness);
    let _unread = read_beginning(follower).await;
    let (mut calls, mut others) = (0, 0);
    // Other windows of one call each are served, until they cause all calls.
    while harness.calls() > calls + 1 {
        calls = harness.calls();
        let (hour, minute) = (others / 60, others % 60);
        let minute = format!("from=2026-01-14T{hour:02}:{minute:02}:00&to=2026-01-14T{hour:02}:{minute:02}:59");
        follower.get(minute).await.page();
        others += 1;
    }
    let calls = harness.calls() - others;
    assert!(calls < PAGES / 2 + FIRST_PAGES, "{calls} calls for an unread response");
}

#[tokio::test]
async fn followed_stream_completes_after_leader_death() {
    let mut set = start(3).await;
    let expected = forty_days(&set);
    set.harness.control.set_faults(FaultPlan::always(Fault::Slow).after(FIRST_PAGES));
    let response = read_beginning(set.follower(0)).await;
    set.replicas[0].kill();
    set.harness.control.clear_faults();
    response.finish().await.assert_complete(&expected, "after the failover");
}
