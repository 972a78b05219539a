//! Attacks by connections: many of them, and requests that never end.

use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpStream;

use crate::support::attack::{MB, Target, connect_from, receive_all, send};
use crate::support::{Ask, Client, until};

/// An upstream of requests that are not to reach it.
const NOWHERE: &str = "http://127.0.0.1:1";
/// More connections than a gateway takes.
const CONNECTIONS: usize = 4500;
/// So many addresses that none of them opens more connections than a peer may.
const PEERS: usize = 8;

/// Opens connections, and sends over each of them as much of its request as the gateway takes.
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
async fn unfinished_heads_of_400_kb_take_bounded_memory() {
    let target = Target::start(NOWHERE, &[], None).await;
    let head = unfinished_head(400_000);
    let _open = open(target.addr, 2000, |_| head.clone()).await;
    // By their size, or, on a slow machine, by the memory that they take together.
    target.until_metric("koregate_connections_cut_total", "limit=", 1900).await;
    target.assert_held();
}

#[tokio::test]
async fn unfinished_heads_below_the_limit_take_bounded_memory() {
    let target = Target::start(NOWHERE, &[], None).await;
    let head = unfinished_head(30_000);
    let _open = open(target.addr, CONNECTIONS, |_| head.clone()).await;
    target.until_metric("koregate_connections_cut_total", "limit=\"request_memory\"", 3500).await;
    target.assert_held();
}

#[tokio::test]
async fn bodies_held_open_take_bounded_memory() {
    let target = Target::start(NOWHERE, &[], None).await;
    let mut request = Ask::post("from=2026-02-23&to=2026-02-23", vec![b' '; 256 << 10]).wire(target.addr);
    request.pop();
    let _open = open(target.addr, 1500, |_| request.clone()).await;
    // All but those that the budget holds.
    target.until_metric("koregate_requests_total", "outcome=\"overloaded\"", 1400).await;
    target.assert_held();
}

#[tokio::test]
async fn idle_connections_take_bounded_memory_and_give_it_back() {
    let target = Target::start(NOWHERE, &[], None).await;
    let before = target.resident();
    let head = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let open = open(target.addr, CONNECTIONS, |_| head.to_vec()).await;
    target.until_metric("koregate_connections_cut_total", "limit=\"max_connections\"", 404).await;
    target.until_metric("koregate_requests_total", "outcome=\"not_found\"", 4096).await;
    assert!(target.resident() > before + 20 * MB, "there is nothing to give back");
    drop(open);
    until("memory is given back", || target.resident() < before + 10 * MB).await;
    target.assert_held();
}

#[tokio::test]
async fn requests_under_way_take_bounded_memory() {
    // It takes calls in, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::start(&format!("http://{}", silent.local_addr().unwrap()), &[], None).await;
    let request = |nth: usize| {
        let day = format!("{}-{:02}-{:02}", 2010 + nth / 336, nth / 28 % 12 + 1, nth % 28 + 1);
        Ask::get(format!("from={day}&to={day}")).wire(target.addr)
    };
    let _open = open(target.addr, CONNECTIONS, request).await;
    target.until_metric("koregate_requests_total", "outcome=\"overloaded\"", 2048).await;
    target.assert_held();
}

#[tokio::test]
async fn peer_with_too_many_connections_is_told_and_others_are_served() {
    let limit = [("KOREGATE__SERVER__MAX_CONNECTIONS_PER_PEER", "2")];
    let target = Target::start(NOWHERE, &limit, None).await;
    let _open = [connect_from(2, target.addr).await.unwrap(), connect_from(2, target.addr).await.unwrap()];
    let third = connect_from(2, target.addr).await.unwrap();
    let answer = receive_all(&third).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\"code\":503}]}"), "{answer}");
    assert_eq!(Client::default().send(target.addr, &Ask::get("").path("/")).await.unwrap().status, 404);
    target.until_metric("koregate_connections_cut_total", "limit=\"max_connections_per_peer\"", 1).await;
    target.assert_held();
}

#[tokio::test]
async fn gateway_lives_and_calls_its_upstream_with_few_open_files() {
    let (simulator, _control) = crate::operations::simulator().await;
    let target = Target::start(&simulator.base_url(), &[], Some(256)).await;
    assert!(target.printed().contains("does not fit into the limit of open files"), "{}", target.printed());
    let client = Client::default();
    assert_eq!(client.send(target.addr, &Ask::get("").path("/")).await.unwrap().status, 404);
    let _open = open(target.addr, 400, |_| Vec::new()).await;
    target.until_metric("koregate_connections_cut_total", "limit=\"max_connections\"", 270).await;
    // Over the connection from before.
    let answer = client.send(target.addr, &Ask::get("from=2026-02-23&to=2026-02-23")).await.unwrap();
    assert_eq!(answer.page().items().len(), 250);
    target.assert_held();
}
