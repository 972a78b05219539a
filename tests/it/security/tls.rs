//! TLS of the data plane and towards the upstream.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{
    CertificateAuthority, RecordingProxy, SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, at, exact_profile,
};

/// The status and the number of items of [`SETTLED_DAY`], or the error of the handshake.
async fn get(addr: SocketAddr, tls: ClientConfig) -> anyhow::Result<(u16, usize)> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let path = format!("/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{SETTLED_DAY}");
    let uri = format!("https://localhost:{}{path}", addr.port());
    let (head, body) = client.request(Request::get(uri).body(Empty::new())?).await?.into_parts();
    let page: serde_json::Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    Ok((head.status.as_u16(), page["data"].as_array().map_or(0, Vec::len)))
}

#[tokio::test]
async fn tls_listener_refuses_plain_text() {
    let authority = CertificateAuthority::new();
    let harness = TestHarness::start(exact_profile(150, 4), &authority.sign("localhost").listener_settings(None)).await;
    assert_eq!(get(harness.gateway.addr(), authority.client_config(None)).await.unwrap(), (200, 150));
    let plain = harness.gateway.try_send(&TestRequest::get(SETTLED_DAY)).await;
    assert!(plain.is_err(), "plain text was answered: {plain:?}");
    assert!(
        get(harness.gateway.addr(), CertificateAuthority::new().client_config(None)).await.is_err(),
        "an unknown authority"
    );
    assert_eq!(harness.gateway.get_admin("/readyz").await.status, 200, "the admin plane has no TLS");
}

#[tokio::test]
async fn metrics_have_the_end_of_the_certificate() {
    let authority = CertificateAuthority::new();
    let harness = TestHarness::start(exact_profile(150, 4), &authority.sign("localhost").listener_settings(None)).await;
    let metrics = harness.gateway.metrics().await;
    assert!(metrics.value("koregate_certificate_expiry_timestamp_seconds", &["certificate=\"server\""]) > 0.0);
    // What alerts watch is there before the first event.
    for name in ["koregate_broken_answers_total", "koregate_quota_state_failed_total", "koregate_clock_wrong"] {
        assert!(metrics.text().lines().any(|line| line == format!("{name} 0")), "{name}: {}", metrics.text());
    }
    assert!(metrics.text().contains("koregate_not_stored_total{reason=\"too_large\"} 0"), "{}", metrics.text());
}

#[tokio::test]
async fn client_ca_admits_signed_clients_only() {
    let (authority, callers, strangers) =
        (CertificateAuthority::new(), CertificateAuthority::new(), CertificateAuthority::new());
    let settings = authority.sign("localhost").listener_settings(Some(&callers.file()));
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.addr();
    assert!(get(addr, authority.client_config(None)).await.is_err(), "without a certificate");
    assert!(
        get(addr, authority.client_config(Some(&strangers.sign("bi-etl")))).await.is_err(),
        "with a certificate of another authority"
    );
    assert_eq!(harness.calls(), 0);
    assert_eq!(get(addr, authority.client_config(Some(&callers.sign("bi-etl")))).await.unwrap(), (200, 150));
}

#[tokio::test]
async fn client_certificate_stands_for_its_caller() {
    let (authority, clients) = (CertificateAuthority::new(), CertificateAuthority::new());
    let callers = "[[callers]]\nname = 'bi'\ncertificate_san = 'bi.internal'\n";
    let settings = authority.sign("localhost").listener_settings(Some(&clients.file())).tables(callers);
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.addr();
    let with = |name: &str| get(addr, authority.client_config(Some(&clients.sign(name))));
    assert_eq!(with("bi.internal").await.unwrap(), (200, 150));
    assert_eq!(with("qa.internal").await.unwrap(), (401, 0));
}

