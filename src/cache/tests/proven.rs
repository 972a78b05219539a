//! Long windows that are proven now and then while they are fetched, from an upstream that can be stopped.

use std::future::poll_fn;
use std::sync::Mutex;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;
use crate::repage::RepageLayer;
use crate::upstream::{Page, PageRequest};
use crate::window::Bound;

/// The first row, on the line of an hour.
const FIRST: i64 = -1_442_800;
/// One each minute.
const MINUTE: i64 = 60;
const ROWS: i64 = 5_950;
/// So many of them are proven at once; the last of them is fetched again then.
const EACH: usize = 1_000;
/// Of ten pages, and a call for the proof.
const CALLS_OF_EACH: usize = 11;
const CALLS: usize = 60 + 5;

/// A cache in front of an upstream that answers only so many calls.
struct Line {
    stage: CacheStage,
    rows: Arc<Mutex<Vec<(Moment, Bytes)>>>,
    calls: Arc<Semaphore>,
}

impl Line {
    fn new(memory: u64) -> Self {
        Self::proven_each(memory, EACH)
    }

    fn proven_each(memory: u64, rows: usize) -> Self {
        let (window, quota, cache) = layer(memory);
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
        let repage = RepageLayer::new(&[], &window, &quota, 8, &cache.clock).proving_each(rows).layer(below);
        Self { stage: cache.layer(repage), rows: there, calls }
    }

    /// Whoever asks for these rows.
    async fn ask(&self, start: i64, end: i64) -> WindowAnswer {
        self.ask_for(series(), start, end).await
    }

