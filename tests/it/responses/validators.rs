//! `ETag` and `If-None-Match`.

use std::collections::BTreeSet;
use std::time::Duration;

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
async fn validators_are_compared_for_query_and_not_for_post() {
    let harness = start().await;
    let filter = r#"{"channels":["chat"]}"#;
    let first = harness.send(&TestRequest::post(SETTLED_DAY, filter)).await;
    let etag = first.header("etag").unwrap();
    let post = harness.send(&TestRequest::post(SETTLED_DAY, filter).header("if-none-match", etag)).await;
    assert_eq!((post.status, &post.body), (StatusCode::OK, &first.body), "a 304 is for GET, HEAD and QUERY only");
    let repeated = harness.send(&TestRequest::query(SETTLED_DAY, filter).header("if-none-match", etag)).await;
    assert_eq!((repeated.status, repeated.body.len()), (StatusCode::NOT_MODIFIED, 0));
    // QUERY has no default for its content, and no job, whose Location would be taken for the window's.
    let empty = TestRequest::query(SETTLED_DAY, "");
    harness.send(&empty).await.assert_problem_names(400, "body");
    let cold = TestRequest::query("from=2026-02-21&to=2026-02-21", "{}").header("prefer", "respond-async");
    let answer = harness.send(&cold).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (StatusCode::OK, None));
}

#[tokio::test]
async fn open_window_etag_changes_with_its_items() {
    let harness = start().await;
    let first = harness.get(TODAY).await;
    let etag = first.header("etag").expect("a complete answer").to_owned();
    let poll = TestRequest::get(TODAY).header("if-none-match", &etag);
    let again = harness.send(&poll).await;
    assert_eq!((again.status, again.header("etag")), (StatusCode::NOT_MODIFIED, Some(etag.as_str())));
    // The same items fetched again are confirmed, others are sent.
    harness.advance(Duration::from_mins(1));
    harness.control.reset_counts();
    let mut last = harness.send(&poll).await;
    assert!(harness.calls() > 0, "the youngest part is stale");
    while last.status == StatusCode::NOT_MODIFIED {
        harness.advance(Duration::from_hours(1));
        last = harness.send(&poll).await;
    }
    assert!(last.page().num_results > first.page().num_results);
    assert_ne!(last.header("etag"), Some(etag.as_str()));
}
