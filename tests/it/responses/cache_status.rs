//! `Cache-Status`, `Age` and `X-Request-Id`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{SETTLED_DAY, TestHarness, TestRequest, TestResponse};

async fn start() -> TestHarness {
    TestHarness::start_exact(250, 4).await
}

#[tokio::test]
async fn cache_status_and_age_describe_response() {
    let harness = start().await;
    let headers =
        |response: &TestResponse| (response.cache_status().to_owned(), response.header("age").map(str::to_owned));
    let day = harness.get(SETTLED_DAY).await;
    assert_eq!(
        headers(&day),
        ("koregate; fwd=miss; fwd-status=200; ttl=31536000; detail=\"chunks=24 hits=0 calls=3\"".to_owned(), None)
    );
    harness.advance(Duration::from_secs(100));
    let day = harness.get(SETTLED_DAY).await;
    assert_eq!(
        headers(&day),
        ("koregate; hit; ttl=31536000; detail=\"chunks=24 hits=24 calls=0\"".to_owned(), Some("100".to_owned()))
    );
    let days = harness.get("from=2026-02-22&to=2026-02-23").await;
    let expected = "koregate; fwd=partial; fwd-status=200; ttl=31536000; detail=\"chunks=48 hits=24 calls=3\"";
    assert_eq!(headers(&days), (expected.to_owned(), Some("100".to_owned())));
    let not_modified = harness.send(&TestRequest::get(SETTLED_DAY).header("if-none-match", "*")).await;
    assert_eq!(headers(&not_modified).1.as_deref(), Some("100"));

    let hour = "from=2026-02-25T11:30:00&to=2026-02-25T12:29:59";
    let ttl = |response: &TestResponse| {
        let (_, ttl) = response.cache_status().split_once("; ttl=").unwrap();
        ttl.split(';').next().unwrap().parse::<i64>().unwrap()
    };
    let first = harness.get(hour).await;
    // The youngest tier allows an entry of 30 seconds.
    assert_eq!((first.cache_outcome(), ttl(&first)), ("fwd=miss", 30));
    harness.advance(Duration::from_secs(10));
    let later = harness.get(hour).await;
    assert_eq!((headers(&later).1.as_deref(), ttl(&later)), (Some("10"), 20));
    harness.advance(Duration::from_secs(90));
    assert_eq!(harness.get(hour).await.cache_outcome(), "fwd=stale");
    // Shared caches must not store personal data.
    for response in [day, not_modified] {
        assert_eq!(response.header("cache-control"), Some("private, no-cache"));
        let vary = "accept, accept-encoding, accountid, authorization, prefer, x-api-key";
        assert_eq!(response.header("vary"), Some(vary));
    }
}

#[tokio::test]
async fn concurrent_requests_report_collapsed_calls() {
    let harness = start().await;
    let responses = harness.gateway.send_all(&[TestRequest::get(SETTLED_DAY), TestRequest::get(SETTLED_DAY)]).await;
    let mut statuses: Vec<&str> = responses.iter().map(TestResponse::cache_status).collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses[0],
        "koregate; fwd=miss; collapsed; fwd-status=200; ttl=31536000; detail=\"chunks=24 hits=0 calls=0\""
    );
    assert_eq!(statuses[1], "koregate; fwd=miss; fwd-status=200; ttl=31536000; detail=\"chunks=24 hits=0 calls=3\"");
    assert_eq!(harness.calls(), 3);
}

#[tokio::test]
async fn request_id_is_echoed_or_generated() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY).header("x-request-id", "my-name_1.2");
    assert_eq!(harness.send(&request).await.header("x-request-id"), Some("my-name_1.2"));
    let refused = harness.send(&request.and("limit=x")).await;
    assert_eq!(refused.header("x-request-id"), Some("my-name_1.2"));
    assert_eq!(refused.json()["request_id"], "my-name_1.2");
    let generated: BTreeSet<String> = [
        harness.get(SETTLED_DAY).await,
        harness.get(SETTLED_DAY).await,
        harness.send(&TestRequest::get(SETTLED_DAY).path("/")).await,
    ]
    .iter()
    .map(|response| response.header("x-request-id").unwrap().to_owned())
    .collect();
    assert_eq!(generated.len(), 3);
}
