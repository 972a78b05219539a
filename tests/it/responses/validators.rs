//! `ETag` and `If-None-Match`.

use std::collections::BTreeSet;

use http::StatusCode;

use crate::support::{SETTLED_DAY, Settings, TestHarness, TestRequest};

const TODAY: &str = "from=2026-02-25&to=2026-02-25";

async fn start() -> TestHarness {
    TestHarness::start_exact(250, 4).await
}

#[tokio::test]
async fn settled_window_etag_yields_not_modified() {
    let harness = start().await;
    let first = harness.get(SETTLED_DAY).await;
    let etag = first.header("etag").expect("a settled window").to_owned();
    assert!(etag.starts_with('"'), "a strong validator: {etag}");
    for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let response = harness.send(&TestRequest::get(SETTLED_DAY).header("if-none-match", &known)).await;
        assert_eq!(response.status, StatusCode::NOT_MODIFIED, "{known}");
        assert!(response.body.is_empty());
        assert_eq!(response.header("etag"), Some(etag.as_str()));
    }
    assert_eq!(
        harness.send(&TestRequest::get(SETTLED_DAY).header("if-none-match", "\"other\"")).await.body,
        first.body
    );
    // A replica with chunks of another size sends the same validator for the same bytes.
    let other = harness.add_replica(&Settings::default().section("window", "chunk = '15m'")).await;
    other.get("from=2026-02-23T03:00:01&to=2026-02-23T10:59:59").await.page();
    assert_eq!(other.get(SETTLED_DAY).await.header("etag"), Some(etag.as_str()));

    // Each representation, page and window has a validator of its own.
    let mut etags = BTreeSet::from([etag]);
    for request in [
        TestRequest::get(SETTLED_DAY).gzip(),
        TestRequest::get(SETTLED_DAY).ndjson(),
        TestRequest::get(SETTLED_DAY).ndjson().gzip(),
        TestRequest::get(SETTLED_DAY).and("limit=10"),
        TestRequest::get(SETTLED_DAY).and("limit=10&offset=10"),
        TestRequest::get(SETTLED_DAY).and("limit=0"),
        TestRequest::get(SETTLED_DAY).and("includeAgenticData=true"),
        TestRequest::get("from=2026-02-22&to=2026-02-22"),
    ] {
        let response = harness.send(&request).await;
        assert!(
            etags.insert(response.header("etag").unwrap().to_owned()),
            "{request:?} has the validator of another response"
        );
    }
    // The same items as the last page of a window and in the middle of another differ in `hasMore`.
    let last = harness.get(format!("{SETTLED_DAY}&offset=240")).await;
    let more = harness.get("from=2026-02-23&to=2026-02-24T06:00:00&offset=240&limit=10").await;
    assert!(last.page().items().eq(more.page().items()) && !last.page().has_more && more.page().has_more);
    assert_ne!(last.header("etag"), more.header("etag"));
}

#[tokio::test]
async fn open_window_has_no_etag() {
    let harness = start().await;
    let response = harness.get(TODAY).await;
    assert!(response.page().num_results > 0 && response.header("etag").is_none());
    for known in ["*", "\"any\""] {
        let response = harness.send(&TestRequest::get(TODAY).header("if-none-match", known)).await;
        assert_eq!(response.status, StatusCode::OK, "{known}");
    }
    // The last second of the settled interval has a validator, the next one has not.
    let edge = |second: &str| format!("from=2026-02-24T00:00:00&to=2026-02-24T{second}");
    assert!(harness.get(edge("12:34:55")).await.header("etag").is_some());
    assert!(harness.get(edge("12:34:56")).await.header("etag").is_none());
}
