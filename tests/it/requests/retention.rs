//! `accounts.retention`: what is older is neither served, kept nor fetched.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    DAY, OTHER_STREAM, Profile, SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, TestResponse, Timestamp,
    assert_items, at, exact_profile, exact_stream,
};

/// The earliest time that is kept for three days at the beginning of a test.
const LIMIT: &str = "2026-02-22T12:34:56Z";
/// A window that begins before [`LIMIT`].
const EARLY: &str = "from=2026-02-21&to=2026-02-23";

async fn start() -> TestHarness {
    TestHarness::start(exact_profile(240, 8), &Settings::default().account("retention = '3d'")).await
}

fn lenient(query: &str) -> TestRequest {
    TestRequest::get(query).header("prefer", "handling=lenient")
}

#[track_caller]
fn assert_refused(response: &TestResponse, day: &str, limit: &str) {
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    let detail = problem["detail"].as_str().unwrap();
    let names_both = detail.contains(&format!("{limit} now, or its day, {day}"));
    assert!(detail.starts_with("from: data is kept for 3d") && names_both, "{detail}");
    assert!(problem["errors"][0]["msg"].as_str().is_some(), "{problem}");
}

/// The items from the limit at the time of the clock on.
fn retained(harness: &TestHarness, end: Timestamp) -> Vec<Vec<u8>> {
    let since = (harness.clock.now() - DAY * 3).floor_second();
    harness.items(since, end)
}

#[tokio::test]
async fn window_before_the_retention_is_refused() {
    let harness = start().await;
    for query in [EARLY, "from=2026-02-20&to=2026-02-21", "from=2026-02-22T12:34:55&to=2026-02-23"] {
        let request = TestRequest::get(query);
        assert_refused(&harness.send(&request).await, "2026-02-22", "2026-02-22-12:34:56");
        assert_refused(&harness.send(&request.dry_run()).await, "2026-02-22", "2026-02-22-12:34:56");
    }
    assert_eq!(harness.calls(), 0);
    let end = at("2026-02-24");
    // Both spellings that the error names are valid.
    for query in ["from=2026-02-22T12:34:56&to=2026-02-23", "from=2026-02-22&to=2026-02-23"] {
        let response = harness.get(query).await;
        response.assert_complete(&retained(&harness, end), query);
        assert_eq!(response.header("preference-applied"), None);
    }
    let usage = harness.send(&TestRequest::path_only("/koregate/v1/usage")).await.json();
    assert_eq!(usage["accounts"][0]["requests"], json!(2), "only what was answered counts");
}

#[tokio::test]
async fn lenient_window_is_cut_and_says_so() {
    let harness = start().await;
    let dry_run = TestRequest::get(EARLY).header("prefer", "dry-run, handling=lenient");
    let cost = harness.send(&dry_run).await;
    assert_eq!(cost.header("preference-applied"), Some("dry-run, handling=lenient"));
    assert_eq!(cost.json()["missing"], json!([{"from": LIMIT, "to": "2026-02-24T00:00:00Z"}]));
    let response = harness.send(&lenient(EARLY)).await;
    response.assert_complete(&retained(&harness, at("2026-02-24")), EARLY);
    assert_eq!(response.header("preference-applied"), Some("handling=lenient"));
    let earliest = harness.control.calls().iter().filter_map(|call| call.query.from.clone()).min();
    assert_eq!(earliest.as_deref(), Some("2026-02-22-12:34:56"), "no call reaches further back");

    let calls = harness.calls();
    let nothing = harness.send(&lenient("from=2026-02-20&to=2026-02-21")).await;
    nothing.assert_complete(&[], "a window that lies before the limit");
    assert_eq!(nothing.header("preference-applied"), Some("handling=lenient"));
    let whole = harness.send(&lenient(SETTLED_DAY)).await;
    whole.assert_complete(&harness.settled_day(), "a window that need not be cut");
    assert_eq!(whole.header("preference-applied"), None);
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn old_data_is_swept_and_not_repeated() {
    let harness = start().await;
    let sweeper = harness.gateway.server.stack().handles.cache.retention.clone();
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    // Often enough to be repeated from the response cache.
    let page = format!("{SETTLED_DAY}&limit=5");
    for _ in 0..4 {
        assert_items(&harness.get(&page).await.page(), &harness.settled_day()[..5], &page);
    }
    assert!(harness.gateway.response_cache_bytes() > 0);
    let calls = harness.calls();
    assert_eq!(sweeper.sweep().await, 0, "nothing is too old yet");

    // The day becomes the one of the limit: it is answered from there on.
    harness.advance(DAY);
    let rest = retained(&harness, at("2026-02-24"));
    assert!(!rest.is_empty() && rest.len() < harness.settled_day().len());
    assert_items(&harness.get(&page).await.page(), &rest[..5], "the limit day, not from the response cache");
    harness.get(SETTLED_DAY).await.assert_complete(&rest, "the limit day");
    assert_refused(&harness.get("from=2026-02-23T00:00:00&to=2026-02-23").await, "2026-02-23", "2026-02-23-12:34:56");
    let before = harness.gateway.server.stack().handles.cache.memory.bytes();
    assert_eq!(sweeper.sweep().await, 12, "all chunks but the one that the limit lies in");
    assert!(harness.gateway.server.stack().handles.cache.memory.bytes() < before);
    for second in 1..4 {
        harness.advance(Duration::from_mins(10));
        let rest = retained(&harness, at("2026-02-24"));
        harness.get(SETTLED_DAY).await.assert_complete(&rest, &format!("the limit day, request {second}"));
    }
    assert_eq!(harness.calls(), calls, "what is left is a hit");

    harness.advance(DAY);
    assert_refused(&harness.get(SETTLED_DAY).await, "2026-02-24", "2026-02-24-13:04:56");
    assert_eq!(sweeper.sweep().await, 12);
    assert_eq!((sweeper.sweep().await, harness.gateway.server.stack().handles.cache.memory.bytes()), (0, 0));
}

#[tokio::test]
async fn retention_of_a_stream_overrides_its_account() {
    let streams = vec![exact_stream(STREAM, 240), exact_stream(OTHER_STREAM, 240)];
    let profile = Profile { streams, ..exact_profile(240, 8) };
    let settings = Settings::default()
        .account(&format!("retention = '3d'\nstream_settings = [{{ stream = '{OTHER_STREAM}', retention = '1d' }}]"));
    let harness = TestHarness::start(profile, &settings).await;
    let statuses = |from: &'static str| {
        let request = TestRequest::get(format!("from={from}&to=2026-02-24"));
        let both = [request.clone().stream(STREAM), request.stream(OTHER_STREAM)];
        let harness = &harness;
        async move { harness.gateway.send_all(&both).await.iter().map(|it| it.status.as_u16()).collect::<Vec<_>>() }
    };
    assert_eq!(statuses("2026-02-21").await, [400, 400]);
    assert_eq!(statuses("2026-02-22").await, [200, 400]);
    assert_eq!(statuses("2026-02-24").await, [200, 200]);
}
