//! Purge requests at one gateway.

use http::Method;
use serde_json::json;

use super::{CHUNKS, completed, purge, start};
use crate::support::{
    ACCOUNT, Credential, OTHER_STREAM, SETTLED_DAY, Settings, TestHarness, TestRequest, exact_profile, exact_stream,
};

#[tokio::test]
async fn purged_window_stream_or_account_is_refetched() {
    let other = exact_stream(OTHER_STREAM, 250);
    let mut profile = exact_profile(250, 4);
    profile.streams.push(other);
    let harness = TestHarness::start(profile, &Settings::default()).await;
    let other = TestRequest::get(SETTLED_DAY).stream(OTHER_STREAM);
    let refetch = async || {
        let before = harness.calls();
        harness.gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the purge");
        harness.send(&other).await.page();
        harness.calls() - before
    };
    assert_eq!((refetch().await, refetch().await), (6, 0));

    harness.change_settled_day();
    let report = purge(&harness.gateway, "stream=st-test&from=2026-02-23&to=2026-02-23").await;
    let epoch = report["epoch"].as_u64().unwrap();
    assert_eq!(
        report,
        json!({
            "account": ACCOUNT, "stream": "st-test", "from": "2026-02-23", "to": "2026-02-23", "epoch": epoch,
            "memory_chunks": CHUNKS, "disk_chunks": null, "redis_chunks": null, "replicas": null, "complete": true, "left": []
        })
    );
    assert_eq!((refetch().await, refetch().await), (3, 0));

    let body =
        r#"{"accountId": "664b33a620bd0892e0000001", "from": "2026-02-23T09:00:00", "to": "2026-02-23 09:59:59"}"#;
    let part = TestRequest::get("").method(Method::POST).path("/api/v1/purge").body(body);
    assert_eq!(completed(&harness.gateway.send_admin(&part).await)["memory_chunks"], 2);
    assert_eq!((refetch().await, refetch().await), (2, 0), "an hour of each stream");
    assert_eq!(purge(&harness.gateway, "to=2026-02-22").await["memory_chunks"], 0);
    assert_eq!(purge(&harness.gateway, "from=2026-02-23T23:59:59").await["memory_chunks"], 2);

    let last = purge(&harness.gateway, "").await;
    assert_eq!((last["memory_chunks"].as_u64(), last["stream"].is_null()), (Some(2 * CHUNKS as u64 - 2), true));
    assert!(last["epoch"].as_u64().unwrap() > epoch);
    assert_eq!(refetch().await, 6);
    let labels = [&*format!("account=\"{ACCOUNT}\""), "result=\"complete\""];
    assert_eq!(harness.gateway.metrics().await.count("koregate_purges_total", &labels), 5);
}

#[tokio::test]
async fn invalid_purge_request_deletes_nothing() {
    let harness = start(&Settings::default()).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    let calls = harness.calls();
    let post = |query: &str| TestRequest::get(query).method(Method::POST).path("/api/v1/purge");
    for (request, status, named) in [
        (post("form=2026-02-23"), 400, "form"),
        (post("from=yesterday"), 400, "from"),
        (post("from=2026-02-24&to=2026-02-23"), 400, "from"),
        (post("from=2026-02-23&from=2026-02-23"), 400, "from"),
        (post("to="), 400, "to"),
        (post("").body("[]"), 400, "object"),
        (post("").body(r#"{"stream": 1}"#), 400, "stream"),
        (post("account=nobody"), 404, "not configured"),
        (post("").header("origin", "http://127.0.0.1:9090"), 403, "Origin"),
        (post("").header("sec-fetch-site", "cross-site"), 403, "Sec-Fetch-Site"),
        (post("").body(r#"{"conversationIds": "c-1"}"#), 400, "conversationIds: it is no array of texts"),
        (post("").body(r#"{"sessionIds": [1]}"#), 400, "sessionIds: it is no array of texts"),
        (post("").body(r#"{"segmentIds": []}"#), 400, "segmentIds: it is empty"),
        (post("").body(r#"{"segmentIds": ["a", " "]}"#), 400, "segmentIds: an id is empty"),
        (post("").body(r#"{"conversationIDs": ["a"]}"#), 400, "conversationIDs: it is not known here"),
        (post("").body(r#"{"segmentIds": ["a"], "segmentIds": ["b"]}"#), 400, "segmentIds: it stands twice"),
        (post("segmentIds=a"), 400, "segmentIds: it belongs into the body"),
        (post("").body(r#"{"segmentIds": ["a"], "form": "2026-02-23"}"#), 400, "form: it is not known here"),
        (post("repeat_after=0s"), 400, "repeat_after: it is no time between"),
        (post("").body(r#"{"segmentIds": ["a"], "repeat_after": "31d"}"#), 400, "repeat_after: it is no time between"),
        (post("").body(r#"{"segmentIds": ["a"], "account": "nobody"}"#), 404, "not configured"),
        (post("").body(" ".repeat((128 << 10) + 1)), 413, "131072"),
    ] {
        let response = harness.gateway.send_admin(&request).await;
        let report = response.json();
        assert_eq!(
            (response.status.as_u16(), &report["status"]),
            (status, &status.into()),
            "{request:?}: {}",
            response.text()
        );
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert!(report["detail"].as_str().unwrap().contains(named), "{request:?}: {}", response.text());
        assert!(report["epoch"].is_null());
    }
    for method in [Method::GET, Method::PUT, Method::OPTIONS] {
        let response = harness.gateway.send_admin(&post("").method(method)).await;
        assert_eq!((response.status.as_u16(), response.header("allow")), (405, Some("POST")));
    }
    assert_eq!(harness.gateway.send_admin(&post("").path("/api/v1/status")).await.status, 405);
    harness.gateway.get(SETTLED_DAY).await.page();
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn purge_with_several_accounts_requires_account() {
    let mut profile = exact_profile(250, 4);
    let second = Credential { account_id: "second".to_owned(), ..profile.account.clone() };
    profile.more_accounts.push(second);
    let harness = TestHarness::start(profile, &Settings::default()).await;
    let response = harness.gateway.purge("").await;
    assert_eq!(response.status, 400);
    assert!(response.text().contains("account: it is required"), "{}", response.text());
    harness.gateway.get(SETTLED_DAY).await.page();
    assert_eq!(purge(&harness.gateway, "account=second").await["memory_chunks"], 0);
    assert_eq!(purge(&harness.gateway, &format!("accountId={ACCOUNT}")).await["memory_chunks"], CHUNKS);
}
