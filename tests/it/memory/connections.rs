//! Attacks by many connections and by requests that never end.

use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpStream;

use super::monitored_gateway::{MB, MonitoredGateway, connect_from, receive_all, send};
use crate::support::{TestRequest, exact_profile, start_dated_simulator, until};

/// The upstream of requests that must not reach it.
const NOWHERE: &str = "http://127.0.0.1:1";
/// More connections than a gateway accepts.
const CONNECTIONS: usize = 4500;
/// Client addresses, enough for each to stay below the limit of a peer.
const PEERS: usize = 8;

/// Opens connections and sends a request over each, as far as the gateway accepts it.
async fn open(addr: SocketAddr, connections: usize, request: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for nth in 0..connections {
        let connection = connect_from(u8::try_from(nth % PEERS + 1).unwrap(), addr).await.unwrap();
        send(&connection, &request(nth)).await;
        open.push(connection);
    }
    open
}

fn unfinished_head(len: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    head.resize(len, b'a');
    head
}

#[tokio::test]
async fn unfinished_heads_take_bounded_memory() {
    for (len, connections, limit, cut) in [
        // Cut by their size or, on a slow machine, by the memory of all requests.
        (400_000, 2000, "limit=", 1900),
        // Below the limit of a head.
        (30_000, CONNECTIONS, "limit=\"request_memory\"", 3500),
    ] {
        let gateway = MonitoredGateway::start(NOWHERE, &[]).await;
        let head = unfinished_head(len);
        let _open = open(gateway.addr(), connections, |_| head.clone()).await;
        gateway.until_metric("koregate_connections_cut_total", limit, cut).await;
        gateway.assert_alive_within_bounds();
    }
}

#[tokio::test]
async fn unfinished_bodies_take_bounded_memory() {
    let gateway = MonitoredGateway::start(NOWHERE, &[]).await;
    let mut request =
        TestRequest::post("from=2026-02-23&to=2026-02-23", vec![b' '; 256 << 10]).to_bytes(gateway.addr());
    request.pop();
    let _open = open(gateway.addr(), 1500, |_| request.clone()).await;
    // All but those that fit into the memory for requests.
    gateway.until_metric("koregate_requests_total", "outcome=\"overloaded\"", 1400).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn idle_connections_release_memory_when_closed() {
    let gateway = MonitoredGateway::start(NOWHERE, &[]).await;
    let before = gateway.resident();
    let head = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let open = open(gateway.addr(), CONNECTIONS, |_| head.to_vec()).await;
    gateway.until_metric("koregate_connections_cut_total", "limit=\"max_connections\"", 404).await;
    gateway.until_metric("koregate_requests_total", "outcome=\"not_found\"", 4096).await;
    assert!(gateway.resident() > before + 20 * MB, "the connections must take memory first");
    drop(open);
    until("the memory to be released", || gateway.resident() < before + 10 * MB).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn pending_requests_take_bounded_memory() {
    // An upstream that accepts calls and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = MonitoredGateway::start(&format!("http://{}", silent.local_addr().unwrap()), &[]).await;
    let request = |nth: usize| {
        let day = format!("{}-{:02}-{:02}", 2010 + nth / 336, nth / 28 % 12 + 1, nth % 28 + 1);
        TestRequest::get(format!("from={day}&to={day}")).to_bytes(gateway.addr())
    };
    let _open = open(gateway.addr(), CONNECTIONS, request).await;
    gateway.until_metric("koregate_requests_total", "outcome=\"overloaded\"", 2048).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn peer_over_connection_limit_is_refused_alone() {
    let limit = [("KOREGATE__SERVER__MAX_CONNECTIONS_PER_PEER", "2")];
    let gateway = MonitoredGateway::start(NOWHERE, &limit).await;
    let _open = [connect_from(2, gateway.addr()).await.unwrap(), connect_from(2, gateway.addr()).await.unwrap()];
    let third = connect_from(2, gateway.addr()).await.unwrap();
    let response = receive_all(&third).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\"code\":503}]}"), "{response}");
    assert_eq!(gateway.send(&TestRequest::path_only("/")).await.status, 404);
    gateway.until_metric("koregate_connections_cut_total", "limit=\"max_connections_per_peer\"", 1).await;
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn few_open_files_still_allow_upstream_calls() {
    let (simulator, _control) = start_dated_simulator(exact_profile(250, 4)).await;
    let gateway = MonitoredGateway::start_limited(&simulator.base_url(), &[], Some(256)).await;
    assert!(gateway.output().contains("does not fit into the limit of open files"), "{}", gateway.output());
    assert_eq!(gateway.send(&TestRequest::path_only("/")).await.status, 404);
    let _open = open(gateway.addr(), 400, |_| Vec::new()).await;
    gateway.until_metric("koregate_connections_cut_total", "limit=\"max_connections\"", 270).await;
    // Over the pooled connection.
    let response = gateway.send(&TestRequest::get("from=2026-02-23&to=2026-02-23")).await;
    assert_eq!(response.page().items().len(), 250);
    gateway.assert_alive_within_bounds();
}
