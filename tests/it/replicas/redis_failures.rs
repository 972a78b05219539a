//! Failures of Redis: responses stay correct, and each replica uses its share of the quota until Redis works again.

use super::shared_quota::{Load, assert_limit_kept, settings, start, until_readiness};
use crate::support::{RedisServer, SETTLED_DAY, Settings, TestHarness, exact_profile, until_async};

const NOON: &str = "from=2026-02-23T09:00:00&to=2026-02-23T14:59:59";

async fn start_sharing(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(250, 4), settings).await
}

/// A failure of Redis, and the command of its cure.
#[derive(Clone, Copy)]
enum Failure {
    Killed,
    Frozen,
    /// A command that makes Redis refuse something, and the command that undoes it.
    Refuses([&'static [&'static str]; 2]),
}

impl Failure {
    fn begin(self, redis: &mut RedisServer) {
        match self {
            Self::Killed => redis.kill(),
            Self::Frozen => redis.freeze(),
            Self::Refuses([refuse, _]) => drop(redis.command(refuse)),
        }
    }

    fn end(self, redis: &mut RedisServer) {
        match self {
            Self::Killed => redis.restart(),
            Self::Frozen => redis.resume(),
            Self::Refuses([_, allow]) => drop(redis.command(allow)),
        }
    }
}

/// Asserts that two replicas under load keep the limit before, during and after a failure, and report it.
async fn assert_limit_survives(failure: Failure) {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let harness = start(&url).await;
    let other = harness.add_replica(&settings(&url)).await;
    let gateways = [&harness.gateway, &other];
    until_readiness(&gateways, "ready").await;
    let load = Load::new();
    let watch = async {
        load.until_served(24).await;
        failure.begin(&mut redis);
        until_readiness(&gateways, "degraded").await;
        load.until_served(12).await;
        failure.end(&mut redis);
        until_readiness(&gateways, "ready").await;
        load.until_served(24).await;
        load.stop();
    };
    tokio::join!(watch, load.run(&harness, &gateways));
    assert_limit_kept(&harness);
}

#[tokio::test]
async fn killed_redis_falls_back_to_shares_until_recovery() {
    assert_limit_survives(Failure::Killed).await;
}

#[tokio::test]
async fn frozen_redis_falls_back_to_shares_until_recovery() {
    assert_limit_survives(Failure::Frozen).await;
}

#[tokio::test]
async fn read_only_redis_falls_back_to_shares_until_recovery() {
    let replicate: [&[&str]; 2] = [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]];
    assert_limit_survives(Failure::Refuses(replicate)).await;
}

#[tokio::test]
async fn full_redis_falls_back_to_shares_until_recovery() {
    let limit: [&[&str]; 2] = [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]];
    assert_limit_survives(Failure::Refuses(limit)).await;
}

#[tokio::test]
async fn forbidden_scripts_fall_back_to_shares_until_allowed() {
    let permission: [&[&str]; 2] =
        [&["ACL", "SETUSER", "default", "-@scripting"], &["ACL", "SETUSER", "default", "+@scripting"]];
    assert_limit_survives(Failure::Refuses(permission)).await;
}

#[tokio::test]
async fn forbidden_pubsub_falls_back_to_shares_until_allowed() {
    let permission: [&[&str]; 2] =
        [&["ACL", "SETUSER", "default", "-@pubsub"], &["ACL", "SETUSER", "default", "+@pubsub"]];
    assert_limit_survives(Failure::Refuses(permission)).await;
}

#[tokio::test]
async fn redis_outage_keeps_responses_correct_until_recovery() {
    let mut redis = RedisServer::start();
    let harness = start_sharing(&Settings::default().redis(&redis.url())).await;
    harness.get(NOON).await.page();
    redis.until_chunks(6).await;
    redis.kill();
    for query in ["from=2026-02-24T00:00:00&to=2026-02-24T03:59:59", SETTLED_DAY, "from=2026-02-24&to=2026-02-24"] {
        let response = harness.get(query).await;
        assert!(response.status == 200, "{}", response.text());
        if query == SETTLED_DAY {
            response.assert_complete(&harness.settled_day(), "the settled day");
        }
    }
    redis.restart();
    // Windows that are fetched before the recovery is detected are not written; each iteration fetches a new one.
    let mut minutes = (0..1440).map(|minute| format!("2026-02-22T{:02}:{:02}", minute / 60, minute % 60));
    until_async("chunks in Redis again", async || {
        let minute = minutes.next().expect("Redis is never used again");
        harness.get(format!("from={minute}:00&to={minute}:59")).await.page();
        redis.chunk_count() > 0
    })
    .await;
    redis.freeze();
    let frozen = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    frozen.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    redis.resume();
}

#[tokio::test]
async fn readiness_redis_down_is_degraded() {
    let mut redis = RedisServer::start();
    let harness = start_sharing(&Settings::default().redis(&redis.url())).await;
    assert_eq!(harness.gateway.readiness().await, "ready");
    redis.kill();
    for hour in 0..8 {
        harness.get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:59:59")).await.page();
    }
    let ready = harness.gateway.get_admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (200, Some("degraded")), "{}", ready.text());
}
