//! Sessions and TLS of the admin listener.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::support::{CertificateAuthority, SETTLED_DAY, Settings, TestHarness, TestRequest, exact_profile};

/// The status of a path of a listener with TLS, or the error of the handshake.
async fn status(addr: SocketAddr, tls: ClientConfig, path: &str) -> anyhow::Result<u16> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let uri = format!("https://localhost:{}{path}", addr.port());
    Ok(client.request(Request::get(uri).body(Empty::new())?).await?.status().as_u16())
}

#[tokio::test]
async fn admin_tls_asks_all_but_probes_for_a_certificate() {
    let (authority, operators, strangers) =
        (CertificateAuthority::new(), CertificateAuthority::new(), CertificateAuthority::new());
    let certificate = authority.sign("localhost");
    let settings = Settings::default().section("admin", &certificate.tls_key(Some(&operators.file())));
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.server.admin_addr();
    let without = async |path| status(addr, authority.client_config(None), path).await.unwrap();
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(without(path).await, 200, "{path}");
    }
    for path in ["/", "/metrics", "/api/v1/status", "/sign-in", "/assets/style.css"] {
        assert_eq!(without(path).await, 403, "{path}");
    }
    let signed = authority.client_config(Some(&operators.sign("operator")));
    assert_eq!(status(addr, signed, "/api/v1/status").await.unwrap(), 200);
    let strange = authority.client_config(Some(&strangers.sign("operator")));
    assert!(status(addr, strange, "/livez").await.is_err(), "a certificate of another authority");
}

#[tokio::test]
async fn one_peer_leaves_admin_connections_for_probes() {
    let harness = TestHarness::start_exact(150, 4).await;
    let addr = harness.gateway.server.admin_addr();
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answered = async |local: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((local, 0).into()).unwrap();
        let mut stream = socket.connect(addr).await.unwrap();
        // A refused connection may be reset before it is written to.
        let _ = stream.write_all(request).await;
        let mut status = [0; 12];
        let is_live = stream.read_exact(&mut status).await.is_ok() && status == *b"HTTP/1.1 200";
        (is_live, stream)
    };
    let mut open = Vec::new();
    for _ in 0..16 {
        let (is_live, stream) = answered([127, 0, 0, 1]).await;
        assert!(is_live, "{}", open.len());
        open.push(stream);
    }
    assert!(!answered([127, 0, 0, 1]).await.0, "a seventeenth of the same address");
    assert!(answered([127, 0, 0, 2]).await.0, "a probe from another address");
}

#[tokio::test]
async fn session_changes_something_only_with_the_token_of_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "right").unwrap();
    let settings = Settings::default().section("admin", &format!("token = {{ file = '{}' }}", file.display()));
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    let origin = format!("http://{}", harness.gateway.server.admin_addr());
    let post = |path: &str| TestRequest::path_only(path).method(Method::POST).header("origin", &origin);
    let sign_in = |token: &str| post("/sign-in").body(format!("token={token}"));

    assert_eq!(harness.gateway.send_admin(&sign_in("wrong")).await.status, 401);
    let refusals = harness.gateway.metrics().await.value("koregate_admin_refusals_total", &["status=\"401\""]);
    assert!(refusals >= 1.0, "{refusals}");
    let foreign = TestRequest::path_only("/sign-in").method(Method::POST).header("origin", "http://127.0.0.1:1");
    assert_eq!(harness.gateway.send_admin(&foreign.body("token=right")).await.status, 403);
    let signed_in = harness.gateway.send_admin(&sign_in("right")).await;
    assert_eq!((signed_in.status.as_u16(), signed_in.header("location")), (303, Some("./")));
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    let page = harness.gateway.send_admin(&TestRequest::path_only("/").header("cookie", &cookie)).await;
    let csrf = page.text().split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let purge = || post("/api/v1/purge").header("cookie", &cookie).body(r#"{"stream":"st-test"}"#);
    assert_eq!(harness.gateway.send_admin(&purge()).await.status, 403, "without the page's token");
    let chunks = async || {
        let coverage = TestRequest::path_only("/api/v1/coverage?days=400").header("cookie", &cookie);
        harness.gateway.send_admin(&coverage).await.json()["streams"].as_array().unwrap().len()
    };
    assert_eq!(chunks().await, 1);
    let purged = harness.gateway.send_admin(&purge().header("x-csrf-token", &csrf)).await;
    assert_eq!((purged.status.as_u16(), &purged.json()["complete"]), (200, &true.into()), "{}", purged.text());

    let sign_out = |csrf: &str| post("/sign-out").header("cookie", &cookie).body(format!("csrf={csrf}"));
    assert_eq!(harness.gateway.send_admin(&sign_out("wrong")).await.status, 403);
    assert_eq!(harness.gateway.send_admin(&sign_out(&csrf)).await.status, 303);
    let after = TestRequest::path_only("/api/v1/status").header("cookie", &cookie);
    assert_eq!(harness.gateway.send_admin(&after).await.status, 401);
}