/// A connection on which requests are sent one after the other.
async fn connect(addr: SocketAddr, tls: ClientConfig) -> anyhow::Result<(SendRequest<Empty<Bytes>>, Vec<u8>)> {
    let stream = TcpStream::connect(addr).await?;
    let stream = TlsConnector::from(Arc::new(tls)).connect("localhost".try_into()?, stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok((sender, certificate))
}

async fn status(sender: &mut SendRequest<Empty<Bytes>>) -> anyhow::Result<u16> {
    sender.ready().await?;
    let response =
        sender.send_request(Request::get("/nothing").header("host", "localhost").body(Empty::new())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

#[tokio::test]
async fn renewed_certificate_is_served_to_the_next_handshake() {
    let authority = CertificateAuthority::new();
    let settings = authority.sign("localhost").listener_settings(None);
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.addr();
    // One configuration, so that its sessions could be resumed.
    let client = authority.client_config(None);
    let (mut open, before) = connect(addr, client.clone()).await.unwrap();
    assert_eq!(status(&mut open).await.unwrap(), 404);
    authority.sign("localhost");
    assert!(harness.reload(&settings).await);
    let (mut renewed, after) = connect(addr, client.clone()).await.unwrap();
    assert_ne!(before, after);
    assert_eq!([status(&mut renewed).await.unwrap(), status(&mut open).await.unwrap()], [404, 404]);
    // A key that does not fit changes nothing.
    std::fs::write(authority.sign("localhost").key, "no key").unwrap();
    assert!(!harness.reload(&settings).await);
    assert_eq!(connect(addr, client).await.unwrap().1, after);
}

#[tokio::test]
async fn removed_client_authority_ends_resumption() {
    let (authority, removed, kept) =
        (CertificateAuthority::new(), CertificateAuthority::new(), CertificateAuthority::new());
    let server = authority.sign("localhost");
    let settings = server.listener_settings(Some(&removed.file()));
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.addr();
    let client = authority.client_config(Some(&removed.sign("bi-etl")));
    let (mut sender, _) = connect(addr, client.clone()).await.unwrap();
    assert_eq!(status(&mut sender).await.unwrap(), 404);
    assert!(harness.reload(&server.listener_settings(Some(&kept.file()))).await);
    let resumed = match connect(addr, client).await {
        Ok((mut sender, _)) => status(&mut sender).await,
        Err(error) => Err(error),
    };
    assert!(resumed.is_err(), "{resumed:?}");
    let (mut sender, _) = connect(addr, authority.client_config(Some(&kept.sign("bi-etl")))).await.unwrap();
    assert_eq!(status(&mut sender).await.unwrap(), 404);
}

#[tokio::test]
async fn expired_client_certificate_is_refused_on_open_and_resumed_connections() {
    let (authority, clients) = (CertificateAuthority::new(), CertificateAuthority::new());
    let settings = authority.sign("localhost").listener_settings(Some(&clients.file()));
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let addr = harness.gateway.addr();
    let client = authority.client_config(Some(&clients.sign_until("bi-etl", 2100)));
    let (mut open, _) = connect(addr, client.clone()).await.unwrap();
    assert_eq!(status(&mut open).await.unwrap(), 404);
    // The clock of the handshake is the machine's, so the certificate is valid there.
    harness.clock.set(at("2100-01-01T00:00:00Z"));
    let (mut resumed, _) = connect(addr, client).await.unwrap();
    assert_eq!([status(&mut open).await.unwrap(), status(&mut resumed).await.unwrap()], [401, 401]);
}

#[tokio::test]
async fn token_is_sent_to_verified_upstream_only() {
    let authority = CertificateAuthority::new();
    let trusting = Settings::default().section("upstream", &format!("ca_file = '{}'", authority.file().display()));
    let harness = TestHarness::start_exact(150, 4).await;
    let upstream = harness.upstream_addr();
    for (name, settings, trusted) in [
        ("localhost", &trusting, true),
        // Signed by an authority that the system does not trust.
        ("localhost", &Settings::default(), false),
        // Signed, but for another host.
        ("platform.example", &trusting, false),
    ] {
        harness.control.reset_counts();
        let proxy = RecordingProxy::start(upstream, Some(authority.sign(name).acceptor())).await;
        let response = harness.add_replica_behind(&proxy, settings).await.get(SETTLED_DAY).await;
        if trusted {
            response.assert_complete(&harness.settled_day(), name);
        } else {
            assert_eq!(response.status, 502, "{}", response.text());
            assert!(proxy.tokens().is_empty() && harness.calls() == 0, "{name}: the token was sent");
        }
    }
}

#[tokio::test]
async fn silent_tls_connection_does_not_delay_drain() {
    let authority = CertificateAuthority::new();
    let settings = authority.sign("localhost").listener_settings(None).section("server", "drain_timeout = '10s'");
    let harness = TestHarness::start(exact_profile(150, 4), &settings).await;
    let silent = TcpStream::connect(harness.gateway.addr()).await.unwrap();
    // Connections are accepted in their order, so the silent one has been accepted.
    assert_eq!(get(harness.gateway.addr(), authority.client_config(None)).await.unwrap(), (200, 150));
    assert!(harness.gateway.server.drain().await, "the drain timed out");
    drop(silent);
}

#[tokio::test]
async fn reloaded_authority_of_the_upstream_is_trusted() {
    let authority = CertificateAuthority::new();
    let trusting = Settings::default().section("upstream", &format!("ca_file = '{}'", authority.file().display()));
    let harness = TestHarness::start_exact(150, 4).await;
    let proxy = RecordingProxy::start(harness.upstream_addr(), Some(authority.sign("localhost").acceptor())).await;
    let gateway = harness.add_replica_behind(&proxy, &Settings::default()).await;
    assert_eq!(gateway.get(SETTLED_DAY).await.status, 502);
    // The base URL is another one there, which needs a restart.
    assert!(harness.reload_replica(&gateway, &trusting).await);
    gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the reload");
}
