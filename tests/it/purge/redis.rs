//! Purges of the chunks in Redis.

use serde_json::json;

use super::{CHUNKS, encrypted, listeners, purge, save, start, until_current, until_deleted, write_back};
use crate::support::{ACCOUNT, RedisCluster, RedisServer, SETTLED_DAY, Settings, TestRequest, at, until};

#[tokio::test]
async fn forbidden_scan_makes_purge_incomplete() {
    let redis = RedisServer::start();
    // All permissions that the documentation names, except SCAN.
    let may = "+get +set +hgetall +hkeys +hset +hsetnx +hdel +expire +exists +unlink +publish +subscribe +ping";
    let user = ["ACL", "SETUSER", "narrow", "on", ">pw", "~koregate:*", "&koregate:*", "-@all"];
    redis.command(&user.into_iter().chain(may.split(' ')).collect::<Vec<_>>());
    let harness = start(&Settings::default().redis(&redis.url_for("narrow:pw"))).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    harness.change_settled_day();
    let report = purge(&harness.gateway, "").await;
    assert_eq!((&report["complete"], &report["redis_chunks"]), (&false.into(), &0.into()));
    assert!(report["left"][0].as_str().unwrap().contains("NOPERM"), "{report}");
    let fresh = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    fresh.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    redis.command(&["ACL", "SETUSER", "narrow", "+scan"]);
    until_deleted(&redis).await;
}

#[tokio::test]
async fn purge_survives_emptied_redis() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.gateway.until_leader().await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    save(&redis);
    harness.change_settled_day();
    let first = purge(&harness.gateway, "").await;
    let empty = "for _, key in ipairs(redis.call('keys', '*')) do \
                 if key:sub(1, 6) ~= 'saved:' then redis.call('del', key) end end return 0";
    redis.command(&["EVAL", empty, "0"]);
    write_back(&redis);
    until_current(&harness.add_replica(&Settings::default().redis(&redis.url())).await, &harness).await;
    let field = first["epoch"].to_string();
    let is_recorded = || redis.query(&["HKEYS", &format!("koregate:p1:{{{ACCOUNT}}}:purges")]) == field;
    until("the purge to be recorded again", is_recorded).await;
    assert!(purge(&harness.gateway, "").await["epoch"].as_u64() > first["epoch"].as_u64());
}

#[tokio::test]
async fn redis_down_makes_purge_incomplete_until_recovery() {
    let mut redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    other.get(SETTLED_DAY).await.page();
    harness.change_settled_day();
    redis.kill();
    for _ in 0..3 {
        let response = harness.gateway.purge("").await;
        assert_eq!(response.status, 503, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        let report = response.json();
        assert_eq!(
            (&report["status"], &report["complete"], &report["account"]),
            (&503.into(), &false.into(), &ACCOUNT.into())
        );
        assert!(report["detail"].as_str().unwrap().contains("memory of this replica"), "{report}");
        assert!(report["replicas"].is_null() && report["redis_chunks"].is_null(), "{report}");
    }
    harness.gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    redis.restart();
    until_current(&other, &harness).await;
    let purges = format!("koregate:p1:{{{ACCOUNT}}}:purges");
    until("the purge in Redis", || redis.query(&["HLEN", &purges]) == "1").await;
}

#[tokio::test]
async fn purge_deletes_from_all_cluster_nodes() {
    let cluster = RedisCluster::start();
    let settings = Settings::default().redis(&cluster.url());
    let harness = start(&settings).await;
    let other = harness.add_replica(&settings).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    let count = || cluster.masters.iter().map(cells).collect::<Vec<_>>();
    until("all cells are in the cluster", || count().iter().sum::<usize>() == CHUNKS).await;
    other.get(SETTLED_DAY).await.page();
    assert!(count().iter().all(|count| *count > 0), "{:?}", count());
    harness.change_settled_day();
    until("both replicas to listen", || cluster.masters.iter().map(listeners).sum::<usize>() == 2).await;
    let report = purge(&harness.gateway, "").await;
    assert_eq!(
        (&report["redis_chunks"], &report["replicas"], &report["complete"]),
        (&CHUNKS.into(), &json!({"confirmed": 1, "expected": 1}), &true.into())
    );
    assert_eq!(count(), [0, 0, 0]);
    for gateway in [&harness.gateway, &other] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
}

/// The number of cells in one node of a Cluster; each has one chunk.
fn cells(node: &RedisServer) -> usize {
    let keys = node.query(&["KEYS", "koregate:c4:*"]);
    keys.split_whitespace().count()
}

#[tokio::test]
async fn partial_purge_of_cell_leaves_other_chunks() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let half = |minutes: &str| TestRequest::get(format!("from=2026-02-23T09:{minutes}"));
    let first = half("00:00&to=2026-02-23T09:29:59");
    let second = half("30:00&to=2026-02-23T09:59:59");
    harness.send(&first).await.page();
    harness.send(&second).await.page();
    redis.until_chunks(2).await;
    let cell = |format: &str, stream: &str, more: &str| {
        format!(
            "koregate:{format}:{ACCOUNT}:segmentStartTime:inclusive:{stream}:plain:00000000000000000000000000000000{more}"
        )
    };
    let (start, nanos) = (at("2026-02-23T09:00:00Z").as_seconds(), at("2026-02-23T09:00:00Z").as_nanos());
    let old = cell("c1", "st%2Dtest", &format!(":{start}:3600"));
    let others = [
        cell("c4", "st%2Dother", &format!(":{start}:3600")),
        cell("c4", "st%2Dtest", &format!(":{}:3600", start + 3600)),
        cell("c4", "passing", ""),
        cell("c4", "st%2Dtest", &format!(":{start}:3600")).replace(ACCOUNT, "another"),
    ];
    let field = format!("{nanos}_{}_{nanos}", nanos + 1);
    for key in others.iter().chain([&old]) {
        redis.command(&["HSET", key, &field, "x"]);
    }
    redis.command(&["SET", &format!("koregate:c4:{ACCOUNT}:segmentStartTime:inclusive:wrong-not"), "1"]);
    let report = purge(&harness.gateway, "stream=st-test&from=2026-02-23T09:00:00&to=2026-02-23T09:10:00").await;
    assert_eq!(
        (&report["memory_chunks"], &report["redis_chunks"]),
        (&1.into(), &2.into()),
        "one of them in an older format"
    );
    assert_eq!(redis.query(&["EXISTS", &old]), "0");
    for key in &others {
        assert_eq!(redis.query(&["EXISTS", key]), "1", "{key}");
    }
    let calls = harness.calls();
    let gateway = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    gateway.send(&second).await.page();
    assert_eq!(harness.calls(), calls);
    gateway.send(&first).await.page();
    assert_eq!(harness.calls(), calls + 1);
}

#[tokio::test]
async fn purge_of_encrypted_values_needs_no_key() {
    let redis = RedisServer::start();
    let (_file, encrypted) = encrypted(&redis);
    let harness = start(&encrypted).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    harness.change_settled_day();
    // A replica without the key deletes them all the same.
    let keyless = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    assert_eq!(purge(&keyless, "").await["redis_chunks"], CHUNKS);
    assert_eq!(redis.chunk_count(), 0);
    for gateway in [&harness.gateway, &harness.add_replica(&encrypted).await] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
    }
}
