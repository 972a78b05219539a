//! Whoever waits gets what it waits for, however runs are handed over, parted and left. The runs are played by hand.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::repage::{Delivery, Item, Stretch};
use crate::upstream::{Class, Filter};
use crate::window::UpperBound;

/// A second of the day that is still open.
fn at(second: i64) -> Moment {
    Moment::from_seconds(1_000_000_000 + second)
}

fn span(start: i64, end: i64) -> Span {
    Span::new(at(start), at(end))
}

/// A run that a test plays.
struct Played {
    run: Run,
    end: oneshot::Sender<Result<(), RepageError>>,
}

impl Played {
    fn span(&self) -> (i64, i64) {
        (self.run.span.start.as_seconds() - at(0).as_seconds(), self.run.span.end.as_seconds() - at(0).as_seconds())
    }

    /// Makes the first call.
    fn begin(&self) {
        self.call();
        self.run.deliver.send(Delivery::Begun).unwrap();
    }

    fn call(&self) {
        assert!(self.run.demand.begin(Duration::ZERO), "nobody wants it");
    }

    /// Brings an item a second.
    fn bring(&self, start: i64, end: i64) {
        let items = (start..end).map(|second| {
            let name = format!("{second}");
            Item { at: at(second), id: name.clone().into(), json: format!("{{\"n\":{name}}}").into() }
        });
        let stretch = Stretch { span: span(start, end), items: items.collect(), fetched_at: at(5_000) };
        self.run.deliver.send(Delivery::Stretch(stretch)).unwrap();
    }

    fn part(&self, rest: (i64, i64), wanted: (i64, i64)) {
        let (rest, wanted) = (span(rest.0, rest.1), span(wanted.0, wanted.1));
        self.run.deliver.send(Delivery::Parted { rest, wanted }).unwrap();
    }

    fn end(self, result: Result<(), RepageError>) {
        let Self { run, end } = self;
        let _ = end.send(result);
        drop(run);
    }

    /// Begins, brings all of it, and ends.
    fn succeed(self) {
        self.begin();
        let (start, end) = self.span();
        self.bring(start, end);
        self.end(Ok(()));
    }
}

struct Rig {
    stage: CacheStage,
    runs: mpsc::UnboundedReceiver<Played>,
}

type Answering = JoinHandle<Result<WindowAnswer, CacheError>>;

impl Rig {
    /// A cache that keeps nothing of what is open: what is lost on its way is lost.
    fn new() -> Self {
        let window = config::Window {
            field: "segmentStartTime".into(),
            upper_bound: UpperBound::Exclusive,
            settle_after: Duration::from_hours(24),
            freshness: Vec::new(),
            chunk: Duration::from_hours(1),
            max_span: Duration::MAX,
        };
        let cache = config::Cache { memory: 1 << 30, redis: None };
        let quota =
            config::Quota { queue_timeout: Duration::from_secs(30), interactive_reserve: 0.0, state_file: None };
        let (send, runs) = mpsc::unbounded_channel();
        let below = service_fn(move |run: Run| {
            let (end, ended) = oneshot::channel();
            let sent = send.send(Played { run, end });
            async move {
                sent.ok();
                ended.await.unwrap_or(Err(RepageError::Torn))
            }
        });
        let clock = Clock::manual(at(5_000));
        Self { stage: CacheLayer::new(&cache, &window, &quota, &clock).layer(below), runs }
    }

    /// Somebody asks; it waits by the time this returns.
    async fn ask(&self, start: i64, end: i64, class: Class) -> Answering {
        let series =
            Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false };
        let asker = Asker { class, ..Asker::anyone() };
        let query = WindowQuery { series: series.into(), span: span(start, end), asked_at: at(5_000), asker };
        let answering = tokio::spawn(self.stage.clone().oneshot(query));
        settle().await;
        answering
    }

    /// The next run that is asked for.
    async fn run(&mut self) -> Played {
        timeout(Duration::from_secs(1), self.runs.recv()).await.expect("a run").expect("a run")
    }

    async fn no_run(&mut self) {
        let run = timeout(Duration::from_secs(1), self.runs.recv()).await;
        assert!(run.is_err(), "one run too many: {:?}", run.unwrap().map(|played| played.span()));
    }
}

/// Lets every task go as far as it can without time going on.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What somebody is answered, who must not wait for anything any more.
async fn answered(answering: Answering) -> WindowAnswer {
    timeout(Duration::from_secs(1), answering).await.expect("it hangs").unwrap().unwrap()
}

/// The seconds whose items are in an answer.
fn seconds(answer: &WindowAnswer) -> Vec<i64> {
    let rows = answer.slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone()));
    let number = |json: Bytes| -> i64 { std::str::from_utf8(&json[5..json.len() - 1]).unwrap().parse().unwrap() };
    rows.map(|row| number(row.unwrap().1)).collect()
}

#[track_caller]
fn assert_whole(answer: &WindowAnswer, start: i64, end: i64) {
    assert!(seconds(answer).into_iter().eq(start..end), "{:?}", seconds(answer));
}

#[tokio::test(start_paused = true)]
async fn what_lands_while_more_is_being_gathered_is_not_asked_for_again() {
    let mut rig = Rig::new();
    let first = rig.ask(0, 100, Class::Interactive).await;
    let run = rig.run().await;
    run.begin();
    let second = rig.ask(0, 200, Class::Interactive).await;
    run.succeed();
    assert_whole(&answered(first).await, 0, 100);
    let run = rig.run().await;
    assert_eq!(run.span(), (100, 200));
    run.succeed();
    assert_whole(&answered(second).await, 0, 200);
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_over_while_another_flight_is_waited_for_is_not_asked_for_again() {
    let mut rig = Rig::new();
    let first = rig.ask(100, 200, Class::Interactive).await;
    let middle = rig.run().await;
    middle.begin();
    let all = rig.ask(0, 300, Class::Interactive).await;
    let run = rig.run().await;
    assert_eq!(run.span(), (0, 100));
    run.begin();
    run.bring(0, 30);
    run.bring(30, 60);
    run.bring(60, 100);
    run.end(Ok(()));
    rig.run().await.succeed();
    tokio::time::sleep(Duration::from_millis(1)).await;
    middle.bring(100, 200);
    middle.end(Ok(()));
    assert_whole(&answered(first).await, 100, 200);
    assert_whole(&answered(all).await, 0, 300);
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_parted_while_another_flight_is_waited_for_is_not_asked_for_again() {
    let mut rig = Rig::new();
    let first = rig.ask(100, 200, Class::Interactive).await;
    let middle = rig.run().await;
    middle.begin();
    let all = rig.ask(0, 300, Class::Interactive).await;
    let run = rig.run().await;
    run.begin();
    run.part((40, 100), (60, 70));
    run.bring(0, 40);
    run.end(Ok(()));
    for _ in 0..4 {
        rig.run().await.succeed();
        tokio::time::sleep(Duration::from_millis(1)).await;
        if rig.runs.is_empty() {
            break;
        }
    }
    middle.bring(100, 200);
    middle.end(Ok(()));
    assert_whole(&answered(first).await, 100, 200);
    assert_whole(&answered(all).await, 0, 300);
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_may_come_in_any_number_of_pieces() {
    let mut rig = Rig::new();
    let waiting = rig.ask(0, 1_200, Class::Interactive).await;
    let run = rig.run().await;
    run.begin();
    for piece in 0..1_200 {
        run.bring(piece, piece + 1);
        // Until whoever waits has seen it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.end(Ok(()));
    assert_whole(&answered(waiting).await, 0, 1_200);
    rig.no_run().await;
}
