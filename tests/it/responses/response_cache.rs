//! The cache of whole responses: a frequent request is answered from it with the same bytes as from chunks.

use std::time::Duration;

use http::StatusCode;

use crate::support::{
    ACCOUNT, GatewayClient, RedisServer, SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, TestResponse,
    caller_table, exact_profile,
};

/// Repetitions after which a response is cached, and one more that is served from the cache.
const REPETITIONS: usize = 6;

async fn start(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(120, 4), settings).await
}

/// Status, headers and body without the headers that differ each time and those that frame the body.
fn comparable(response: &TestResponse) -> (StatusCode, Vec<(String, String)>, &[u8]) {
    let excluded = ["date", "x-request-id", "content-length", "transfer-encoding", "ratelimit"];
    let mut headers: Vec<(String, String)> = response
        .headers
        .iter()
        .filter(|(name, _)| !excluded.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (response.status, headers, &response.body)
}

/// Repeats a request until its response is cached; returns the last response.
async fn send_repeatedly(gateway: &GatewayClient, request: &TestRequest) -> TestResponse {
    let mut response = gateway.send(request).await;
    for _ in 0..REPETITIONS {
        response = gateway.send(request).await;
    }
    response
}

#[tokio::test]
async fn cached_response_in_each_format_equals_uncached_one() {
    let harness = start(&Settings::default()).await;
    harness.get(SETTLED_DAY).await.page();
    let etag = harness.get(SETTLED_DAY).await.header("etag").unwrap().to_owned();
    let page = format!("{SETTLED_DAY}&offset=90&limit=17");
    for request in [
        TestRequest::get(SETTLED_DAY),
        TestRequest::get(&page),
        TestRequest::get(&page).gzip(),
        TestRequest::get(&page).ndjson(),
        TestRequest::get(&page).ndjson().gzip(),
        TestRequest::get(SETTLED_DAY).header("if-none-match", &etag),
        TestRequest::get("from=2026-02-23T03:00:00&to=2026-02-23T03:00:00"),
    ] {
        let (before, first) = (harness.gateway.response_cache_bytes(), harness.send(&request).await);
        let last = send_repeatedly(&harness.gateway, &request).await;
        assert!(harness.gateway.response_cache_bytes() > before, "{request:?} is not cached");
        assert_eq!(comparable(&first), comparable(&last), "{request:?}");
        last.assert_hit();
        assert_ne!(first.header("x-request-id"), last.header("x-request-id"));
    }
    assert_eq!(harness.calls(), 2);
}

#[tokio::test]
async fn cached_response_age_advances_with_clock() {
    let harness = start(&Settings::default()).await;
    let first = send_repeatedly(&harness.gateway, &TestRequest::get(SETTLED_DAY)).await;
    assert!(harness.gateway.response_cache_bytes() > 0);
    harness.advance(Duration::from_secs(100));
    let last = harness.get(SETTLED_DAY).await;
    assert_eq!((first.header("age"), last.header("age")), (Some("0"), Some("100")));
}

#[tokio::test]
async fn cached_response_is_counted_in_usage_and_metrics() {
    let harness = start(&Settings::default()).await;
    let requests = REPETITIONS as u64 + 1;
    send_repeatedly(&harness.gateway, &TestRequest::get(SETTLED_DAY)).await;
    assert!(harness.gateway.response_cache_bytes() > 0);
    let usage = &harness.gateway.get_admin("/api/v1/callers").await.json()["callers"][0]["accounts"][0];
    let counted = |pointer: &str| usage.pointer(pointer).and_then(serde_json::Value::as_u64);
    // The first request took two calls, and each of the others would have taken as many.
    let saved = 2 * (requests - 1);
    assert_eq!((counted("/requests"), counted("/items")), (Some(requests), Some(120 * requests)));
    assert_eq!((counted("/calls/spent"), counted("/calls/saved")), (Some(2), Some(saved)));
    let labels = [
        format!("account=\"{ACCOUNT}\""),
        format!("stream=\"{STREAM}\""),
        "caller=\"-\"".to_owned(),
        "outcome=\"hit\"".to_owned(),
    ];
    let hits = harness.gateway.metrics().await.count("koregate_requests_total", &labels.each_ref().map(String::as_str));
    assert_eq!(hits, requests - 1);
}

#[tokio::test]
async fn cached_response_forbidden_caller_is_refused() {
    let callers = [
        caller_table("bi", "key-of-bi", "requests_per_minute = 30"),
        caller_table("qa", "key-of-qa", "streams = ['st-other']"),
        caller_table("slow", "key-of-slow", "requests_per_minute = 1"),
    ];
    let harness = start(&Settings::default().tables(&callers.concat())).await;
    let by = |key: &str| TestRequest::get(SETTLED_DAY).key(key);
    send_repeatedly(&harness.gateway, &by("key-of-bi")).await.page();
    assert!(harness.gateway.response_cache_bytes() > 0);
    assert_eq!(harness.send(&by("key-of-qa")).await.status, 403);
    assert_eq!(harness.send(&by("key-of-nobody")).await.status, 401);
    assert_eq!(harness.send(&by("key-of-bi").header("accountId", "another")).await.status, 403);
    // A caller over its limit is refused although the response is cached.
    assert_eq!(harness.send(&by("key-of-slow")).await.status, 200);
    assert_eq!(harness.send(&by("key-of-slow")).await.status, 429);
    // The field of the cached response is its own. One more request is allowed only after two seconds.
    let left = |response: &TestResponse| response.header("ratelimit").unwrap().to_owned();
    assert_ne!(left(&harness.send(&by("key-of-bi")).await), left(&harness.send(&by("key-of-bi")).await));
}

#[tokio::test]
async fn request_with_body_or_open_window_is_not_cached() {
    let harness = start(&Settings::default()).await;
    send_repeatedly(&harness.gateway, &TestRequest::post(SETTLED_DAY, r#"{"agentId": ["a"]}"#)).await;
    send_repeatedly(&harness.gateway, &TestRequest::get("from=2026-02-25&to=2026-02-25")).await;
    send_repeatedly(&harness.gateway, &TestRequest::get(SETTLED_DAY).dry_run()).await;
    assert_eq!(harness.gateway.response_cache_bytes(), 0);
}

#[tokio::test]
async fn cached_response_purged_window_is_dropped_on_all_replicas() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = start(&settings).await;
    let other = harness.add_replica(&settings).await;
    for gateway in [&harness.gateway, &other] {
        send_repeatedly(gateway, &TestRequest::get(SETTLED_DAY)).await.page();
        assert!(gateway.response_cache_bytes() > 0);
    }
    harness.change_settled_day();
    assert_eq!(harness.gateway.purge("from=2026-02-23T05:00:00&to=2026-02-23T20:00:00").await.status, 200);
    for (name, gateway) in [("the purging replica", &harness.gateway), ("the notified replica", &other)] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), name);
    }
}

#[tokio::test]
async fn response_cache_size_stays_within_its_share() {
    const CAPACITY: u64 = (2 << 20) / 16;
    let harness = start(&Settings::default().section("cache", "memory = '2MiB'")).await;
    let mut most = 0;
    for offset in 0..40 {
        send_repeatedly(&harness.gateway, &TestRequest::get(format!("{SETTLED_DAY}&offset={offset}&limit=3")))
            .await
            .page();
        most = most.max(harness.gateway.response_cache_bytes());
    }
    assert!((CAPACITY / 2..=CAPACITY).contains(&most), "{most} of {CAPACITY}");
}
