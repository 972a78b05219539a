//! Long windows that are streamed, from an upstream that can be stopped.

use std::future::poll_fn;
use std::sync::Mutex;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;
use crate::paging::PagingLayer;
use crate::upstream::{Page, PageRequest};
use crate::window::Bound;

/// The first row, on the line of an hour.
const FIRST: i64 = -1_442_800;
/// One each minute.
const MINUTE: i64 = 60;
const ROWS: i64 = 5_950;
/// The pages of all of them.
const PAGES: usize = 60;
/// The first run is of two pages, of which the second is not full; each other one of some forty.
const CALLS: usize = PAGES + 2;

/// A cache in front of an upstream that answers only so many calls.
struct Line {
    stage: CacheStage,
    rows: Arc<Mutex<Vec<(Timestamp, Bytes)>>>,
    calls: Arc<Semaphore>,
}

impl Line {
    fn new(memory: u64) -> Self {
        let (window, _, cache) = layer(memory, Vec::new());
        let there = Arc::new(Mutex::new((0..ROWS).map(|n| row(FIRST + n * MINUTE)).collect::<Vec<_>>()));
        let calls = Arc::new(Semaphore::new(0));
        let below = service_fn({
            let (rows, calls) = (there.clone(), calls.clone());
            move |request: PageRequest| {
                let (rows, calls) = (rows.clone(), calls.clone());
                async move {
                    assert!(request.demand.begin(Duration::ZERO), "nobody wants it");
                    let _calling = request.demand.calling();
                    calls.acquire().await.unwrap().forget();
                    Ok::<_, QuotaError>(answer(&rows.lock().unwrap(), &request))
                }
            }
        });
        let repage = PagingLayer::new(&window, &RunLimiters::default(), &cache.clock).layer(below);
        Self { stage: cache.layer(repage), rows: there, calls }
    }

    /// Whoever asks for these rows.
    async fn ask(&self, start: i64, end: i64) -> WindowAnswer {
        self.ask_for(series(), start, end).await
    }

    /// The same for another series.
    async fn ask_for(&self, series: Series, start: i64, end: i64) -> WindowAnswer {
        let interval = interval(FIRST + start * MINUTE, FIRST + end * MINUTE);
        let (page_range, asker) = (PageRange::ALL, Requester::anyone());
        let query =
            WindowQuery { series: series.into(), interval, page_range, asked_at: at(5_000), asker, may_stream: true };
        self.stage.clone().oneshot(query).await.unwrap()
    }

    /// Lets the upstream answer so many calls, and waits until there is nothing more to do; gives how many it made of
    /// them.
    async fn allow(&self, calls: usize) -> usize {
        self.calls.add_permits(calls);
        sleep(Duration::from_secs(1)).await;
        calls - self.calls.forget_permits(calls)
    }

    fn truth(&self) -> Vec<Bytes> {
        self.rows.lock().unwrap().iter().map(|(_, json)| json.clone()).collect()
    }
}

