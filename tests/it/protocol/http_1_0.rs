//! HTTP/1.0 has no chunked coding, so a response without a length would end with its connection, for whatever reason:
//! each response has a length.

use std::ops::RangeInclusive;

use http::header::CONTENT_LENGTH;

use crate::support::{
    Settings, TestHarness, TestRequest, assert_items, at, exact_profile, read_to_end, split_head, to_ndjson,
};

/// Four settled days with 2000 items, which are streamed over HTTP/1.1.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
/// Twenty pages. They come in one run or two, depending on how fast the pages come, and the last page of a run need not be
/// full.
const CALLS: RangeInclusive<u64> = 20..=21;

async fn start() -> TestHarness {
    // Without parallel runs, which would need more calls.
    let settings = Settings::one_second_limit().section("upstream", "max_concurrency = 1");
    TestHarness::start(exact_profile(500, 6), &settings).await
}

/// The body of a 200, which must have a length and no coding.
async fn receive_body(harness: &TestHarness, request: &TestRequest) -> Vec<u8> {
    let addr = harness.gateway.addr();
    let (received, error) = read_to_end(addr, &request.to_bytes_in("HTTP/1.0", addr)).await;
    assert!(error.is_none(), "{error:?}");
    let (head, body) = split_head(&received);
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-encoding"), "{head}");
    assert!(head.contains(&format!("{CONTENT_LENGTH}: {}\r\n", body.len())), "{head}");
    body.to_vec()
}

#[tokio::test]
async fn http10_response_has_length_and_no_coding() {
    let harness = start().await;
    let json = TestRequest::get(LONG).gzip();
    let lines = json.clone().ndjson();
    let expected = harness.items(at("2026-02-20"), at("2026-02-24"));
    // A cold window, which HTTP/1.1 would stream, and then a cached one.
    for _ in 0..2 {
        assert!(receive_body(&harness, &lines).await == to_ndjson(&expected));
        let page = serde_json::from_slice(&receive_body(&harness, &json).await).unwrap();
        assert_items(&page, &expected, LONG);
    }
    assert!(CALLS.contains(&harness.calls()), "{}", harness.calls());
}

#[tokio::test]
async fn http10_response_is_cached_apart_from_http11() {
    let harness = start().await;
    let request = TestRequest::get(format!("{LONG}&limit=50")).gzip();
    for _ in 0..20 {
        assert_eq!(harness.send(&request).await.header("content-encoding"), Some("gzip"));
        assert!(receive_body(&harness, &request).await.starts_with(b"{\"numResults\":50,"));
    }
}

#[tokio::test]
async fn http10_problem_has_length() {
    let harness = start().await;
    let request = TestRequest::get("from=never").gzip();
    let addr = harness.gateway.addr();
    let (received, error) = read_to_end(addr, &request.to_bytes_in("HTTP/1.0", addr)).await;
    let (head, body) = split_head(&received);
    assert!(error.is_none() && head.starts_with("http/1.0 400"), "{head}");
    assert!(head.contains(&format!("{CONTENT_LENGTH}: {}\r\n", body.len())), "{head}");
}
