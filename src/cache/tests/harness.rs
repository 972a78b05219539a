//! A cache whose runs the tests play by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::cache::store::ChunkPacker;
use crate::cache::*;
use crate::clock::Clock;
use crate::config;
use crate::paging::{FetchedRun, Item, ItemPacker as _, PagingError, RowOrder, Run, RunLimiters, RunPart};
use crate::quota::QuotaManager;
use crate::request::{Filter, Priority, Requester, Series, WaitMeter};
use crate::traces::Span;
use crate::window::{FreshnessDemand, FreshnessTier, Interval, Timestamp, UpperBound};

/// A second of the day that is still open.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_000_000_000 + second)
}

pub(super) fn interval(start: i64, end: i64) -> Interval {
    Interval::new(at(start), at(end))
}

/// A request for all items of an interval, which may be streamed.
pub(super) fn query(series: Series, interval: Interval, requester: Requester) -> WindowQuery {
    let page_range = PageRange::ALL;
    WindowQuery {
        series: series.into(),
        interval,
        page_range,
        asked_at: at(5_000),
        requester,
        may_stream: true,
        options: QueryOptions::default(),
        waited: WaitMeter::default(),
        span: Span::NONE,
    }
}

pub(super) fn series() -> Series {
    Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], agentic: false }
}

pub(super) type PackedRun = Run<ChunkPacker>;
pub(super) type RunOutcome = Result<FetchedRun<Arc<Chunk>>, PagingError>;

/// A run whose result a test decides.
pub(super) struct TestRun {
    pub(super) run: PackedRun,
    pub(super) end: oneshot::Sender<RunOutcome>,
}

impl TestRun {
    pub(super) fn interval(&self) -> (i64, i64) {
        (
            self.run.interval.start.as_seconds() - at(0).as_seconds(),
            self.run.interval.end.as_seconds() - at(0).as_seconds(),
        )
    }

    /// Begins a call.
    pub(super) fn call(&self) {
        assert!(self.run.waiters.begin(Duration::ZERO), "the run was abandoned");
    }

    /// Reports a page.
    pub(super) fn page(&self) {
        self.call();
        self.run.status.send_modify(|status| status.pages += 1);
        self.run.waiters.on_page();
    }

    /// Shortens the run to end at `end`, with so many expected items.
    pub(super) fn shorten(&self, end: i64, items: f64) {
        let interval = self.run.interval.split_at(at(end)).0;
        self.run.status.send_modify(|status| (status.interval, status.expected) = (interval, Some(items)));
    }

    /// Succeeds with an item for each second up to `end`.
    pub(super) fn succeed_up_to(self, end: i64) {
        let (start, _) = self.interval();
        self.succeed_in_parts(&[(start, end, 5_000)]);
    }

    /// Succeeds with items up to `end`, each a second and the number that is its id, as they are at `fetched_at`.
    pub(super) fn succeed_with(self, items: impl IntoIterator<Item = (i64, i64)>, end: i64, fetched_at: i64) {
        let (start, _) = self.interval();
        let packed = self.packed(items, interval(start, end), fetched_at);
        self.succeed_packed(packed, interval(start, end));
    }

    /// Succeeds with an item for each second of adjacent parts, each with its start, its end, and when it was fetched.
    pub(super) fn succeed_in_parts(self, parts: &[(i64, i64, i64)]) {
        let pack = |(start, end, fetched_at): &(i64, i64, i64)| {
            self.packed((*start..*end).map(|second| (second, second)), interval(*start, *end), *fetched_at)
        };
        let packed = parts.iter().flat_map(pack).collect();
        let ((start, ..), (_, end, _)) = (parts[0], parts[parts.len() - 1]);
        self.succeed_packed(packed, interval(start, end));
    }

    fn packed(
        &self,
        items: impl IntoIterator<Item = (i64, i64)>,
        interval: Interval,
        fetched_at: i64,
    ) -> Vec<Arc<Chunk>> {
        let items = items.into_iter().map(|(second, id)| {
            let (at, id) = (at(second), id.to_string());
            let time = jiff::Timestamp::from_second(at.as_seconds()).unwrap();
            let json = format!(r#"{{"n":{id},"segmentID":"{id}","segmentStartTime":"{time}"}}"#);
            Item { at, id: id.into(), json: json.into() }
        });
        self.run.packer.pack(RunPart { interval, items: items.collect(), fetched_at: at(fetched_at) })
    }

    fn succeed_packed(self, packed: Vec<Arc<Chunk>>, interval: Interval) {
        self.finish(Ok(FetchedRun { interval, packed, order: RowOrder::Ascending, halved: false }));
    }

    pub(super) fn finish(self, outcome: RunOutcome) {
        let Self { run, end } = self;
        let _ = end.send(outcome);
        drop(run);
    }

    /// Makes one call, and succeeds with an item for each second.
    pub(super) fn succeed(self) {
        self.call();
        let (_, end) = self.interval();
        self.succeed_up_to(end);
    }
}

/// A cache of so many bytes at second 5,000, and the settings that it shares with the stages below.
pub(super) fn layer(
    memory: u64,
    freshness: Vec<FreshnessTier>,
) -> (config::SeriesSettings, config::QuotaConfig, CacheLayer) {
    let window = config::WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Exclusive,
        settle_after: Duration::from_hours(24),
        freshness,
        chunk: Duration::from_hours(1),
        max_span: Duration::MAX,
    };
    let cache = config::CacheConfig { memory, disk: None, redis: None, encryption: config::EncryptionKeys::default() };
    let quota = config::QuotaConfig {
        queue_timeout: Duration::from_secs(30),
        max_wait: Duration::from_mins(5),
        interactive_reserve: 0.0,
        state_file: None,
    };
    let clock = Clock::manual(at(5_000));
    let quotas = QuotaManager::new(&[], &quota, 8, Duration::ZERO, &clock.clone().into()).unwrap();
    let settings = config::SeriesSettings::new(&window, &[]);
    let handles = CacheHandles::new(&cache, &settings, None, None, &quotas, &clock);
    let layer = CacheLayer::new(&handles, &settings, &quota, &quotas, &RunLimiters::default(), &clock);
    (settings, quota, layer)
}

