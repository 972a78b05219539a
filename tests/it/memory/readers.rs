//! Attacks by readers that take nothing of their answers.

use std::io::Write as _;
use std::sync::Arc;

use koregate_simulator::{Profile, Simulator, StreamProfile};
use rustls::{ClientConnection, StreamOwned};
use tokio::net::TcpStream;

use crate::support::attack::{MB, Target, connect_from, send};
use crate::support::{Ask, Client, at, until};
use crate::tls::Authority;

/// 5,000 items, some 30 MB; deflated, 6 MB.
const LONG: &str = "from=2026-02-07&to=2026-02-25";
const SHORT: &str = "from=2026-02-25&to=2026-02-25";
/// No call waits for the quota.
const LIMITS: (&str, &str) = ("KOREGATE__ACCOUNTS__0__QUOTA", "{ limits = [{ requests = 1000000, per = '1m' }] }");
const SEND_TIMEOUT: (&str, &str) = ("KOREGATE__SERVER__SEND_TIMEOUT", "1s");
const CUT: &str = "koregate_connections_cut_total";
const BY_SEND_TIMEOUT: &str = "limit=\"send_timeout\"";

/// An upstream with so many streams.
async fn simulator(streams: usize) -> Simulator {
    let stream = |nth| StreamProfile { exact: true, ..StreamProfile::new(stream(nth), 250) };
    let streams = (0..streams).map(stream).collect();
    let profile = Profile { streams, days: 20, end: Some(at("2026-02-26").into()), ..Profile::default() };
    Simulator::start(profile).await.unwrap()
}

fn stream(nth: usize) -> String {
    format!("st-{nth}")
}

fn long(nth: usize) -> Ask {
    Ask::get(LONG).stream(&stream(nth))
}

/// Asks, and takes nothing of the answer.
async fn stick(target: &Target, ask: &Ask) -> TcpStream {
    let connection = connect_from(2, target.addr).await.unwrap();
    send(&connection, &ask.wire(target.addr)).await;
    connection
}

#[tokio::test]
async fn readers_stuck_in_streamed_and_whole_answers_are_cut() {
    let simulator = simulator(1).await;
    let target = Target::start(&simulator.base_url(), &[LIMITS, SEND_TIMEOUT], None).await;
    // The first one is streamed, and goes on no further than it is read.
    let mut open = vec![stick(&target, &long(0)).await];
    target.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    let whole = Client::default().send(target.addr, &long(0)).await.unwrap();
    assert_eq!(whole.page().items().len(), 4750);
    for _ in 0..29 {
        open.push(stick(&target, &long(0)).await);
    }
    target.until_metric(CUT, BY_SEND_TIMEOUT, 30).await;
    // The client cannot take that for the end.
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
    target.assert_held();
}

#[tokio::test]
async fn reader_stuck_in_an_answer_sent_without_a_copy_is_cut() {
    let simulator = simulator(1).await;
    let target = Target::start(&simulator.base_url(), &[LIMITS, SEND_TIMEOUT], None).await;
    let page = Ask::get(format!("{SHORT}&limit=100")).stream(&stream(0));
    let client = Client::default();
    for _ in 0..20 {
        assert_eq!(client.send(target.addr, &page).await.unwrap().page().items().len(), 100);
    }
    // One after the other over one connection, more than the system's buffers hold.
    let connection = connect_from(2, target.addr).await.unwrap();
    send(&connection, &page.wire(target.addr).repeat(20)).await;
    target.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    target.assert_held();
}

#[tokio::test]
async fn reader_stuck_in_an_answer_over_tls_is_cut() {
    let (simulator, authority) = (simulator(1).await, Authority::new());
    let signed = authority.sign("localhost");
    let tls = format!("{{ cert = '{}', key = '{}' }}", signed.cert.display(), signed.key.display());
    let settings = [LIMITS, SEND_TIMEOUT, ("KOREGATE__SERVER__TLS", &tls)];
    let target = Target::start(&simulator.base_url(), &settings, None).await;
    let (addr, request) = (target.addr, long(0).wire(target.addr));
    let client = ClientConnection::new(Arc::new(authority.client(None)), "localhost".try_into().unwrap()).unwrap();
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = StreamOwned::new(client, std::net::TcpStream::connect(addr).unwrap());
        stream.write_all(&request).unwrap();
        stream.flush().unwrap();
        stream
    });
    let _open = sent.await.unwrap();
    target.until_metric(CUT, BY_SEND_TIMEOUT, 1).await;
    target.assert_held();
}

#[tokio::test]
async fn answers_of_stuck_readers_hold_bounded_memory() {
    let simulator = simulator(12).await;
    let target = Target::start(&simulator.base_url(), &[LIMITS], None).await;
    let (client, mut open, mut refused) = (Client::default(), Vec::new(), 0);
    for nth in 0..12 {
        let answer = client.send(target.addr, &long(nth)).await.unwrap();
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("10"));
            refused += 1;
        } else {
            // Now it is all in memory, from which the next ones push it out.
            open.push(stick(&target, &long(nth)).await);
        }
    }
    assert!((1..8).contains(&refused), "{refused} were refused");
    let short = Ask::get(SHORT).stream(&stream(0));
    assert_eq!(client.send(target.addr, &short).await.unwrap().page().items().len(), 250);
    let before = target.resident();
    drop(open);
    until("what was held is free", || target.resident() + 10 * MB < before).await;
    target.assert_held();
}

#[tokio::test]
async fn longest_stuck_readers_are_cut_when_there_are_too_many() {
    let simulator = simulator(1).await;
    let target = Target::start(&simulator.base_url(), &[LIMITS, ("KOREGATE__SERVER__SEND_MEMORY", "4MiB")], None).await;
    let client = Client::default();
    assert_eq!(client.send(target.addr, &long(0)).await.unwrap().status, 200);
    let mut open = Vec::new();
    for nth in 0..100 {
        // Each begins elsewhere, so that none shares what it holds with another.
        let (day, hour) = (7 + nth % 15, nth / 15 % 24);
        let window = format!("from=2026-02-{day:02}-{hour:02}:00:00&to=2026-02-{:02}", day + 2);
        let ask = Ask::get(window).stream(&stream(0));
        open.push(stick(&target, &ask).await);
    }
    target.until_metric(CUT, "limit=\"send_memory\"", 50).await;
    // One that reads is not among them.
    assert_eq!(client.send(target.addr, &long(0)).await.unwrap().page().items().len(), 4750);
    target.assert_held();
}
