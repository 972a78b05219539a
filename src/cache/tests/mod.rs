//! Whoever waits gets what it waits for, whatever runs bring, and whoever leaves. The runs are played by hand.

mod purged;
mod queue_timeout;
mod streamed;
mod window_field;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::paging::{FetchedRun, Item, ItemPacker as _, RowOrder, RunPart, RunPhase};
use crate::quota::QuotaError;
use crate::request::{Filter, Priority};
use crate::window::{FreshnessTier, UpperBound};

/// A second of the day that is still open.
fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_000_000_000 + second)
}

fn interval(start: i64, end: i64) -> Interval {
    Interval::new(at(start), at(end))
}

fn series() -> Series {
    Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], agentic: false }
}

type PlayedRun = Run<ChunkPacker>;
type RunOutcome = Result<FetchedRun<Arc<Chunk>>, PagingError>;

/// A run that a test plays.
struct Played {
    run: PlayedRun,
    end: oneshot::Sender<RunOutcome>,
}

impl Played {
    fn interval(&self) -> (i64, i64) {
        (
            self.run.interval.start.as_seconds() - at(0).as_seconds(),
            self.run.interval.end.as_seconds() - at(0).as_seconds(),
        )
    }

    /// Makes a call.
    fn call(&self) {
        assert!(self.run.demand.begin(Duration::ZERO), "nobody wants it");
    }

    /// A page comes.
    fn page(&self) {
        self.call();
        self.run.status.send_modify(|status| status.pages += 1);
        self.run.demand.on_page();
    }

    /// It turns out to be larger than one run should be, and ends at `end`, with so many items.
    fn shorten(&self, end: i64, items: f64) {
        let interval = self.run.interval.split_at(at(end)).0;
        self.run.status.send_modify(|status| (status.interval, status.expected) = (interval, Some(items)));
    }

    /// Brings an item a second up to `end`, and ends.
    fn bring_up_to(self, end: i64) {
        let (start, _) = self.interval();
        let items = (start..end).map(|second| {
            let (at, id) = (at(second), second.to_string());
            let time = jiff::Timestamp::from_second(at.as_seconds()).unwrap();
            let json = format!(r#"{{"n":{id},"segmentID":"{id}","segmentStartTime":"{time}"}}"#);
            Item { at, id: id.into(), json: json.into() }
        });
        let part = RunPart { interval: interval(start, end), items: items.collect(), fetched_at: at(5_000) };
        let packed = self.run.packer.pack(part);
        self.end(Ok(FetchedRun { interval: interval(start, end), packed, order: RowOrder::Ascending, halved: false }));
    }

    fn end(self, outcome: RunOutcome) {
        let Self { run, end } = self;
        let _ = end.send(outcome);
        drop(run);
    }

    /// Makes one call, and brings all of it.
    fn succeed(self) {
        self.call();
        let (_, end) = self.interval();
        self.bring_up_to(end);
    }
}

/// A cache with room for so many bytes at second 5,000, and the settings that it shares with the stages below.
fn layer(memory: u64, freshness: Vec<FreshnessTier>) -> (config::WindowConfig, config::QuotaConfig, CacheLayer) {
    let window = config::WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Exclusive,
        settle_after: Duration::from_hours(24),
        freshness,
        chunk: Duration::from_hours(1),
        max_span: Duration::MAX,
    };
    let cache = config::CacheConfig { memory, redis: None };
    let quota =
        config::QuotaConfig { queue_timeout: Duration::from_secs(30), interactive_reserve: 0.0, state_file: None };
    let clock = Clock::manual(at(5_000));
    let quotas = QuotaManager::new(&[], &quota, 8, Duration::ZERO, &clock).unwrap();
    let handles = CacheHandles::new(&cache, None, &quotas, &clock);
    let layer = CacheLayer::new(&handles, &window, &quota, &quotas, &RunLimiters::default(), &clock);
    (window, quota, layer)
}

struct Rig {
    stage: CacheStage,
    runs: mpsc::UnboundedReceiver<Played>,
}

type ResponseFuture = JoinHandle<Result<WindowAnswer, CacheError>>;

impl Rig {
    /// A cache that keeps nothing of what is open: what is lost on its way is lost.
    fn new() -> Self {
        Self::with_freshness(Vec::new())
    }

    /// The same, but for what may be served of what is open.
    fn with_freshness(freshness: Vec<FreshnessTier>) -> Self {
        let (.., cache) = layer(1 << 30, freshness);
        let (send, runs) = mpsc::unbounded_channel();
        let below = service_fn(move |run: PlayedRun| {
            let (end, ended) = oneshot::channel();
            let sent = send.send(Played { run, end });
            async move {
                sent.ok();
                ended.await.unwrap_or(Err(PagingError::Torn(Interval::default())))
            }
        });
        Self { stage: cache.layer(below), runs }
    }

