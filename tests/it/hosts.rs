//! Who may ask at all, where no key tells one from another: a web page that has got a browser to resolve its own name to
//! loopback (DNS rebinding) may not, and the admin listener may have a token.

use http::Method;

use crate::callers::caller;
use crate::process::{Running, environment};
use crate::support::{Ask, Client, Rig, Settings, exact_profile};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
/// What probes and Prometheus ask for.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];
/// What operators ask for.
const PRIVATE: [&str; 4] = ["/", "/api/v1/status", "/api/v1/callers", "/nothing"];

async fn rig(settings: &Settings) -> Rig {
    Rig::start(exact_profile(50, 4), settings).await
}

#[tokio::test]
async fn page_of_a_rebound_name_gets_nothing_without_callers() {
    let rig = rig(&Settings::default().section("server", "hosts = ['gate.internal']")).await;
    let ask = Ask::get(DAY);
    for (header, value, status) in [
        ("host", "evil.example:8080", 421),
        ("host", "127.0.0.1.evil.example", 421),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let answer = rig.ask(&ask.clone().header(header, value)).await;
        assert_eq!(answer.status, status, "{header}: {value}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["status"], status);
    }
    assert_eq!(rig.calls(), 0);
    for host in ["localhost", "a.localhost:8080", "127.0.0.1", "[::1]:8080", "192.0.2.7:80", "gate.internal:8080"] {
        assert_eq!(rig.ask(&ask.clone().header("host", host)).await.page().items().len(), 50, "{host}");
    }
}

#[tokio::test]
async fn callers_may_ask_by_any_name_unless_names_are_set() {
    let callers = caller("bi", "key", "");
    let ask = Ask::get(DAY).header("x-api-key", "key").header("host", "koregate.kore.svc");
    let any = rig(&Settings::default().tables(&callers)).await;
    assert_eq!(any.ask(&ask).await.status, 200);
    let named = Settings::default().section("server", "hosts = ['gate.internal']").tables(&callers);
    let named = rig(&named).await;
    assert_eq!(named.ask(&ask).await.status, 421);
    assert_eq!(named.ask(&ask.header("host", "gate.internal")).await.status, 200);
}

#[tokio::test]
async fn admin_listener_is_found_by_its_names_only_but_for_health() {
    let rig =
        rig(&Settings::default().section("admin", "hosts = ['ops.example']").tables(&caller("bi", "key", ""))).await;
    let status = async |ask: &Ask| rig.door.ask_admin(ask).await.status.as_u16();
    for path in PUBLIC {
        // The kubelet and Prometheus ask by the address of a pod, or by whatever name they have.
        for host in ["10.1.2.3:9090", "koregate.kore.svc:9090"] {
            assert_eq!(status(&Ask::get("").path(path).header("host", host)).await, 200, "{path}");
        }
    }
    for path in PRIVATE {
        let ask = Ask::get("").path(path);
        assert_eq!(status(&ask.clone().header("host", "evil.example")).await, 421, "{path}");
        assert_eq!(status(&ask.clone().header("sec-fetch-site", "cross-site")).await, 403, "{path}");
        let known = if path == "/nothing" { 404 } else { 200 };
        for host in ["localhost:9090", "ops.example", "10.1.2.3:9090"] {
            assert_eq!(status(&ask.clone().header("host", host)).await, known, "{path} of {host}");
        }
    }
    let purge = Ask::get("").path("/api/v1/purge").method(Method::POST).header("host", "evil.example");
    assert_eq!(status(&purge).await, 421);
}

#[tokio::test]
async fn admin_token_is_needed_and_a_browser_is_asked_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "right\n").unwrap();
    let rig = rig(&Settings::default().section("admin", &format!("token = {{ file = '{}' }}", file.display()))).await;
    for path in PUBLIC {
        assert_eq!(rig.door.admin(path).await.status, 200, "{path}");
    }
    for path in PRIVATE {
        let ask = Ask::get("").path(path);
        for wrong in ["", "Bearer wrong", "Basic right"] {
            let answer = rig.door.ask_admin(&ask.clone().header("authorization", wrong)).await;
            assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            assert_eq!(answer.json()["status"], 401);
        }
        let known = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(rig.door.ask_admin(&ask.header("authorization", "Bearer right")).await.status, known, "{path}");
    }
    assert_eq!(rig.door.purge(DAY).await.status, 401);
    let page = Ask::get("").path("/").header("accept", "text/html,application/xhtml+xml");
    let answer = rig.door.ask_admin(&page).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(answer.text().contains("sessionStorage") && !answer.text().contains("Quota"), "{}", answer.text());
    let answer = rig.door.ask_admin(&page.header("authorization", "Bearer right")).await;
    assert!(answer.text().contains("koregate is ready"), "{}", answer.text());
}

#[tokio::test]
async fn purge_is_logged_with_who_asked_for_it() {
    let purge = Ask::get("").path("/api/v1/purge").method(Method::POST).header("authorization", "Bearer right");
    for (token, requester) in [(true, "admin token"), (false, "127.0.0.1:")] {
        let mut environment = environment("http://127.0.0.1:1");
        if token {
            environment.push(("KOREGATE__ADMIN__TOKEN", "{ env = 'ADMIN_TOKEN' }".to_owned()));
            environment.push(("ADMIN_TOKEN", "right".to_owned()));
        }
        let mut gateway = Running::start(&["serve"], &environment);
        let (_, admin) = gateway.listening().await;
        assert_eq!(Client::default().send(admin, &purge).await.unwrap().status, 200);
        let logged = gateway.line(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["requester"].as_str()?.to_owned())
        });
        let logged = logged.await;
        assert!(logged.starts_with(requester) && !gateway.printed().contains("right"), "{logged}");
    }
}
