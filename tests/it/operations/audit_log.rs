//! The audit log, and the line that says at the start where it goes.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, GatewayProcess, SETTLED_DAY, STREAM, TestRequest, environment, exact_profile, key_hash,
    start_dated_simulator,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn each_answer_that_delivers_items_has_a_line() {
    let (simulator, _control) = start_dated_simulator(exact_profile(250, 4)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut environment = environment(&simulator.base_url());
    environment.push(("KOREGATE__LOG__AUDIT", path.display().to_string()));
    environment.push(("KOREGATE__CALLERS__0__NAME", "bi".to_owned()));
    environment.push(("KOREGATE__CALLERS__0__API_KEY_SHA256", key_hash("planted-key")));
    environment.push(("KOREGATE__CACHE__MEMORY", "64MiB".to_owned()));
    let gateway = GatewayProcess::start(&environment).await;
    let window = || TestRequest::get(SETTLED_DAY).key("planted-key");
    let cold = window().header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01")).header("x-request-id", "r-1");
    assert_eq!(gateway.send(&cold).await.status, 200);
    let hit = TestRequest::get(format!("{SETTLED_DAY}&limit=7")).key("planted-key").header("x-request-id", "r-2");
    assert_eq!(gateway.send(&hit).await.status, 200);
    let filter = r#"{"channels":["chat"],"agentIds":["planted-agent"]}"#;
    let none = TestRequest::post(SETTLED_DAY, filter).key("planted-key");
    assert_eq!(gateway.send(&none).await.status, 200);
    let filtered = TestRequest::post(SETTLED_DAY, r#"{"channels":["chat","planted-channel"]}"#).key("planted-key");
    assert_eq!(gateway.send(&filtered.header("x-request-id", "r-3")).await.status, 200);
    // What delivers no item.
    for (request, status) in [
        (window().method(http::Method::HEAD), 200),
        (TestRequest::get(format!("{SETTLED_DAY}&limit=0")).key("planted-key"), 200),
        (TestRequest::get(SETTLED_DAY), 401),
        (TestRequest::path_only("/koregate/v1/usage").key("planted-key"), 200),
    ] {
        assert_eq!(gateway.send(&request).await.status, status, "{request:?}");
    }
    let (code, printed) = gateway.stop().await;
    assert_eq!(code, Some(0), "{printed}");

    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("planted"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let members = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(members("request_id"), ["r-1", "r-2", "r-3"], "{text}");
    assert_eq!(members("outcome"), ["miss", "hit", "hit"]);
    assert_eq!(members("filters"), [json!([]), json!([]), json!(["channels"])]);
    assert_eq!(members("trace_id"), [json!(TRACE), Value::Null, Value::Null]);
    assert_eq!((&lines[0]["items"], &lines[1]["items"]), (&json!(250), &json!(7)));
    for line in &lines {
        assert_eq!((line["caller"].as_str(), line["account"].as_str()), (Some("bi"), Some(ACCOUNT)));
        assert_eq!(line["credential"], format!("sha256:{}", &key_hash("planted-key")[..8]));
        assert_eq!((line["stream"].as_str(), line["from"].as_str()), (Some(STREAM), Some("2026-02-23T00:00:00Z")));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:") && line["time"].is_string(), "{line}");
    }
    assert_banner(&printed, &path.display().to_string());
}

/// Checks the first line of the log.
fn assert_banner(printed: &str, audit: &str) {
    let line: Value = printed.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
    assert_eq!(line["message"], "starting", "{printed}");
    for (member, expected) in
        [("version", env!("CARGO_PKG_VERSION")), ("accounts", ACCOUNT), ("memory", "64MiB"), ("audit", audit)]
    {
        assert_eq!(line[member], expected, "{line}");
    }
    assert!(line["listen"].is_string() && line["admin_listen"].is_string(), "{line}");
    assert_eq!(line["callers"], 1);
    assert!(line.get("redis").is_none() && line.get("disk").is_none() && line.get("traces").is_none(), "{line}");
}