    /// Somebody asks; it waits by the time this returns.
    async fn ask(&self, start: i64, end: i64, class: Priority) -> ResponseFuture {
        self.ask_of(series(), start, end, class).await
    }

    /// The same for another series.
    async fn ask_of(&self, series: Series, start: i64, end: i64, class: Priority) -> ResponseFuture {
        let asker = Requester { class, ..Requester::anyone() };
        let (interval, page_range) = (interval(start, end), PageRange::ALL);
        let query =
            WindowQuery { series: series.into(), interval, page_range, asked_at: at(5_000), asker, may_stream: true };
        let answering = tokio::spawn(self.stage.clone().oneshot(query));
        settle().await;
        answering
    }

    /// Fails if anything is left of what has been asked for.
    fn assert_nothing_left(&self) {
        let shelf = self.stage.0.series_map.of(&series());
        let shelf = shelf.lock();
        assert!(shelf.in_flight.is_empty() && shelf.pending.is_none(), "{:?}", shelf.in_flight);
    }

    /// The next run that is asked for.
    async fn run(&mut self) -> Played {
        timeout(Duration::from_secs(1), self.runs.recv()).await.expect("a run").expect("a run")
    }

    async fn no_run(&mut self) {
        let run = timeout(Duration::from_secs(1), self.runs.recv()).await;
        assert!(run.is_err(), "one run too many: {:?}", run.unwrap().map(|played| played.interval()));
    }
}

/// Gives up waiting.
async fn hang_up(answering: ResponseFuture) {
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
async fn answered(answering: ResponseFuture) -> WindowAnswer {
    timeout(Duration::from_secs(1), answering).await.expect("it hangs").unwrap().unwrap()
}

/// The seconds whose items are in an answer.
fn seconds(answer: &WindowAnswer) -> Vec<i64> {
    let rows = answer.items.slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone()));
    let number = |json: Bytes| -> i64 {
        let end = json.iter().position(|byte| *byte == b',').unwrap();
        std::str::from_utf8(&json[5..end]).unwrap().parse().unwrap()
    };
    rows.map(|row| number(row.unwrap().1)).collect()
}

#[track_caller]
fn assert_whole(answer: &WindowAnswer, start: i64, end: i64) {
    assert!(seconds(answer).into_iter().eq(start..end), "{:?}", seconds(answer));
}

#[tokio::test(start_paused = true)]
async fn what_lands_while_more_is_being_gathered_is_not_asked_for_again() {
    let mut rig = Rig::new();
    let first = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    run.call();
    let second = rig.ask(0, 200, Priority::Interactive).await;
    run.succeed();
    assert_whole(&answered(first).await, 0, 100);
    let run = rig.run().await;
    assert_eq!(run.interval(), (100, 200));
    run.succeed();
    assert_whole(&answered(second).await, 0, 200);
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn shortened_run_leaves_the_rest_to_the_next_run() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 300, Priority::Interactive).await;
    let first = rig.run().await;
    assert_eq!((first.interval(), first.run.planned), ((0, 300), None));
    let late = rig.ask(200, 250, Priority::Interactive).await;
    rig.no_run().await;
    first.page();
    first.shorten(100, 4_000.0);
    // Whoever needs nothing of it asks for what it needs; the other one waits for the run that brings what is next.
    let second = rig.run().await;
    assert_eq!(second.interval(), (200, 250));
    rig.no_run().await;
    second.succeed();
    assert_whole(&answered(late).await, 200, 250);
    first.bring_up_to(100);
    let third = rig.run().await;
    assert_eq!(third.interval(), (100, 300), "nothing of what is always asked for afresh is kept");
    third.succeed();
    assert_whole(&answered(all).await, 0, 300);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn run_cut_at_a_checkpoint_serves_what_it_has_proven() {
    let mut rig = Rig::new();
    let (all, part) = (rig.ask(0, 100, Priority::Interactive).await, rig.ask(0, 10, Priority::Interactive).await);
    let run = rig.run().await;
    assert_eq!(run.interval(), (0, 100));
    run.call();
    run.bring_up_to(60);
    let part = answered(part).await;
    let rest = rig.run().await;
    assert_eq!(rest.interval(), (60, 100));
    rest.succeed();
    let all = answered(all).await;
    assert_whole(&all, 0, 100);
    assert_eq!(part.calls + all.calls, 2, "calls are told of once");
    rig.assert_nothing_left();
}