    /// The same for another series.
    async fn ask_for(&self, series: Series, start: i64, end: i64) -> WindowAnswer {
        let span = span(FIRST + start * MINUTE, FIRST + end * MINUTE);
        let (excerpt, asker) = (Excerpt::ALL, Asker::anyone());
        let query = WindowQuery { series: series.into(), span, excerpt, asked_at: at(5_000), asker, may_stream: true };
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
fn row(second: i64) -> (Moment, Bytes) {
    let mut noise = fastrand::Rng::with_seed(second.unsigned_abs());
    let noise: String = (0..3_000).map(|_| char::from_digit(noise.u32(..16), 16).unwrap()).collect();
    let (at, id) = (at(second), second.unsigned_abs());
    (at, format!(r#"{{"segmentID":"{id}","segmentStartTime":"{at}","noise":"{noise}"}}"#).into())
}

fn answer(rows: &[(Moment, Bytes)], request: &PageRequest) -> Page {
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
            Some(Ok(Streamed::Slice(slice))) => items.extend(slice.chunk.read(slice.rows).map(|row| row.unwrap().1)),
            Some(Ok(Streamed::End { calls })) => return (items, Ok(calls)),
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
async fn what_is_proven_is_kept_before_its_run_has_ended_and_costs_a_call_each_time() {
    let line = Line::new(1 << 30);
    let reading = tokio::spawn(read(begin(&line, 2 * CALLS_OF_EACH + 3).await));
    line.allow(0).await;
    let early = line.ask(0, 1_990).await;
    assert_eq!((early.outcome, early.items.count, early.rest.is_none()), (Outcome::Hit, 1_990, true));
    assert_eq!(line.allow(1_000).await, CALLS - 2 * CALLS_OF_EACH - 3);
    let (items, told) = reading.await.unwrap();
    assert_eq!((items == line.truth(), told.unwrap()), (true, u32::try_from(CALLS).unwrap()));
    let again = line.ask(0, ROWS).await;
    assert_eq!((again.outcome, again.items.count), (Outcome::Hit, line.truth().len() as u64));
}

#[tokio::test(start_paused = true)]
async fn one_who_comes_when_much_is_proven_is_answered_as_it_comes_too() {
    let line = Line::new(1 << 30);
    let first = begin(&line, CALLS_OF_EACH + 3).await;
    let second = timeout(Duration::from_secs(1), line.ask(500, ROWS)).await.expect("it waits for the end");
    let reading = [tokio::spawn(read(first)), tokio::spawn(read(second))];
    line.allow(1_000).await;
    let mut told = 0;
    for (reading, from) in reading.into_iter().zip([0, 500]) {
        let (items, calls) = reading.await.unwrap();
        assert_eq!(items, line.truth()[from..]);
        told += calls.unwrap();
    }
    assert_eq!(told, u32::try_from(CALLS).unwrap(), "calls are told of once");
}

/// What has been proven has landed, and is in nobody's way any more; but it is still to be sent.
#[tokio::test(start_paused = true)]
async fn one_who_is_slow_holds_up_the_walk_though_what_it_has_not_taken_is_proven() {
    let line = Line::new(1 << 10);
    let slow = begin(&line, CALLS_OF_EACH).await;
    let made = CALLS_OF_EACH + line.allow(1_000).await;
    assert!((2 * CALLS_OF_EACH..4 * CALLS_OF_EACH).contains(&made), "{made} calls");
    let (read, more) = tokio::join!(read(slow), line.allow(1_000));
    assert_eq!((read.0 == line.truth(), read.1.unwrap()), (true, u32::try_from(CALLS).unwrap()));
    assert_eq!(made + more, CALLS);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_arrives_breaks_off_what_is_not_proven_and_nothing_else() {
    let line = Line::new(1 << 30);
    let reading = tokio::spawn(read(begin(&line, 2 * CALLS_OF_EACH + 5).await));
    line.allow(0).await;
    let late = (2_100, row(FIRST + 2_099 * MINUTE + 1));
    line.rows.lock().unwrap().insert(late.0, late.1);
    let made = line.allow(1_000).await;
    let (items, told) = reading.await.unwrap();
    assert!(matches!(told, Err(CacheError::Repage(RepageError::Torn))), "{told:?}");
    assert!(items.len() > 2_000);
    // Five pages, one that told of it, and a call to see whether anything of them holds.
    assert_eq!(made + 2 * CALLS_OF_EACH + 5, CALLS + 7);
    let again = line.ask(0, ROWS).await;
    assert_eq!((again.outcome, again.items.count), (Outcome::Hit, line.truth().len() as u64));
}

/// What is still to come is not touched by it: whoever asks afterwards waits for that, and fetches the purged part anew.
#[tokio::test(start_paused = true)]
async fn what_is_purged_of_what_is_proven_is_fetched_again_and_nothing_else() {
    let line = Line::new(1 << 30);
    let first = tokio::spawn(read(begin(&line, 2 * CALLS_OF_EACH + 3).await));
    line.allow(0).await;
    // Nine hours of it.
    let span = span(FIRST, FIRST + 540 * MINUTE);
    line.stage.0.purges.purge(Purge { account: "a".into(), stream: None, span }).await;
    // By the time that it looks what has come of its own run, all of it has.
    let (second, made) = tokio::join!(line.ask(0, ROWS), line.allow(1_000));
    let (items, told) = first.await.unwrap();
    assert_eq!((items == line.truth(), second.items.count), (true, line.truth().len() as u64));
    assert_eq!(2 * CALLS_OF_EACH + 3 + made, CALLS + 6);
    assert_eq!(told.unwrap() + second.calls, u32::try_from(CALLS).unwrap() + 6, "calls are told of once");
}

/// What is rich serves those who want none as well, but only when it is there.
#[tokio::test(start_paused = true)]
async fn one_who_cannot_take_what_comes_as_it_comes_is_not_waited_for() {
    let line = Line::proven_each(1 << 30, usize::MAX);
    let rich = line.ask_for(Series { rich: true, ..series() }, 0, ROWS);
    let (rich, plain, _) = tokio::join!(rich, line.ask(0, ROWS), line.allow(3));
    let reading = [rich, plain].map(|answer| tokio::spawn(read(answer)));
    assert_eq!(line.allow(1_000).await, 60 - 3);
    for reading in reading {
        let (items, calls) = reading.await.unwrap();
        assert_eq!((items == line.truth(), calls.is_ok()), (true, true), "{calls:?}");
    }
}
