//! HEAD: what GET would be answered with, without a call and without a body.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::support::{OTHER_STREAM, SETTLED_DAY, Settings, TestHarness, TestRequest, TestResponse, exact_profile};

const TODAY: &str = "from=2026-02-25&to=2026-02-25";
/// Repetitions after which the response cache has an answer.
const REPETITIONS: usize = 6;

fn head_of(request: &TestRequest) -> TestRequest {
    request.clone().method(Method::HEAD)
}

/// Status and header fields without those that differ each time, and without the one that frames a body.
fn comparable(response: &TestResponse) -> (StatusCode, Vec<(String, String)>) {
    let excluded = ["date", "x-request-id", "transfer-encoding"];
    let fields = response.headers.iter().filter(|(name, _)| !excluded.contains(&name.as_str()));
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    fields.sort();
    (response.status, fields)
}

#[tokio::test]
async fn head_of_cached_window_equals_get() {
    let harness = TestHarness::start_exact(250, 4).await;
    for query in [SETTLED_DAY, TODAY] {
        harness.get(query).await.page();
    }
    harness.control.reset_counts();
    let etag = harness.get(SETTLED_DAY).await.header("etag").unwrap().to_owned();
    let page = format!("{SETTLED_DAY}&limit=10&offset=20");
    for request in [
        TestRequest::get(SETTLED_DAY),
        TestRequest::get(TODAY),
        TestRequest::get(&page),
        TestRequest::get(&page).ndjson(),
        TestRequest::get(&page).gzip(),
        TestRequest::get(&page).body(r#"{"channels":["chat"]}"#),
        TestRequest::get(SETTLED_DAY).header("if-none-match", &etag),
        TestRequest::get("from=2027-01-01&to=2027-01-01"),
    ] {
        for _ in 0..2 {
            let (head, get) = (harness.send(&head_of(&request)).await, harness.send(&request).await);
            assert!(head.body.is_empty() && head.header("etag").is_some(), "{request:?}");
            assert_eq!(comparable(&head), comparable(&get), "{request:?}");
            if get.status == StatusCode::OK {
                assert_eq!(head.header("accept-ranges"), Some("none"));
            }
            // Then the response cache answers both.
            for _ in 0..REPETITIONS {
                harness.send(&request).await;
            }
        }
    }
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn head_of_uncached_window_costs_no_call() {
    let harness = TestHarness::start_exact(250, 4).await;
    let check = async |query: &str, outcome: &str| {
        let (request, calls) = (TestRequest::get(query), harness.calls());
        let head = harness.send(&head_of(&request)).await;
        assert_eq!((head.status, head.cache_outcome()), (StatusCode::OK, outcome), "{query}");
        assert_eq!((head.header("content-length"), head.header("etag")), (None, None), "{query}");
        assert_eq!((head.body.len(), harness.calls()), (0, calls), "{query}");
        assert_eq!(harness.send(&request).await.cache_outcome(), outcome, "{query}: what GET does");
    };
    check(SETTLED_DAY, "fwd=miss").await;
    check("from=2026-02-22&to=2026-02-23", "fwd=partial").await;
    check(TODAY, "fwd=miss").await;
    harness.advance(Duration::from_mins(1));
    check(TODAY, "fwd=stale").await;
}

#[tokio::test]
async fn head_is_refused_as_get() {
    let settings = Settings::default().account("streams = ['st-test']");
    let harness = TestHarness::start(exact_profile(50, 4), &settings).await;
    for request in [
        TestRequest::get("from=never&to=2026-02-23"),
        TestRequest::get(SETTLED_DAY).stream(OTHER_STREAM),
        TestRequest::path_only("/nothing"),
        TestRequest::path_only("/koregate/v1/cost"),
    ] {
        let (head, get) = (harness.send(&head_of(&request)).await, harness.send(&request).await);
        assert!(head.status.is_client_error() && head.body.is_empty(), "{request:?}");
        assert_eq!(comparable(&head), comparable(&get), "{request:?}");
    }
    for path in ["/", "/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/callers"] {
        let request = TestRequest::path_only(path);
        let head = harness.gateway.send_admin(&head_of(&request)).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}");
        let put = harness.gateway.send_admin(&request.method(Method::PUT)).await;
        assert_eq!((put.status.as_u16(), put.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    assert_eq!(harness.calls(), 0);
}
