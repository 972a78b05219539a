//! Attacks by an upstream whose pages are not what pages are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use crate::support::attack::Target;
use crate::support::{Ask, Client, until};

const LIMITS: (&str, &str) = ("KOREGATE__ACCOUNTS__0__QUOTA", "{ limits = [{ requests = 1000000, per = '1m' }] }");
const DAY: &str = "from=2026-02-23&to=2026-02-23";

/// An upstream that answers each request with the body that `page` gives for its offset.
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

/// Answers one request after the other. The body of a request has no line's end, so it reads as the beginning of the next
/// request's first line, of which only the offset matters.
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

/// A hundred items behind `offset`, all of one day, a millisecond apart; more are promised.
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
async fn pages_without_end_take_bounded_memory() {
    let upstream = Upstream::start(endless);
    let target = Target::start(&upstream.base_url, &[LIMITS], None).await;
    let (addr, client) = (target.addr, Client::default());
    let asking = tokio::spawn(async move { client.send(addr, &Ask::get(DAY)).await });
    // More than 30 MB as they came.
    until("many pages have come", || upstream.calls() > 160).await;
    asking.abort();
    target.assert_held();
}

#[tokio::test]
async fn whole_window_without_end_is_an_error_that_names_its_limit() {
    // Without timestamps, nothing can be cut.
    let upstream = Upstream::start(|offset| endless(offset).replace("segmentStartTime", "at"));
    let target = Target::start(&upstream.base_url, &[LIMITS], None).await;
    let answer = Client::default().send(target.addr, &Ask::get(DAY)).await.unwrap();
    assert_eq!(answer.status, 502);
    let limit = (32 << 20).to_string();
    assert!(answer.text().contains(&limit), "{}", answer.text());
    target.assert_held();
}

#[tokio::test]
async fn pages_of_too_many_items_or_mostly_padding_take_bounded_memory() {
    for page in [
        format!(r#"{{"hasMore":false,"data":[{}{{}}]}}"#, "{},".repeat(10_000_000)),
        format!(r#"{{"hasMore":false,"data":[{{}}{}]}}"#, " ".repeat(40 << 20)),
    ] {
        let page: Arc<str> = page.into();
        let upstream = Upstream::start(move |_| page.to_string());
        let target = Target::start(&upstream.base_url, &[LIMITS], None).await;
        let answer = Client::default().send(target.addr, &Ask::get(DAY)).await.unwrap();
        assert_eq!(answer.status, 502, "{}", answer.text());
        target.assert_held();
    }
}
