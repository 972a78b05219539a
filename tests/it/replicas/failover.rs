//! Losses during a forwarded fetch: a client, a follower, the leader, Redis, chunks or messages.

use std::time::Duration;

use futures_util::future::join_all;

use super::replica_set::{ReplicaSet, overlapping_windows};
use crate::support::{Profile, RedisServer, RollingLimit, SETTLED_DAY, Settings, TestRequest, exact_profile, until};

fn day(date: &str) -> TestRequest {
    TestRequest::get(format!("from={date}&to={date}"))
}

/// A leader and a follower with a limit of one call in two seconds, which is spent.
async fn start_spent() -> ReplicaSet {
    let limit = RollingLimit::new(1, Duration::from_secs(2));
    let profile = Profile { rate_limits: vec![limit].into(), ..exact_profile(50, 20) };
    let settings = Settings::default().limits("[{ requests = 1, per = '2s' }]");
    let set = ReplicaSet::start(profile, settings, 2).await;
    set.leader().send(&day("2026-02-10")).await.page();
    set
}

#[tokio::test]
async fn follower_client_disconnect_costs_no_call() {
    let set = start_spent().await;
    let disconnecting = set.follower(0).spawn(day("2026-02-12"));
    set.until_waiting(1).await;
    disconnecting.abort();
    set.until_waiting(0).await;
    set.follower(0).send(&day("2026-02-14")).await.page();
    assert_eq!(set.harness.calls(), 2);
}

#[tokio::test]
async fn dead_follower_fetch_is_dropped() {
    let mut set = start_spent().await;
    // The fetch waits for longer than the timeout of a silent follower.
    set.harness.control.set_latency(Duration::from_secs(20), Duration::from_secs(20));
    let first = set.leader().spawn(day("2026-02-11"));
    set.harness.until_calls(2).await;
    let forwarded = set.follower(0).spawn(day("2026-02-12"));
    set.until_waiting(1).await;
    set.replicas[1].kill();
    set.until_waiting(0).await;
    forwarded.abort();
    first.abort();
}

#[tokio::test]
async fn leader_gone_successor_continues_fetch() {
    for killed in [true, false] {
        let mut set = ReplicaSet::start(exact_profile(250, 4), Settings::default(), 4).await;
        set.harness.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
        // One of the followers becomes the leader, so requests of both kinds of replica are pending.
        let pending: Vec<_> =
            (0..6).map(|number| set.follower(number % 3).spawn(TestRequest::get(SETTLED_DAY))).collect();
        set.harness.until_calls(1).await;
        set.harness.control.set_latency(Duration::ZERO, Duration::ZERO);
        let mut leader = set.replicas.remove(0);
        if killed {
            leader.kill();
        } else {
            leader.gateway.release_lease().await;
        }
        let mut reported = 0;
        for response in join_all(pending).await {
            let response = response.unwrap();
            response.assert_complete(&set.harness.settled_day(), "after the failover");
            reported += response.reported_calls();
        }
        assert_eq!((set.harness.calls(), reported), (1 + 3, 3), "killed: {killed}");
    }
}

#[tokio::test]
async fn redis_lost_follower_fetches_by_itself() {
    for lose in [RedisServer::kill as fn(&mut RedisServer), |redis| redis.freeze()] {
        let mut set = ReplicaSet::start(exact_profile(250, 4), Settings::default(), 2).await;
        set.harness.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
        let pending = set.follower(0).spawn(TestRequest::get(SETTLED_DAY));
        set.harness.until_calls(1).await;
        set.harness.control.set_latency(Duration::ZERO, Duration::ZERO);
        lose(&mut set.redis);
        let response = pending.await.unwrap();
        response.assert_complete(&set.harness.settled_day(), "without Redis");
        assert_eq!((set.harness.calls(), response.reported_calls()), (4, 3));
    }
}

#[tokio::test]
async fn chunks_deleted_before_reading_are_handed_over_again() {
    let set = ReplicaSet::start(exact_profile(250, 4), Settings::default(), 2).await;
    let harness = &set.harness;
    set.leader().get(SETTLED_DAY).await.page();
    until("all chunks in Redis", || set.for_each_key("") == "24").await;
    // Afterwards the leader takes all chunks for written.
    set.follower(0).get("from=2026-02-22T01:00:00&to=2026-02-22T01:00:00").await.page();
    let calls = harness.calls();
    set.for_each_key("redis.call('del', key)");
    let response = set.follower(0).get(SETTLED_DAY).await;
    response.assert_complete(&harness.settled_day(), "handed over");
    assert_eq!((harness.calls(), response.reported_calls()), (calls, 0));
    assert!(set.handover_keys().contains(":passing:"));
}

#[tokio::test]
async fn lost_messages_are_resent() {
    let set = ReplicaSet::start(exact_profile(900, 4), Settings::default(), 3).await;
    let windows = overlapping_windows(24);
    let subscriptions = || set.redis.query(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().count();
    let interrupt = async {
        for _ in 0..10 {
            until("a subscription", || subscriptions() > 0).await;
            set.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
    };
    tokio::join!(set.get_all(&windows), interrupt);
}