pub(super) struct TestHarness {
    pub(super) stage: CacheStage,
    pub(super) runs: mpsc::UnboundedReceiver<TestRun>,
}

pub(super) type PendingAnswer = JoinHandle<Result<WindowAnswer, CacheError>>;

impl TestHarness {
    /// A cache that stores no open data.
    pub(super) fn new() -> Self {
        Self::with_freshness(Vec::new())
    }

    /// A cache in which data younger than `younger_than` is fresh for `max_age`.
    pub(super) fn with_tier(younger_than: Duration, max_age: Duration) -> Self {
        Self::with_freshness(vec![FreshnessTier { younger_than, max_age }])
    }

    /// A cache with these freshness tiers.
    fn with_freshness(freshness: Vec<FreshnessTier>) -> Self {
        let (.., cache) = layer(1 << 30, freshness);
        let (send, runs) = mpsc::unbounded_channel();
        let below = service_fn(move |run: PackedRun| {
            let (end, ended) = oneshot::channel();
            let sent = send.send(TestRun { run, end });
            async move {
                sent.ok();
                ended.await.unwrap_or(Err(PagingError::Torn(Interval::default())))
            }
        });
        Self { stage: cache.layer(below), runs }
    }

    /// Starts a request of the default series; it waits by the time this returns.
    pub(super) async fn request(&self, start: i64, end: i64, priority: Priority) -> PendingAnswer {
        self.request_series(series(), start, end, priority).await
    }

    /// Starts a request of a series.
    pub(super) async fn request_series(
        &self,
        series: Series,
        start: i64,
        end: i64,
        priority: Priority,
    ) -> PendingAnswer {
        let requester = Requester { priority, ..Requester::anyone() };
        let query = query(series, interval(start, end), requester);
        let pending = tokio::spawn(self.stage.clone().oneshot(query));
        settle().await;
        pending
    }

    /// Starts a request of the default series that comes at second `asked_at`; it waits by the time this returns.
    pub(super) async fn request_at(
        &self,
        asked_at: i64,
        (start, end): (i64, i64),
        freshness: FreshnessDemand,
    ) -> PendingAnswer {
        let options = QueryOptions { freshness, ..QueryOptions::default() };
        let query = query(series(), interval(start, end), Requester::anyone());
        let pending =
            tokio::spawn(self.stage.clone().oneshot(WindowQuery { asked_at: at(asked_at), options, ..query }));
        settle().await;
        pending
    }

    /// Asserts that nothing is in flight or pending.
    pub(super) fn assert_idle(&self) {
        let state = self.stage.0.series_map.get_or_insert(&series());
        let state = state.lock();
        assert!(state.in_flight.is_empty() && state.pending.is_none(), "{:?}", state.in_flight);
    }

    /// The next run that the cache starts.
    pub(super) async fn next_run(&mut self) -> TestRun {
        timeout(Duration::from_secs(1), self.runs.recv()).await.expect("a run").expect("a run")
    }

    pub(super) async fn assert_no_run(&mut self) {
        let run = timeout(Duration::from_secs(1), self.runs.recv()).await;
        assert!(run.is_err(), "unexpected run: {:?}", run.unwrap().map(|run| run.interval()));
    }
}

/// Cancels a request.
pub(super) async fn cancel(pending: PendingAnswer) {
    pending.abort();
    assert!(pending.await.is_err_and(|error| error.is_cancelled()), "it was answered before");
}

/// Lets every task run as far as it can without advancing the clock.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The answer to a request that must be ready.
pub(super) async fn answered(pending: PendingAnswer) -> WindowAnswer {
    timeout(Duration::from_secs(1), pending).await.expect("an answer in time").unwrap().unwrap()
}

/// The seconds whose items are in an answer.
pub(super) fn seconds(answer: &WindowAnswer) -> Vec<i64> {
    let rows = answer.items.slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone()));
    let number = |json: Bytes| -> i64 {
        let end = json.iter().position(|byte| *byte == b',').unwrap();
        std::str::from_utf8(&json[5..end]).unwrap().parse().unwrap()
    };
    rows.map(|row| number(row.unwrap().1)).collect()
}

#[track_caller]
pub(super) fn assert_whole(answer: &WindowAnswer, start: i64, end: i64) {
    assert!(seconds(answer).into_iter().eq(start..end), "{:?}", seconds(answer));
}