/// A run that was cut has learnt that more follows: it says nothing of what lies ahead.
#[tokio::test(start_paused = true)]
async fn run_cut_near_now_does_not_hide_what_follows() {
    let rung = FreshnessTier { younger_than: Duration::from_hours(24), max_age: Duration::from_secs(30) };
    let mut rig = Rig::with_freshness(vec![rung]);
    let asking = rig.ask(4_000, 5_000, Priority::Interactive).await;
    let run = rig.run().await;
    run.call();
    run.bring_up_to(4_990);
    let rest = rig.run().await;
    assert_eq!(rest.interval(), (4_990, 5_000));
    rest.succeed();
    assert_whole(&answered(asking).await, 4_000, 5_000);
    rig.assert_nothing_left();
}

/// What is begun beside the run that is needed next may fail without failing the answer.
#[tokio::test(start_paused = true)]
async fn failed_run_behind_the_next_one_is_asked_for_again() {
    let mut rig = Rig::new();
    let late = rig.ask(200, 300, Priority::Interactive).await;
    let second = rig.run().await;
    second.call();
    let all = rig.ask(0, 300, Priority::Interactive).await;
    let first = rig.run().await;
    assert_eq!(first.interval(), (0, 200));
    second.end(Err(PagingError::Torn(Interval::default())));
    assert!(late.await.unwrap().is_err());
    first.succeed();
    let again = rig.run().await;
    assert_eq!(again.interval(), (200, 300));
    again.succeed();
    assert_whole(&answered(all).await, 0, 300);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn oversized_run_is_asked_for_again_in_small_runs() {
    let mut rig = Rig::new();
    let asking = rig.ask(-90_000, -80_000, Priority::Interactive).await;
    let run = rig.run().await;
    run.call();
    run.end(Err(PagingError::Oversized));
    let mut lengths = Vec::new();
    while !asking.is_finished() {
        let run = rig.run().await;
        lengths.push(run.interval().1 - run.interval().0);
        run.succeed();
        settle().await;
    }
    assert!(lengths.len() > 1 && lengths[0] <= 3_600, "{lengths:?}");
    assert_whole(&answered(asking).await, -90_000, -80_000);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn urgent_request_fetches_its_part_of_a_paused_run_separately() {
    let mut rig = Rig::new();
    let all = rig.ask(0, 1_000, Priority::Background).await;
    let run = rig.run().await;
    run.page();
    // Thirty pages, each of which waits for the quota for a second.
    run.shorten(1_000, 3_000.0);
    assert!(run.run.demand.begin(Duration::from_secs(1)));
    let urgent = rig.ask(400, 430, Priority::Interactive).await;
    let own = rig.run().await;
    assert_eq!((own.interval(), own.run.demand.class()), ((400, 430), Priority::Interactive));
    let joins = rig.ask(405, 420, Priority::Interactive).await;
    rig.no_run().await;
    own.succeed();
    assert_whole(&answered(urgent).await, 400, 430);
    assert_whole(&answered(joins).await, 405, 420);
    run.bring_up_to(1_000);
    assert_whole(&answered(all).await, 0, 1_000);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn one_who_comes_when_the_last_has_just_left_is_not_left_alone() {
    let mut rig = Rig::new();
    let first = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    hang_up(first).await;
    let second = rig.ask(0, 100, Priority::Interactive).await;
    // Both are on the shelf for a while.
    let next = rig.run().await;
    run.end(Err(PagingError::Quota(QuotaError::Abandoned)));
    next.succeed();
    assert_whole(&answered(second).await, 0, 100);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_while_it_is_gathered_costs_nothing() {
    let mut rig = Rig::new();
    let (left, stays) = (rig.ask(0, 100, Priority::Interactive).await, rig.ask(200, 300, Priority::Interactive).await);
    hang_up(left).await;
    let run = rig.run().await;
    assert_eq!(run.interval(), (200, 300));
    run.succeed();
    assert_whole(&answered(stays).await, 200, 300);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn if_one_of_two_leaves_the_other_is_served_by_the_same_run() {
    let mut rig = Rig::new();
    let leaves = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    let stays = rig.ask(0, 100, Priority::Background).await;
    hang_up(leaves).await;
    assert_eq!(run.run.demand.class(), Priority::Background, "it is no longer urgent");
    run.succeed();
    assert_whole(&answered(stays).await, 0, 100);
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn paused_run_more_urgent_waiter_is_not_refused() {
    let mut rig = Rig::new();
    let pause = |run: &Played, seconds| {
        let phase =
            RunPhase::Paused { until: Instant::now() + Duration::from_secs(seconds), class: Priority::Background };
        run.run.status.send_modify(|status| status.phase = phase);
    };
    let patient = rig.ask(0, 100, Priority::Background).await;
    let run = rig.run().await;
    run.call();
    pause(&run, 29);
    settle().await;
    assert!(!patient.is_finished(), "it is held for less than one waits");
    pause(&run, 300);
    let told = timeout(Duration::from_secs(1), patient).await.unwrap().unwrap();
    assert!(matches!(told, Err(CacheError::QuotaExhausted(_))), "{told:?}");
    let urgent = rig.ask(0, 100, Priority::Interactive).await;
    settle().await;
    assert!(!urgent.is_finished());
    run.run.status.send_modify(|status| status.phase = RunPhase::Fetching);
    run.bring_up_to(100);
    assert_whole(&answered(urgent).await, 0, 100);
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn leader_change_waiters_look_again() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 100, Priority::Interactive).await;
    let run = rig.run().await;
    run.call();
    run.end(Err(PagingError::Quota(QuotaError::NotLeader)));
    let run = rig.run().await;
    assert_eq!(run.interval(), (0, 100));
    run.succeed();
    let answer = answered(asking).await;
    assert_whole(&answer, 0, 100);
    assert_eq!((answer.calls, answer.outcome), (2, Outcome::Miss));
    rig.no_run().await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_always_told_to_ask_another_one_gives_up() {
    let mut rig = Rig::new();
    let asking = rig.ask(0, 100, Priority::Interactive).await;
    let mut runs = 0;
    while !asking.is_finished() {
        let Ok(Some(run)) = timeout(Duration::from_secs(1), rig.runs.recv()).await else { break };
        run.end(Err(PagingError::Quota(QuotaError::NotLeader)));
        runs += 1;
    }
    assert!(matches!(asking.await.unwrap(), Err(CacheError::ItemsMoving)) && runs > 10, "{runs}");
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn second_that_tore_is_not_asked_for_again_at_once() {
    let mut rig = Rig::new();
    let refused = |answer: Result<Result<WindowAnswer, CacheError>, _>| {
        assert!(matches!(answer.unwrap(), Err(CacheError::Paging(PagingError::Torn(_)))));
    };
    for pause in [30, 60] {
        let asking = rig.ask(0, 100, Priority::Interactive).await;
        let run = rig.run().await;
        run.call();
        run.end(Err(PagingError::Torn(interval(50, 51))));
        refused(asking.await);
        refused(rig.ask(0, 100, Priority::Interactive).await.await);
        refused(rig.ask(20, 60, Priority::Interactive).await.await);
        rig.no_run().await;
        let beside = rig.ask(51, 100, Priority::Interactive).await;
        rig.run().await.succeed();
        assert_whole(&answered(beside).await, 51, 100);
        tokio::time::advance(Duration::from_secs(pause)).await;
    }
    let again = rig.ask(0, 100, Priority::Interactive).await;
    rig.run().await.succeed();
    assert_whole(&answered(again).await, 0, 100);
}

#[tokio::test(start_paused = true)]
async fn copies_from_the_future_are_dropped_when_the_clock_is_set_back() {
    let mut rig = Rig::new();
    let (start, end) = (-90_000, -89_900);
    let asking = rig.ask(start, end, Priority::Interactive).await;
    rig.run().await.succeed();
    answered(asking).await;
    let fetcher = rig.stage.0.clone();
    fetcher.remove_future_entries(at(5_000 - 60));
    assert_eq!(
        answered(rig.ask(start, end, Priority::Interactive).await).await.outcome,
        Outcome::Hit,
        "within a minute"
    );
    fetcher.remove_future_entries(at(5_000 - 61));
    assert_eq!(fetcher.memory.bytes(), 0);
    let again = rig.ask(start, end, Priority::Interactive).await;
    rig.run().await.succeed();
    assert_whole(&answered(again).await, start, end);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_as_settled_while_the_clock_is_wrong() {
    let mut rig = Rig::new();
    let clock = rig.stage.0.clock.clone();
    for (date, outcome) in [(at(-5_000), Outcome::Miss), (at(5_000), Outcome::Hit)] {
        for _ in 0..3 {
            clock.compare(at(5_000), date);
        }
        let asking = rig.ask(-90_000, -89_900, Priority::Interactive).await;
        rig.run().await.succeed();
        answered(asking).await;
        let again = rig.ask(-90_000, -89_900, Priority::Interactive).await;
        if outcome == Outcome::Miss {
            rig.run().await.succeed();
        }
        assert_eq!(answered(again).await.outcome, outcome);
    }
}
