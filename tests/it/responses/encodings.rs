//! The encodings of a response: JSON, NDJSON and gzip.

use crate::support::{SETTLED_DAY, TestHarness, TestRequest, assert_items, at, to_ndjson};

async fn start() -> TestHarness {
    TestHarness::start_exact(250, 4).await
}

#[tokio::test]
async fn json_ndjson_and_gzip_carry_same_items() {
    let harness = start().await;
    let expected = harness.settled_day();
    let json = harness.get(SETTLED_DAY).await;
    assert_items(&json.page(), &expected, "JSON");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.header("content-length"), Some(json.body.len().to_string().as_str()));
    assert_eq!(json.header("content-encoding"), None);
    let envelope = format!(r#"{{"numResults":{},"hasMore":false,"data":["#, expected.len());
    assert_eq!(json.text(), format!("{envelope}{}]}}", String::from_utf8(expected.join(&b","[..])).unwrap()));

    let lines = harness.send(&TestRequest::get(SETTLED_DAY).ndjson()).await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert!(expected.iter().any(|item| item.contains(&b'\n')), "some items have line breaks");
    assert!(lines.body == to_ndjson(&expected));
    let page = format!("{SETTLED_DAY}&offset=200&limit=20");
    let page = harness.send(&TestRequest::get(page).ndjson()).await;
    assert!(page.body == to_ndjson(&expected[200..220]));

    let gzip = TestRequest::get(SETTLED_DAY).header("accept-encoding", "br, gzip");
    let response = harness.send(&gzip).await;
    assert!(response.body.len() * 2 < json.body.len() && response.gunzip() == json.body);
    assert!(response.header("vary").is_some_and(|vary| vary.contains("accept-encoding")));
    let response = harness.send(&gzip.ndjson()).await;
    assert!(response.gunzip() == lines.body);
    let response = harness.send(&TestRequest::get(SETTLED_DAY).header("accept-encoding", "gzip;q=0")).await;
    assert_eq!(response.header("content-encoding"), None);
}

/// Tens of megabytes in one response.
#[tokio::test]
async fn window_without_limit_is_complete() {
    let harness = TestHarness::start_exact(1_700, 5).await;
    let query = "from=2026-02-21&to=2026-02-23";
    let expected = harness.items(at("2026-02-21"), at("2026-02-24"));
    assert_items(&harness.get(query).await.page(), &expected, "cold");
    assert_items(&harness.get(query).await.page(), &expected, "warm");
    let lines = harness.send(&TestRequest::get(query).ndjson().gzip()).await;
    assert!(lines.gunzip() == to_ndjson(&expected));
}
