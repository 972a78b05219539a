//! Long windows that are streamed, from an upstream whose calls are granted one by one.

use std::future::poll_fn;
use std::sync::Mutex;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;
use crate::paging::PagingLayer;
use crate::upstream::{Page, PageRequest};
use crate::window::Bound;

/// The first row, at the beginning of an hour.
const FIRST: i64 = -1_442_800;
/// Seconds between rows.
const MINUTE: i64 = 60;
const ROWS: i64 = 5_950;
/// Pages of all rows.
const PAGES: usize = 60;
/// Calls of all runs: the first one has two pages, of which the second is not full; the others have some forty.
const CALLS: usize = PAGES + 2;

/// A cache in front of an upstream that answers as many calls as a test grants.
struct StreamHarness {
    stage: CacheStage,
    rows: Arc<Mutex<Vec<(Timestamp, Bytes)>>>,
    calls: Arc<Semaphore>,
}

impl StreamHarness {
    fn new(memory: u64) -> Self {
        let (settings, _, cache) = layer(memory, Vec::new());
        let there = Arc::new(Mutex::new((0..ROWS).map(|n| row(FIRST + n * MINUTE)).collect::<Vec<_>>()));
        let calls = Arc::new(Semaphore::new(0));
        let below = service_fn({
            let (rows, calls) = (there.clone(), calls.clone());
            move |request: PageRequest| {
                let (rows, calls) = (rows.clone(), calls.clone());
                async move {
                    assert!(request.waiters.begin(Duration::ZERO), "the run was abandoned");
                    let _calling = request.waiters.calling();
                    calls.acquire().await.unwrap().forget();
                    Ok::<_, QuotaError>(answer(&rows.lock().unwrap(), &request))
                }
            }
        });
        let paging = PagingLayer::new(&settings, &RunLimiters::default(), &cache.clock).layer(below);
        Self { stage: cache.layer(paging), rows: there, calls }
    }

    /// Requests these rows.
    async fn request(&self, start: i64, end: i64) -> WindowAnswer {
        self.request_series(series(), start, end).await
    }

    /// Requests these rows of a series.
    async fn request_series(&self, series: Series, start: i64, end: i64) -> WindowAnswer {
        let interval = interval(FIRST + start * MINUTE, FIRST + end * MINUTE);
        let query = query(series, interval, Requester::anyone());
        self.stage.clone().oneshot(query).await.unwrap()
    }

    /// Grants calls and waits until nothing happens any more; returns how many calls were made.
    async fn grant_calls(&self, calls: usize) -> usize {
        self.calls.add_permits(calls);
        sleep(Duration::from_secs(1)).await;
        calls - self.calls.forget_permits(calls)
    }

    fn truth(&self) -> Vec<Bytes> {
        self.rows.lock().unwrap().iter().map(|(_, json)| json.clone()).collect()
    }
}

/// A row of three kilobytes that deflates to half of that.
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

/// Reads a streamed answer to its end; returns its items and the calls that it reports.
async fn read(answer: WindowAnswer) -> (Vec<Bytes>, Result<u32, CacheError>) {
    let (mut rest, mut items) = (answer.rest.expect("a streamed answer"), Vec::new());
    loop {
        match poll_fn(|context| rest.poll_next(context)).await {
            Some(Ok(StreamEvent::Slice(slice))) => items.extend(slice.chunk.read(slice.rows).map(|row| row.unwrap().1)),
            Some(Ok(StreamEvent::End)) => return (items, Ok(rest.settle_calls())),
            Some(Err(error)) => return (items, Err(error)),
            None => panic!("the stream ended early"),
        }
    }
}

/// Starts a stream while the upstream answers so many calls.
async fn begin(harness: &StreamHarness, calls: usize) -> WindowAnswer {
    let (answer, made) = tokio::join!(harness.request(0, ROWS), harness.grant_calls(calls));
    assert_eq!(made, calls);
    answer
}

#[tokio::test(start_paused = true)]
async fn stream_costs_its_pages_and_one_call_a_run() {
    let harness = StreamHarness::new(1 << 30);
    let reading = tokio::spawn(read(begin(&harness, 20).await));
    let first = harness.request(0, 100).await;
    assert_eq!((first.outcome, first.items.count), (Outcome::Hit, 100), "fetched data is stored");
    let made = 20 + harness.grant_calls(1_000).await;
    assert!(made <= CALLS, "{made} calls");
    let (items, reported) = reading.await.unwrap();
    assert_eq!((items == harness.truth(), reported.unwrap() as usize), (true, made));
    let again = harness.request(0, ROWS).await;
    assert_eq!((again.outcome, again.items.count), (Outcome::Hit, harness.truth().len() as u64));
}

#[tokio::test(start_paused = true)]
async fn concurrent_streams_share_their_runs() {
    let harness = StreamHarness::new(1 << 30);
    let first = begin(&harness, 20).await;
    let (second, _) = tokio::join!(harness.request(500, ROWS), harness.grant_calls(1_000));
    let reading = [tokio::spawn(read(first)), tokio::spawn(read(second))];
    harness.grant_calls(1_000).await;
    let mut reported = 0;
    for (reading, from) in reading.into_iter().zip([0, 500]) {
        let (items, calls) = reading.await.unwrap();
        assert_eq!(items, harness.truth()[from..]);
        reported += calls.unwrap();
    }
    assert!(reported as usize <= CALLS + 1, "{reported} calls reported");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_delays_the_next_run() {
    let harness = StreamHarness::new(1 << 10);
    let slow = begin(&harness, 2).await;
    let made = 2 + harness.grant_calls(1_000).await;
    assert!(made < PAGES, "{made} calls");
    let (read, more) = tokio::join!(read(slow), harness.grant_calls(1_000));
    assert_eq!((read.0 == harness.truth(), read.1.unwrap() as usize), (true, made + more));
    assert!(made + more <= CALLS, "nothing is fetched twice, though memory has no room: {}", made + more);
}

#[tokio::test(start_paused = true)]
async fn row_inserted_during_a_stream_leaves_the_answer_complete() {
    let harness = StreamHarness::new(1 << 30);
    let reading = tokio::spawn(read(begin(&harness, 12).await));
    harness.rows.lock().unwrap().insert(300, row(FIRST + 299 * MINUTE + 1));
    harness.grant_calls(1_000).await;
    let (items, reported) = reading.await.unwrap();
    assert!(reported.is_ok() && items == harness.truth(), "{reported:?}");
}

#[tokio::test(start_paused = true)]
async fn purge_during_a_stream_refetches_unsent_data() {
    let harness = StreamHarness::new(1 << 30);
    let slow = begin(&harness, 20).await;
    harness.grant_calls(1_000).await;
    let purged = interval(FIRST, FIRST + ROWS * MINUTE);
    let epoch = harness
        .stage
        .0
        .purges
        .purge(Purge { account: "a".into(), stream: None, interval: purged, ids: None })
        .await
        .epoch;
    let mut rest = slow.rest.unwrap();
    let mut chunks = Vec::new();
    harness.calls.add_permits(1_000);
    while let Some(Ok(StreamEvent::Slice(slice))) = poll_fn(|context| rest.poll_next(context)).await {
        chunks.push(slice.chunk);
    }
    let old = chunks.iter().filter(|chunk| chunk.epoch() < epoch).count();
    // Slices that were handed to the client's side before the purge.
    assert!(old <= 4, "{old} of {} chunks", chunks.len());
}
