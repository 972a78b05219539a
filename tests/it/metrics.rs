//! The metrics as Prometheus scrapes them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Ask, Door, RedisServer, Rig, Settings, exact_profile, free_port};

const DAY: &str = "from=2026-02-23&to=2026-02-23";

/// Scrapes until `is_there` of the text, and returns that text.
async fn scrape_until(door: &Door, what: &str, is_there: impl Fn(&str) -> bool) -> String {
    let scraping = async {
        loop {
            let text = door.admin("/metrics").await.text().to_owned();
            if is_there(&text) {
                return text;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), scraping).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

fn value(text: &str, metric: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn each_metric_with_redis_has_a_help_text() {
    let redis = RedisServer::start();
    let rig = Rig::start(exact_profile(250, 4), &Settings::default().redis(&redis.url())).await;
    assert_eq!(rig.get(DAY).await.status, 200);
    let written = |text: &str| value(text, "koregate_redis_writes_total{result=\"ok\"}").is_some();
    let text = scrape_until(&rig.door, "chunks to be written to Redis", written).await;
    let names = |prefix: &str| -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix(prefix)?.split(' ').next()).collect()
    };
    assert!(names("# TYPE ").len() > 10, "{text}");
    assert_eq!(names("# TYPE "), names("# HELP "));
}

#[tokio::test]
async fn writes_to_an_unreachable_redis_count_as_failed() {
    let settings = Settings::default().redis(&format!("redis://127.0.0.1:{}", free_port()));
    let rig = Rig::start(exact_profile(250, 4), &settings).await;
    let answer = rig.ask(&Ask::get(DAY)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let counted = |text: &str| text.lines().any(|line| line.starts_with("koregate_redis_writes_total"));
    let text = scrape_until(&rig.door, "a write to be counted", counted).await;
    assert!(value(&text, "koregate_redis_writes_total{result=\"failed\"}") > Some(0), "{text}");
    assert_eq!(value(&text, "koregate_redis_writes_total{result=\"ok\"}"), None, "{text}");
}
