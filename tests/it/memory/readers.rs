//! Attacks by clients that do not read their responses.

use std::io::Write as _;
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};
use tokio::net::TcpStream;

use super::monitored_gateway::{MB, MonitoredGateway, UNLIMITED, connect_from, send};
use crate::support::{CertificateAuthority, Profile, Simulator, TestRequest, at, exact_stream, until};

/// 5,000 items, some 30 MB; deflated, 6 MB.
const LONG: &str = "from=2026-02-07&to=2026-02-25";
const SHORT: &str = "from=2026-02-25&to=2026-02-25";
const SEND_TIMEOUT: (&str, &str) = ("KOREGATE__SERVER__SEND_TIMEOUT", "1s");
/// No reader is cut for its slowness, however slow the machine is.
const NO_SEND_TIMEOUT: (&str, &str) = ("KOREGATE__SERVER__SEND_TIMEOUT", "1h");
const CUT: &str = "koregate_connections_cut_total";
const BY_SEND_TIMEOUT: &str = "limit=\"send_timeout\"";

/// An upstream with this number of streams.
async fn simulator(streams: usize) -> Simulator {
    let stream = |nth| exact_stream(stream(nth), 250);
    let streams = (0..streams).map(stream).collect();
    let profile = Profile { streams, days: 20, end: Some(at("2026-02-26").into()), ..Profile::default() };
    Simulator::start(profile).await.unwrap()
}

fn stream(nth: usize) -> String {
    format!("st-{nth}")
}

fn long(nth: usize) -> TestRequest {
    TestRequest::get(LONG).stream(&stream(nth))
}

/// Sends a request and reads nothing of the response.
async fn stall(gateway: &MonitoredGateway, request: &TestRequest) -> TcpStream {
    let connection = connect_from(2, gateway.addr()).await.unwrap();
    send(&connection, &request.to_bytes(gateway.addr())).await;
    connection
}

#[tokio::test]
async fn stalled_readers_of_streamed_and_cached_responses_are_cut() {
    let simulator = simulator(1).await;
    let gateway = MonitoredGateway::start(&simulator.base_url(), &[UNLIMITED, SEND_TIMEOUT]).await;
    // The first response is streamed, no faster than it is read.
    let mut open = vec![stall(&gateway, &long(0)).await];
    gateway.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    let whole = gateway.send(&long(0)).await;
    assert_eq!(whole.page().items().len(), 4750);
    for _ in 0..29 {
        open.push(stall(&gateway, &long(0)).await);
    }
    gateway.until_metric(CUT, BY_SEND_TIMEOUT, 30).await;
    // The client sees an error instead of the end of the response.
    let (connection, mut bytes) = (open.pop().unwrap(), vec![0; 1 << 20]);
    let error = loop {
        connection.readable().await.unwrap();
        match connection.try_read(&mut bytes) {
            Ok(0) => panic!("closed in order"),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break error,
            Ok(_) | Err(_) => {}
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn stalled_reader_of_zero_copy_response_is_cut() {
    let simulator = simulator(1).await;
    let gateway = MonitoredGateway::start(&simulator.base_url(), &[UNLIMITED, SEND_TIMEOUT]).await;
    let page = TestRequest::get(format!("{SHORT}&limit=100")).stream(&stream(0));
    for _ in 0..20 {
        assert_eq!(gateway.send(&page).await.page().items().len(), 100);
    }
    // Pipelined over one connection, more than the system's buffers hold.
    let connection = connect_from(2, gateway.addr()).await.unwrap();
    send(&connection, &page.to_bytes(gateway.addr()).repeat(20)).await;
    gateway.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn stalled_reader_over_tls_is_cut() {
    let (simulator, authority) = (simulator(1).await, CertificateAuthority::new());
    let signed = authority.sign("localhost");
    let tls = format!("{{ cert = '{}', key = '{}' }}", signed.cert.display(), signed.key.display());
    let settings = [UNLIMITED, SEND_TIMEOUT, ("KOREGATE__SERVER__TLS", &tls)];
    let gateway = MonitoredGateway::start(&simulator.base_url(), &settings).await;
    let (addr, request) = (gateway.addr(), long(0).to_bytes(gateway.addr()));
    let client =
        ClientConnection::new(Arc::new(authority.client_config(None)), "localhost".try_into().unwrap()).unwrap();
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = StreamOwned::new(client, std::net::TcpStream::connect(addr).unwrap());
        stream.write_all(&request).unwrap();
        stream.flush().unwrap();
        stream
    });
    let _open = sent.await.unwrap();
    gateway.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn stalled_readers_take_bounded_memory() {
    let simulator = simulator(12).await;
    let gateway = MonitoredGateway::start(&simulator.base_url(), &[UNLIMITED, NO_SEND_TIMEOUT]).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for nth in 0..12 {
        let response = gateway.send(&long(nth)).await;
        if response.status == 503 {
            assert_eq!(response.header("retry-after"), Some("10"));
            refused += 1;
        } else {
            // The response is in memory now; later ones evict it.
            open.push(stall(&gateway, &long(nth)).await);
        }
    }
    assert!((1..8).contains(&refused), "{refused} were refused");
    let short = TestRequest::get(SHORT).stream(&stream(0));
    assert_eq!(gateway.send(&short).await.page().items().len(), 250);
    let before = gateway.resident();
    drop(open);
    until("the memory of the responses to be released", || gateway.resident() + 10 * MB < before).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn longest_stalled_readers_over_send_memory_are_cut() {
    let simulator = simulator(1).await;
    let gateway =
        MonitoredGateway::start(&simulator.base_url(), &[UNLIMITED, ("KOREGATE__SERVER__SEND_MEMORY", "4MiB")]).await;
    assert_eq!(gateway.send(&long(0)).await.status, 200);
    let mut open = Vec::new();
    for nth in 0..100 {
        // Each window begins elsewhere, so that no two share memory.
        let (day, hour) = (7 + nth % 15, nth / 15 % 24);
        let window = format!("from=2026-02-{day:02}-{hour:02}:00:00&to=2026-02-{:02}", day + 2);
        let request = TestRequest::get(window).stream(&stream(0));
        open.push(stall(&gateway, &request).await);
    }
    gateway.until_metric(CUT, "limit=\"send_memory\"", 50).await;
    // A client that reads is not cut.
    assert_eq!(gateway.send(&long(0)).await.page().items().len(), 4750);
    gateway.assert_alive_within_bounds();
}
