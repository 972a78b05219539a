//! Cordons: no upstream calls, while what is cached is served.

use crate::support::{ACCOUNT, SETTLED_DAY, STREAM, TestHarness, TestRequest};

#[tokio::test]
async fn cordoned_stream_is_served_from_the_cache_only() {
    let harness = TestHarness::start_exact(150, 4).await;
    let other_day = TestRequest::get("from=2026-02-22&to=2026-02-22");
    harness.gateway.get(SETTLED_DAY).await.page();
    let calls = harness.calls();
    let request = TestRequest::post(format!("stream={STREAM}"), "").path("/api/v1/cordon");
    assert_eq!(
        harness.gateway.send_admin(&request).await.text(),
        format!(r#"{{"cordons":[{{"account":"{ACCOUNT}","stream":"{STREAM}"}}]}}"#)
    );
    harness.gateway.get(SETTLED_DAY).await.page();
    let refused = harness.send(&other_day).await;
    refused.assert_problem(503, "stopped");
    assert!(refused.text().contains("/koregate/v1/problems/cordoned"), "{}", refused.text());
    assert_eq!((refused.retry_after(), harness.calls()), (60, calls));
    let status: serde_json::Value =
        serde_json::from_str(harness.gateway.get_admin("/api/v1/status").await.text()).unwrap();
    assert_eq!(status["cordons"][0]["stream"], STREAM);
    for (path, query) in [("/api/v1/cordon", "account=another"), ("/api/v1/cordon", "steam=s")] {
        let refused = harness.gateway.send_admin(&TestRequest::post(query, "").path(path)).await;
        assert!(matches!(refused.status.as_u16(), 400 | 404), "{query}: {}", refused.text());
    }
    let page = TestRequest::post("", "").path("/api/v1/cordon").header("origin", "http://127.0.0.1");
    assert_eq!(harness.gateway.send_admin(&page).await.status, 403);
    assert_eq!(
        harness.gateway.send_admin(&TestRequest::post("", "").path("/api/v1/uncordon")).await.text(),
        r#"{"cordons":[]}"#
    );
    harness.send(&other_day).await.page();
    assert!(harness.calls() > calls);
}
