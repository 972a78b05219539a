//! Attacks by an upstream with malformed or endless pages.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use super::monitored_gateway::{MonitoredGateway, UNLIMITED};
use crate::support::{HttpClient, SETTLED_DAY, TestRequest, until};

/// An upstream that answers each request with the body that `page` returns for its offset.
struct Upstream {
    base_url: String,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    fn start(page: impl Fn(usize) -> String + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::<AtomicUsize>::default();
        let counted = calls.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (page, counted) = (page.clone(), counted.clone());
                std::thread::spawn(move || answer_all(connection, page, &counted));
            }
        });
        Self { base_url, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Answers the requests of one connection. The body of a request has no line break, so it is read as the beginning of
/// the next request line, of which only the offset matters.
fn answer_all(connection: TcpStream, page: impl Fn(usize) -> String, calls: &AtomicUsize) {
    let mut reader = BufReader::new(connection);
    let (mut offset, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        if let Some((_, rest)) = String::from_utf8_lossy(&line).split_once("offset=") {
            offset = rest.split(['&', ' ']).next().unwrap().parse().unwrap();
        }
        if line == b"\r\n" {
            calls.fetch_add(1, Ordering::Relaxed);
            let body = page(offset);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if reader.get_mut().write_all((head + &body).as_bytes()).is_err() {
                return;
            }
            offset = 0;
        }
        line.clear();
    }
}

/// A hundred items from `offset` on, all of one day and a millisecond apart, with more to follow.
fn endless(offset: usize) -> String {
    let start: Timestamp = "2026-02-23T00:00:00Z".parse().unwrap();
    let item = |n: usize| {
        let at = Timestamp::from_millisecond(start.as_millisecond() + i64::try_from(n).unwrap()).unwrap();
        format!(r#"{{"segmentID":"ac-{n:09}","segmentStartTime":"{at}","pad":"{n:2000}"}}"#)
    };
    let items: Vec<_> = (offset..offset + 100).map(item).collect();
    format!(r#"{{"numResults":100,"hasMore":true,"data":[{}]}}"#, items.join(","))
}

#[tokio::test]
async fn endless_pages_take_bounded_memory() {
    let upstream = Upstream::start(endless);
    let gateway = MonitoredGateway::start(&upstream.base_url, &[UNLIMITED]).await;
    let (addr, client) = (gateway.addr(), HttpClient::default());
    let pending = tokio::spawn(async move { client.send(addr, &TestRequest::get(SETTLED_DAY)).await });
    // More than 30 MB of pages.
    until("many pages", || upstream.calls() > 160).await;
    pending.abort();
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn endless_uncut_window_error_names_limit() {
    // Items without timestamps cannot be cut.
    let upstream = Upstream::start(|offset| endless(offset).replace("segmentStartTime", "at"));
    let gateway = MonitoredGateway::start(&upstream.base_url, &[UNLIMITED]).await;
    let response = gateway.send(&TestRequest::get(SETTLED_DAY)).await;
    assert_eq!(response.status, 502);
    let limit = (32 << 20).to_string();
    assert!(response.text().contains(&limit), "{}", response.text());
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn oversized_or_padded_pages_take_bounded_memory() {
    for page in [
        format!(r#"{{"hasMore":false,"data":[{}{{}}]}}"#, "{},".repeat(10_000_000)),
        format!(r#"{{"hasMore":false,"data":[{{}}{}]}}"#, " ".repeat(40 << 20)),
    ] {
        let page: Arc<str> = page.into();
        let upstream = Upstream::start(move |_| page.to_string());
        let gateway = MonitoredGateway::start(&upstream.base_url, &[UNLIMITED]).await;
        let response = gateway.send(&TestRequest::get(SETTLED_DAY)).await;
        assert_eq!(response.status, 502, "{}", response.text());
        gateway.assert_alive_within_bounds();
    }
}
