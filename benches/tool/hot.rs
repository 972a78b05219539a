//! What a warm koregate does again and again, one operation after the other, to be run under callgrind.
//!
//! Each operation goes through [`measured`], and callgrind is told to begin and end a count there. So what comes between,
//! such as filling the cache, is not counted, and all operations share it. A whole answer goes through koregate's own
//! listener over a socket: what the kernel does for it, and what no instruction shows, `benches/peers` measures.

use std::hint::black_box;

use bytes::Bytes;
use koregate::cache::{Chunk, Settled};
use koregate::paging::Item;
use koregate::upstream::Page;
use koregate::window::{Interval, Timestamp};
use koregate_simulator::{ItemFilter, StreamProfile};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::drain::{Answer, send};
use super::rig::{DAY, Rig, date, path};

/// 1,700 items a day, as a busy stream has them.
const DENSE: &str = "dense";
const DENSE_ITEMS: u32 = 1_700;
/// One item an hour, so that a year of it fits: what is compared here is the length of windows.
const SPARSE: &str = "sparse";
const SPARSE_ITEMS: u32 = 24;
/// What was asked for so often is ready.
const OFTEN: u32 = 5;
const WINDOWS: [u32; 4] = [1, 7, 30, 366];

/// Runs `operation` so many times, between the two marks that callgrind looks for.
fn measured(times: u32, operation: &mut dyn FnMut()) {
    count_begins();
    for _ in 0..times {
        operation();
    }
    count_ends();
}

/// Two functions that are the same would become one, and then have one name only.
#[inline(never)]
fn count_begins() {
    black_box("begins");
}

#[inline(never)]
fn count_ends() {
    black_box("ends");
}

/// Runs everything, and prints a line of JSON for each operation, in order: its name, and how many times it was run.
pub(crate) fn run() -> anyhow::Result<()> {
    let now = Timestamp::from("2026-02-25T12:34:56.789Z".parse::<jiff::Timestamp>()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dense = StreamProfile { exact: true, days: Some(4), ..StreamProfile::new(DENSE, DENSE_ITEMS) };
    let sparse = StreamProfile { exact: true, flat: true, ..StreamProfile::new(SPARSE, SPARSE_ITEMS) };
    let rig = runtime.block_on(Rig::start(vec![dense, sparse], 369, now))?;
    let last = now - DAY * 2;
    let day = date(last);

    pure(&rig, last);

    let mut caller = Caller::new(&runtime, &rig)?;
    caller.ask(&path(DENSE, &day, &day, "&limit=0"), "identity");
    let middle = path(DENSE, &day, &day, &format!("&offset={}", DENSE_ITEMS / 2));
    for (what, coding, size, times) in [
        ("page-of-1", "identity", 1, 50),
        ("page-of-1/gzip", "gzip", 1, 50),
        ("page-of-100", "identity", 100, 10),
        ("page-of-100/gzip", "gzip", 100, 10),
    ] {
        let (name, page) = (format!("dense-day/{what}"), format!("{middle}&limit={size}"));
        caller.measure(&name, times, &page, coding);
        caller.measure_again(&name, times, &page, coding);
    }

    for days in WINDOWS.into_iter().rev() {
        let window = path(SPARSE, &date(last - DAY * (days - 1)), &day, "");
        // The longest one fills the cache for all.
        caller.ask(&format!("{window}&limit=0"), "identity");
        let items = days * SPARSE_ITEMS;
        let name = |what: &str| format!("{days}-days/{what}");
        caller.measure(&name("plan"), 20, &format!("{window}&limit=0"), "identity");
        for (what, offset) in [("begin", 0), ("middle", items / 2), ("end", items - 1)] {
            let page = format!("{window}&limit=1&offset={offset}");
            caller.measure(&name(&format!("page-of-1/{what}")), 20, &page, "identity");
        }
        let times = if days > 30 { 1 } else { 5 };
        caller.measure(&name("whole"), times, &window, "identity");
        caller.measure(&name("whole/gzip"), times, &window, "gzip");
    }
    Ok(())
}

/// What has no HTTP face of its own: work on what the upstream sent.
fn pure(rig: &Rig, day: Timestamp) {
    let span = Interval::new(day - DAY, day);
    let items = rig.control.expected_until(DENSE, span.start, span.end, false, &ItemFilter::default());
    let page: Vec<&[u8]> = items.iter().take(100).map(|(_, json)| json.as_slice()).collect();
    let body = [br#"{"numResults":100,"hasMore":true,"data":["#, &*page.join(&b','), b"]}"].concat();
    let body = Bytes::from(body);
    let read = |body: &Bytes| -> Vec<Item> {
        let page = Page::parse(body).expect("it is a page");
        let item = |json: &Bytes| {
            let (at, id) = Item::read(json, "segmentStartTime");
            Item { at: at.expect("it has a timestamp"), id, json: json.clone() }
        };
        page.items.iter().map(item).collect()
    };
    tell("upstream/read-page-of-100", 10);
    measured(10, &mut || drop(black_box(read(&body))));

    let items = read(&body);
    tell("chunk/build-of-100", 5);
    measured(5, &mut || drop(black_box(Chunk::new(span, span.end, Settled::Yes, &items))));
}

fn tell(name: &str, times: u32) {
    println!("{}", serde_json::json!({ "name": name, "times": times }));
}

/// Asks koregate over one connection that stays open.
struct Caller<'a> {
    runtime: &'a Runtime,
    stream: TcpStream,
    answer: Answer,
    asked: u64,
}

impl<'a> Caller<'a> {
    fn new(runtime: &'a Runtime, rig: &Rig) -> anyhow::Result<Self> {
        let stream = runtime.block_on(TcpStream::connect(rig.addr()))?;
        stream.set_nodelay(true)?;
        Ok(Self { runtime, stream, answer: Answer::default(), asked: 0 })
    }

    /// Asks for what nobody has asked for before: each request names another answer that it has already.
    fn ask(&mut self, path: &str, coding: &str) {
        self.asked += 1;
        self.send(path, coding, &format!("if-none-match: \"{}\"\r\n", self.asked));
    }

    fn ask_again(&mut self, path: &str, coding: &str) {
        self.send(path, coding, "");
    }

    fn send(&mut self, path: &str, coding: &str, more: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept-encoding: {coding}\r\n{more}\r\n");
        let Self { runtime, stream, answer, .. } = self;
        let answered = runtime.block_on(async {
            send(stream, request.as_bytes()).await?;
            answer.pass(stream).await
        });
        answered.unwrap_or_else(|error| panic!("{path}: {error:#}"));
    }

    fn measure(&mut self, name: &str, times: u32, path: &str, coding: &str) {
        // Once before, so that nothing is done for the first time.
        self.ask(path, coding);
        tell(name, times);
        measured(times, &mut || self.ask(path, coding));
    }

    /// Of an answer that is ready, as the same was given before.
    fn measure_again(&mut self, name: &str, times: u32, path: &str, coding: &str) {
        (0..OFTEN).for_each(|_| self.ask_again(path, coding));
        tell(&format!("{name}/again"), times);
        measured(times, &mut || self.ask_again(path, coding));
    }
}
