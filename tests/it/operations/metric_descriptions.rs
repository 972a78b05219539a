//! Descriptions of metrics, and metrics of Redis, as Prometheus scrapes them.

use std::collections::BTreeSet;

use crate::support::{Metrics, RedisServer, SETTLED_DAY, Settings, TestHarness, exact_profile, free_port, until_async};

const WRITES: &str = "koregate_redis_writes_total";

/// The metrics after a window was fetched and the write of its chunks to `redis_url` was counted.
async fn metrics_after_a_write(redis_url: &str) -> Metrics {
    let harness = TestHarness::start(exact_profile(250, 4), &Settings::default().redis(redis_url)).await;
    let response = harness.get(SETTLED_DAY).await;
    assert_eq!(response.status, 200, "{}", response.text());
    until_async("a write to Redis is counted", async || harness.gateway.metrics().await.count(WRITES, &[]) > 0).await;
    harness.gateway.metrics().await
}

#[tokio::test]
async fn each_metric_with_redis_has_a_description() {
    let redis = RedisServer::start();
    let metrics = metrics_after_a_write(&redis.url()).await;
    assert_eq!(metrics.count(WRITES, &["result=\"ok\""]), metrics.count(WRITES, &[]));
    let names = |prefix: &str| -> BTreeSet<&str> {
        metrics.text().lines().filter_map(|line| line.strip_prefix(prefix)?.split(' ').next()).collect()
    };
    assert!(names("# TYPE ").contains(WRITES));
    assert_eq!(names("# TYPE "), names("# HELP "));
}

#[tokio::test]
async fn writes_to_an_unreachable_redis_count_as_failed() {
    let metrics = metrics_after_a_write(&format!("redis://127.0.0.1:{}", free_port())).await;
    assert!(metrics.count(WRITES, &["result=\"failed\""]) > 0, "{}", metrics.text());
    assert_eq!(metrics.count(WRITES, &["result=\"ok\""]), 0, "{}", metrics.text());
}
