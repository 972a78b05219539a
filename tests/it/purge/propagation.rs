//! Purges that reach other replicas, by message or through Redis, during fetches too.

use serde_json::{Value, json};

use super::{
    CHUNKS, completed, purge, save, start, until_current, until_deleted, until_listening, until_replaced, write_back,
};
use crate::support::{ACCOUNT, GatewayClient, RedisServer, SETTLED_DAY, Settings, TestHarness, until};

#[tokio::test]
async fn purge_reaches_all_replicas() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let gateways = [
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
    ];
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    for gateway in &gateways {
        gateway.get(SETTLED_DAY).await.page();
    }
    harness.change_settled_day();
    until_listening(&redis, 3).await;
    let report = purge(&harness.gateway, "from=2026-02-23T00:00:00&to=2026-02-23T15:59:59").await;
    assert_eq!(
        (&report["memory_chunks"], &report["redis_chunks"], &report["replicas"], &report["complete"]),
        (&16.into(), &16.into(), &json!({"confirmed": 2, "expected": 2}), &true.into())
    );
    assert_eq!(redis.chunk_count(), 8);
    for gateway in gateways.iter().chain([&harness.gateway]) {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
    redis.until_chunks(CHUNKS).await;
    let calls = harness.calls();
    harness
        .add_replica(&Settings::default().redis(&redis.url()))
        .await
        .get(SETTLED_DAY)
        .await
        .assert_complete(&harness.settled_day(), "after the purge");
    assert_eq!(harness.calls(), calls, "the new chunks are shared");
}

#[tokio::test]
async fn purge_during_fetch_of_other_replica_discards_it() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default()).await;
    let proxy = harness.start_proxy().await;
    let busy = harness.add_replica_behind(&proxy, &Settings::default().redis(&redis.url())).await;
    busy.until_leader().await;
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    until_listening(&redis, 2).await;
    proxy.hold_responses();
    let old = harness.settled_day();
    let requesting = async { busy.get(SETTLED_DAY).await.assert_complete(&old, "before the purge") };
    let purging = async {
        harness.until_calls(1).await;
        harness.change_settled_day();
        let report = purge(&other, "").await;
        assert_eq!((&report["replicas"]["confirmed"], &report["complete"]), (&1.into(), &true.into()));
        // Later requests do not wait for the discarded fetch.
        proxy.release();
    };
    tokio::join!(requesting, purging);
    assert_ne!(old, harness.settled_day());
    for gateway in [&busy, &other, &harness.add_replica(&Settings::default().redis(&redis.url())).await] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
}

#[tokio::test]
async fn purge_during_forwarded_fetch_discards_it() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default()).await;
    let proxy = harness.start_proxy().await;
    let leader = harness.add_replica_behind(&proxy, &Settings::default().redis(&redis.url())).await;
    leader.until_leader().await;
    let [follower, third] = [
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
    ];
    until_listening(&redis, 3).await;
    proxy.hold_responses();
    let old = harness.settled_day();
    let before = async { follower.get(SETTLED_DAY).await.assert_complete(&old, "before the purge") };
    let purging = async {
        harness.until_calls(1).await;
        harness.change_settled_day();
        let report = purge(&third, "").await;
        assert_eq!((&report["replicas"]["confirmed"], &report["complete"]), (&2.into(), &true.into()));
        let after =
            async { follower.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge") };
        let release = async {
            until("a second fetch while the first is pending", || harness.calls() == 2).await;
            proxy.release();
        };
        tokio::join!(after, release);
    };
    tokio::join!(before, purging);
    assert_ne!(old, harness.settled_day());
    until_replaced(&redis).await;
    let calls = harness.calls();
    for gateway in [&follower, &leader, &third, &harness.add_replica(&Settings::default().redis(&redis.url())).await] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
    assert_eq!(harness.calls(), calls, "the new chunks are kept");
}

/// A replica whose messages reach no other replica, so that purges must be learned from Redis.
async fn start_mute(harness: &TestHarness, redis: &RedisServer) -> GatewayClient {
    redis.command(&["ACL", "SETUSER", "mute", "on", ">pw", "~*", "+@all", "resetchannels"]);
    harness.add_replica(&Settings::default().redis(&redis.url_for("mute:pw"))).await
}

#[tokio::test]
async fn missed_purge_message_is_learned_from_redis() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.gateway.until_leader().await;
    let [other, empty] = [
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
    ];
    let mute = start_mute(&harness, &redis).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    other.get(SETTLED_DAY).await.page();
    save(&redis);
    harness.change_settled_day();
    let report = purge(&mute, "").await;
    assert_eq!((&report["replicas"]["expected"], &report["redis_chunks"]), (&Value::Null, &CHUNKS.into()));
    write_back(&redis);
    // The new replica learns of the purge as it reads, and so does the leader, which has old chunks in memory.
    empty.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    harness.gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    until_current(&other, &harness).await;
    until_deleted(&redis).await;
}

#[tokio::test]
async fn missed_purge_message_prevents_writing_back() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default()).await;
    let proxy = harness.start_proxy().await;
    let busy = harness.add_replica_behind(&proxy, &Settings::default().redis(&redis.url())).await;
    busy.until_leader().await;
    let mute = start_mute(&harness, &redis).await;
    proxy.hold_responses();
    let old = harness.settled_day();
    let requesting = async { busy.get(SETTLED_DAY).await.assert_complete(&old, "before the purge") };
    let purging = async {
        harness.until_calls(1).await;
        harness.change_settled_day();
        purge(&mute, "").await;
        proxy.release();
    };
    tokio::join!(requesting, purging);
    let fresh = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    fresh.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    until_current(&busy, &harness).await;
    until_replaced(&redis).await;
}

#[tokio::test]
async fn concurrent_purges_both_apply() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    other.get(SETTLED_DAY).await.page();
    harness.change_settled_day();
    // The clock stands still, so both begin with the same epoch.
    let (one, two) = tokio::join!(
        harness.gateway.purge("from=2026-02-23T00:00:00&to=2026-02-23T11:59:59"),
        other.purge("from=2026-02-23T12:00:00&to=2026-02-23T23:59:59")
    );
    let (one, two) = (completed(&one), completed(&two));
    assert_ne!(one["epoch"], two["epoch"]);
    let left = redis.query(&["HLEN", &format!("koregate:p1:{{{ACCOUNT}}}:purges")]);
    assert_eq!((&*left, redis.chunk_count()), ("2", 0));
    for gateway in [&harness.gateway, &other, &harness.add_replica(&Settings::default().redis(&redis.url())).await] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
}