/// A row that deflates to half of its three kilobytes.
fn row(second: i64) -> (Timestamp, Bytes) {
    let mut noise = fastrand::Rng::with_seed(second.unsigned_abs());
    let noise: String = (0..3_000).map(|_| char::from_digit(noise.u32(..16), 16).unwrap()).collect();
    let (at, id) = (at(second), second.unsigned_abs());
    (at, format!(r#"{{"segmentID":"{id}","segmentStartTime":"{at}","noise":"{noise}"}}"#).into())
}

fn answer(rows: &[(Timestamp, Bytes)], request: &PageRequest) -> Page {
    let asked = UpperBound::Exclusive.enclosed(Bound::Second(request.bounds.from), request.bounds.to);
    let asked = rows.iter().filter(|(at, _)| asked.contains(*at)).map(|(_, json)| json.clone());
    let offset = usize::try_from(request.offset).unwrap();
    let mut items: Vec<Bytes> = asked.skip(offset).take(request.limit as usize + 1).collect();
    let has_more = items.len() > request.limit as usize;
    items.truncate(request.limit as usize);
    Page { items, has_more, allowance: None }
}

/// Reads a streamed answer to its end: what it holds, and the calls that it tells of.
async fn read(answer: WindowAnswer) -> (Vec<Bytes>, Result<u32, CacheError>) {
    let (mut rest, mut items) = (answer.rest.expect("it is streamed"), Vec::new());
    loop {
        match poll_fn(|context| rest.poll_next(context)).await {
            Some(Ok(StreamEvent::Slice(slice))) => items.extend(slice.chunk.read(slice.rows).map(|row| row.unwrap().1)),
            Some(Ok(StreamEvent::End)) => return (items, Ok(rest.settle_calls())),
            Some(Err(error)) => return (items, Err(error)),
            None => panic!("it ends without an end"),
        }
    }
}

/// Lets a stream come while its upstream answers.
async fn begin(line: &Line, calls: usize) -> WindowAnswer {
    let (answer, made) = tokio::join!(line.ask(0, ROWS), line.allow(calls));
    assert_eq!(made, calls);
    answer
}

#[tokio::test(start_paused = true)]
async fn stream_costs_its_pages_and_a_call_for_each_further_run() {
    let line = Line::new(1 << 30);
    let reading = tokio::spawn(read(begin(&line, 20).await));
    let first = line.ask(0, 100).await;
    assert_eq!((first.outcome, first.items.count), (Outcome::Hit, 100), "what has landed is kept");
    let made = 20 + line.allow(1_000).await;
    assert!(made <= CALLS, "{made} calls");
    let (items, told) = reading.await.unwrap();
    assert_eq!((items == line.truth(), told.unwrap() as usize), (true, made));
    let again = line.ask(0, ROWS).await;
    assert_eq!((again.outcome, again.items.count), (Outcome::Hit, line.truth().len() as u64));
}

#[tokio::test(start_paused = true)]
async fn stream_beside_another_one_shares_its_runs() {
    let line = Line::new(1 << 30);
    let first = begin(&line, 20).await;
    let (second, _) = tokio::join!(line.ask(500, ROWS), line.allow(1_000));
    let reading = [tokio::spawn(read(first)), tokio::spawn(read(second))];
    let made = 20 + line.allow(1_000).await;
    let mut told = 0;
    for (reading, from) in reading.into_iter().zip([0, 500]) {
        let (items, calls) = reading.await.unwrap();
        assert_eq!(items, line.truth()[from..]);
        told += calls.unwrap();
    }
    assert!(told as usize <= CALLS + 1, "{told} calls told");
    let _ = made;
}

#[tokio::test(start_paused = true)]
async fn slow_reader_holds_up_the_next_run() {
    let line = Line::new(1 << 10);
    let slow = begin(&line, 2).await;
    let made = 2 + line.allow(1_000).await;
    assert!(made < PAGES, "{made} calls");
    let (read, more) = tokio::join!(read(slow), line.allow(1_000));
    assert_eq!((read.0 == line.truth(), read.1.unwrap() as usize), (true, made + more));
    assert!(made + more <= CALLS, "nothing is fetched twice, though memory has no room: {}", made + more);
}

#[tokio::test(start_paused = true)]
async fn row_that_arrives_tears_one_run_and_the_answer_is_whole() {
    let line = Line::new(1 << 30);
    let reading = tokio::spawn(read(begin(&line, 12).await));
    line.rows.lock().unwrap().insert(300, row(FIRST + 299 * MINUTE + 1));
    line.allow(1_000).await;
    let (items, told) = reading.await.unwrap();
    assert!(told.is_ok() && items == line.truth(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn purge_during_a_stream_refetches_what_was_not_sent() {
    let line = Line::new(1 << 30);
    let slow = begin(&line, 20).await;
    line.allow(1_000).await;
    let purged = interval(FIRST, FIRST + ROWS * MINUTE);
    let epoch = line.stage.0.purges.purge(Purge { account: "a".into(), stream: None, interval: purged }).await.epoch;
    let mut rest = slow.rest.unwrap();
    let mut chunks = Vec::new();
    line.calls.add_permits(1_000);
    while let Some(Ok(StreamEvent::Slice(slice))) = poll_fn(|context| rest.poll_next(context)).await {
        chunks.push(slice.chunk);
    }
    let old = chunks.iter().filter(|chunk| chunk.epoch() < epoch).count();
    // What had been handed to the caller's side before.
    assert!(old <= 4, "{old} of {} chunks", chunks.len());
}
