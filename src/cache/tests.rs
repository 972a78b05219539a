//! Whoever waits gets what it waits for, however runs are handed over, parted and left. The runs are played by hand.

mod patience;
mod proven;
mod purged;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::quota::QuotaError;
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

fn series() -> Series {
    Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false }
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

/// A cache with room for so many bytes at second 5,000, and the settings that it shares with the stages below.
fn layer(memory: u64) -> (config::Window, config::Quota, CacheLayer) {
    let window = config::Window {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Exclusive,
        settle_after: Duration::from_hours(24),
        freshness: Vec::new(),
        chunk: Duration::from_hours(1),
        max_span: Duration::MAX,
    };
    let cache = config::Cache { memory, redis: None };
    let quota = config::Quota { queue_timeout: Duration::from_secs(30), interactive_reserve: 0.0, state_file: None };
    let clock = Clock::manual(at(5_000));
    let quotas = Quotas::new(&[], &quota, 8, Duration::ZERO, &clock).unwrap();
    let layer = CacheLayer::new(&cache, None, &window, &quota, &quotas, &clock);
    (window, quota, layer)
}

struct Rig {
    stage: CacheStage,
    runs: mpsc::UnboundedReceiver<Played>,
}

type Answering = JoinHandle<Result<WindowAnswer, CacheError>>;

impl Rig {
    /// A cache that keeps nothing of what is open: what is lost on its way is lost.
    fn new() -> Self {
        let (.., cache) = layer(1 << 30);
        let (send, runs) = mpsc::unbounded_channel();
        let below = service_fn(move |run: Run| {
            let (end, ended) = oneshot::channel();
            let sent = send.send(Played { run, end });
            async move {
                sent.ok();
                ended.await.unwrap_or(Err(RepageError::Torn))
            }
        });
        Self { stage: cache.layer(below), runs }
    }

    /// Somebody asks; it waits by the time this returns.
    async fn ask(&self, start: i64, end: i64, class: Class) -> Answering {
        self.ask_of(series(), start, end, class).await
    }

    /// The same for another series.
    async fn ask_of(&self, series: Series, start: i64, end: i64, class: Class) -> Answering {
        let asker = Asker { class, ..Asker::anyone() };
        let (span, excerpt) = (span(start, end), Excerpt::ALL);
        let query = WindowQuery { series: series.into(), span, excerpt, asked_at: at(5_000), asker, may_stream: true };
        let answering = tokio::spawn(self.stage.clone().oneshot(query));
        settle().await;
        answering
    }

