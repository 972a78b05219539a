//! The `Host` allow-list, which keeps out web pages by DNS rebinding (a host name of theirs that resolves to loopback),
//! and the token of the admin listener.

use http::Method;

use crate::support::{
    GatewayProcess, SETTLED_DAY, Settings, TestHarness, TestRequest, caller_table, environment, exact_profile,
};

/// Paths of probes and Prometheus.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];
/// Paths of operators.
const PRIVATE: [&str; 4] = ["/", "/api/v1/status", "/api/v1/callers", "/nothing"];

async fn start(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(50, 4), settings).await
}

#[tokio::test]
async fn rebound_host_without_callers_is_refused() {
    let harness = start(&Settings::default().section("server", "hosts = ['gate.internal']")).await;
    let request = TestRequest::get(SETTLED_DAY);
    for (header, value, status) in [
        ("host", "evil.example:8080", 421),
        ("host", "127.0.0.1.evil.example", 421),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let response = harness.send(&request.clone().header(header, value)).await;
        assert_eq!(response.status, status, "{header}: {value}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.json()["status"], status);
    }
    assert_eq!(harness.calls(), 0);
    for host in ["localhost", "a.localhost:8080", "127.0.0.1", "[::1]:8080", "192.0.2.7:80", "gate.internal:8080"] {
        assert_eq!(harness.send(&request.clone().header("host", host)).await.page().items().len(), 50, "{host}");
    }
}

#[tokio::test]
async fn authenticated_caller_any_host_is_accepted_unless_configured() {
    let callers = caller_table("bi", "key", "");
    let request = TestRequest::get(SETTLED_DAY).key("key").header("host", "koregate.kore.svc");
    let any = start(&Settings::default().tables(&callers)).await;
    assert_eq!(any.send(&request).await.status, 200);
    let named = Settings::default().section("server", "hosts = ['gate.internal']").tables(&callers);
    let named = start(&named).await;
    assert_eq!(named.send(&request).await.status, 421);
    assert_eq!(named.send(&request.header("host", "gate.internal")).await.status, 200);
}

#[tokio::test]
async fn admin_unknown_host_reaches_health_only() {
    let harness =
        start(&Settings::default().section("admin", "hosts = ['ops.example']").tables(&caller_table("bi", "key", "")))
            .await;
    let status = async |request: &TestRequest| harness.gateway.send_admin(request).await.status.as_u16();
    for path in PUBLIC {
        // The kubelet and Prometheus use the address of the pod or any name of it.
        for host in ["10.1.2.3:9090", "koregate.kore.svc:9090"] {
            assert_eq!(status(&TestRequest::path_only(path).header("host", host)).await, 200, "{path}");
        }
    }
    for path in PRIVATE {
        let request = TestRequest::path_only(path);
        assert_eq!(status(&request.clone().header("host", "evil.example")).await, 421, "{path}");
        assert_eq!(status(&request.clone().header("sec-fetch-site", "cross-site")).await, 403, "{path}");
        let known = if path == "/nothing" { 404 } else { 200 };
        for host in ["localhost:9090", "ops.example", "10.1.2.3:9090"] {
            assert_eq!(status(&request.clone().header("host", host)).await, known, "{path} of {host}");
        }
    }
    let purge = TestRequest::path_only("/api/v1/purge").method(Method::POST).header("host", "evil.example");
    assert_eq!(status(&purge).await, 421);
}

#[tokio::test]
async fn admin_token_is_required_outside_health() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "right\n").unwrap();
    let harness =
        start(&Settings::default().section("admin", &format!("token = {{ file = '{}' }}", file.display()))).await;
    for path in PUBLIC {
        assert_eq!(harness.gateway.get_admin(path).await.status, 200, "{path}");
    }
    for path in PRIVATE {
        let request = TestRequest::path_only(path);
        for wrong in ["", "Bearer wrong", "Basic right"] {
            let response = harness.gateway.send_admin(&request.clone().header("authorization", wrong)).await;
            assert_eq!(
                (response.status.as_u16(), response.header("www-authenticate")),
                (401, Some("Bearer realm=\"koregate\"")),
                "{path}"
            );
            assert_eq!(response.json()["status"], 401);
        }
        let known = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(
            harness.gateway.send_admin(&request.header("authorization", "Bearer right")).await.status,
            known,
            "{path}"
        );
    }
    assert_eq!(harness.gateway.purge(SETTLED_DAY).await.status, 401);
    let page = TestRequest::path_only("/").header("accept", "text/html,application/xhtml+xml");
    let response = harness.gateway.send_admin(&page).await;
    assert_eq!((response.status.as_u16(), response.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(response.text().contains("Admin token") && !response.text().contains("Quota"), "{}", response.text());
    let response = harness.gateway.send_admin(&page.header("authorization", "Bearer right")).await;
    assert!(response.text().contains("Healthy"), "{}", response.text());
}

#[tokio::test]
async fn purge_log_names_requester() {
    let purge = TestRequest::path_only("/api/v1/purge").method(Method::POST).header("authorization", "Bearer right");
    for (token, requester) in [(true, "admin token"), (false, "127.0.0.1:")] {
        let mut environment = environment("http://127.0.0.1:1");
        if token {
            environment.push(("KOREGATE__ADMIN__TOKEN", "{ env = 'ADMIN_TOKEN' }".to_owned()));
            environment.push(("ADMIN_TOKEN", "right".to_owned()));
        }
        let mut gateway = GatewayProcess::start(&environment).await;
        assert_eq!(gateway.send_admin(&purge).await.status, 200);
        let logged = gateway.process.wait_for_line(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["requester"].as_str()?.to_owned())
        });
        let logged = logged.await;
        assert!(logged.starts_with(requester) && !gateway.process.output().contains("right"), "{logged}");
    }
}