    /// Fails if anything is left of what has been asked for.
    fn assert_nothing_left(&self) {
        let shelf = self.stage.0.shelves.of(&series());
        let shelf = shelf.lock();
        assert!(shelf.flights.is_empty() && shelf.gathering.is_none(), "{:?}", shelf.flights);
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

/// Gives up waiting.
async fn hang_up(answering: Answering) {
    answering.abort();
    assert!(answering.await.is_err_and(|error| error.is_cancelled()), "it was answered before");
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
    let rows = answer.items.slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone()));
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

#[tokio::test(start_paused = true)]
async fn what_becomes_urgent_does_not_wait_behind_what_is_not() {
    let mut rig = Rig::new();
    let backfill = [(0, 100), (200, 400)];
    let mut waiting = Vec::new();
    for (start, end) in backfill {
        waiting.push(rig.ask(start, end, Class::Background).await);
    }
    let first = rig.run().await;
    assert_eq!(first.span(), (0, 100), "the shortest flies ahead, and waits for its turn");
    rig.no_run().await;
    let urgent = rig.ask(200, 400, Class::Interactive).await;
    let run = rig.run().await;
    assert_eq!(run.span(), (200, 400));
    run.succeed();
    assert_whole(&answered(urgent).await, 200, 400);
    first.succeed();
    for (answering, (start, end)) in waiting.into_iter().zip(backfill) {
        assert_whole(&answered(answering).await, start, end);
    }
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn only_one_flies_ahead_though_others_have_been_left_before_they_began() {
    let mut rig = Rig::new();
    let left = rig.ask(0, 10, Class::Interactive).await;
    let mut waiting = Vec::new();
    for start in [100, 200, 300] {
        waiting.push((start, rig.ask(start, start + start / 10, Class::Interactive).await));
    }
    let first = rig.run().await;
    hang_up(left).await;
    assert!(first.run.demand.is_abandoned());
    first.end(Err(RepageError::Quota(QuotaError::Unwanted)));
    let second = rig.run().await;
    rig.no_run().await;
    second.begin();
    let (third, fourth) = (rig.run().await, rig.run().await);
    for run in [second, third, fourth] {
        run.succeed();
    }
    for (start, answering) in waiting {
        assert_whole(&answered(answering).await, start, start + start / 10);
    }
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn one_who_comes_when_the_last_has_just_left_is_not_left_alone() {
    let mut rig = Rig::new();
    let first = rig.ask(0, 100, Class::Interactive).await;
    let run = rig.run().await;
    hang_up(first).await;
    let second = rig.ask(0, 100, Class::Interactive).await;
    // Both are on the shelf for a while.
    let next = rig.run().await;
    run.end(Err(RepageError::Quota(QuotaError::Unwanted)));
    next.succeed();
    assert_whole(&answered(second).await, 0, 100);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_while_it_is_gathered_costs_nothing() {
    let mut rig = Rig::new();
    let (left, stays) = (rig.ask(0, 100, Class::Interactive).await, rig.ask(200, 300, Class::Interactive).await);
    hang_up(left).await;
    let run = rig.run().await;
    assert_eq!(run.span(), (200, 300));
    run.succeed();
    assert_whole(&answered(stays).await, 200, 300);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn if_one_of_two_leaves_the_other_is_served_by_the_same_run() {
    let mut rig = Rig::new();
    let leaves = rig.ask(0, 100, Class::Interactive).await;
    let run = rig.run().await;
    let stays = rig.ask(0, 100, Class::Background).await;
    hang_up(leaves).await;
    assert_eq!(run.run.demand.class(), Class::Background, "it is no longer urgent");
    run.succeed();
    assert_whole(&answered(stays).await, 0, 100);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn one_who_needs_only_what_is_kept_waits_for_no_other_part() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 100, Class::Background).await;
    let run = rig.run().await;
    run.begin();
    let part = rig.ask(10, 20, Class::Interactive).await;
    run.part((50, 100), (0, 0));
    run.bring(0, 30);
    assert_whole(&answered(part).await, 10, 20);
    let rest = rig.run().await;
    assert_eq!((rest.span(), rest.run.demand.class()), ((50, 100), Class::Background));
    // It goes on, whoever leaves.
    hang_up(all).await;
    run.bring(30, 50);
    run.end(Ok(()));
    rest.succeed();
    settle().await;
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_flight_is_parted_as_often_as_it_must_be() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 100, Class::Background).await;
    let run = rig.run().await;
    run.begin();
    let (late, soon) = (rig.ask(80, 90, Class::Interactive).await, rig.ask(40, 50, Class::Interactive).await);
    run.part((80, 100), (80, 90));
    let (wanted, rest) = (rig.run().await, rig.run().await);
    assert_eq!((wanted.span(), rest.span()), ((80, 90), (90, 100)));
    assert_eq!((wanted.run.demand.class(), rest.run.demand.class()), (Class::Interactive, Class::Background));
    run.part((40, 80), (40, 50));
    let (wanted_too, rest_too) = (rig.run().await, rig.run().await);
    assert_eq!((wanted_too.span(), rest_too.span()), ((40, 50), (50, 80)));
    settle().await;
    assert_eq!(run.run.demand.class(), Class::Background, "nobody else waits for what it has kept");
    wanted_too.succeed();
    assert_whole(&answered(soon).await, 40, 50);
    wanted.succeed();
    assert_whole(&answered(late).await, 80, 90);
    rest_too.succeed();
    run.bring(0, 40);
    run.end(Ok(()));
    rest.succeed();
    assert_whole(&answered(all).await, 0, 100);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn calls_are_told_of_once_however_a_run_is_parted() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 100, Class::Background).await;
    let run = rig.run().await;
    run.begin();
    let part = rig.ask(0, 10, Class::Interactive).await;
    run.call();
    run.bring(0, 20);
    let part = answered(part).await;
    run.call();
    run.part((60, 100), (0, 0));
    let rest = rig.run().await;
    rest.call();
    rest.bring(60, 100);
    rest.end(Ok(()));
    run.call();
    run.bring(20, 60);
    run.end(Ok(()));
    let all = answered(all).await;
    assert_eq!((part.calls, all.calls), (2, 3));
    assert_eq!(all.outcome, Outcome::Miss);
}

#[tokio::test(start_paused = true)]
async fn one_who_is_more_urgent_is_not_told_of_a_hold_that_is_not_for_it() {
    let mut rig = Rig::new();
    let held_up = || Delivery::Held(Exhausted { retry_after: Duration::from_mins(5) }, Class::Background);
    let patient = rig.ask(0, 100, Class::Background).await;
    let run = rig.run().await;
    run.begin();
    run.run
        .deliver
        .send(Delivery::Held(Exhausted { retry_after: Duration::from_secs(29) }, Class::Background))
        .unwrap();
    settle().await;
    assert!(!patient.is_finished(), "it is held for less than one waits");
    run.run.deliver.send(held_up()).unwrap();
    let told = timeout(Duration::from_secs(1), patient).await.unwrap().unwrap();
    assert!(matches!(told, Err(CacheError::Held(_))), "{told:?}");
    let urgent = rig.ask(0, 100, Class::Interactive).await;
    settle().await;
    assert!(!urgent.is_finished());
    run.run.deliver.send(Delivery::Resumed).unwrap();
    run.bring(0, 100);
    run.end(Ok(()));
    assert_whole(&answered(urgent).await, 0, 100);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn when_another_replica_comes_to_make_the_calls_those_who_wait_look_again_and_keep_what_has_come() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 100, Class::Interactive).await;
    let other = rig.ask(200, 250, Class::Interactive).await;
    let (short, elsewhere) = (rig.run().await, || Err(RepageError::Quota(QuotaError::Elsewhere)));
    assert_eq!(short.span(), (200, 250));
    short.end(elsewhere());
    let short = rig.run().await;
    assert_eq!(short.span(), (200, 250), "what had not flown yet is gathered again too");
    short.begin();
    let run = rig.run().await;
    run.begin();
    run.bring(0, 40);
    run.end(elsewhere());
    let rest = rig.run().await;
    assert_eq!(rest.span(), (40, 100));
    rest.succeed();
    short.bring(200, 250);
    short.end(Ok(()));
    let all = answered(all).await;
    assert_whole(&all, 0, 100);
    assert_eq!((all.calls, all.outcome), (2, Outcome::Miss));
    assert_whole(&answered(other).await, 200, 250);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_always_told_to_ask_another_one_gives_up() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 100, Class::Interactive).await;
    let mut runs = 0;
    while !asking.is_finished() {
        let Ok(Some(run)) = timeout(Duration::from_secs(1), rig.runs.recv()).await else { break };
        run.end(Err(RepageError::Quota(QuotaError::Elsewhere)));
        runs += 1;
    }
    assert!(matches!(asking.await.unwrap(), Err(CacheError::Restless)) && runs > 10, "{runs}");
    rig.assert_nothing_left();
}
