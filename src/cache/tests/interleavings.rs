//! Requests, purges and the ends of fetches in many schedules (see [`crate::sync`]). The stage is that of the product;
//! the stages below it are one call for each run, with a permit of a real scheduler that admits one call at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::future::{block_on, yield_now};
use shuttle::rand::{Rng as _, thread_rng};
use tokio::sync::Notify;

use super::*;
use crate::config::{QuotaConfig, QuotaLimit};
use crate::paging::Item;
use crate::quota::{CallPermit, CallScheduler};
use crate::request::RunWaiters;
use crate::sync::{JoinHandle, Mutex, explore, spawn};

/// The first second of an hour that has settled.
const OLD: i64 = -100_000;
/// Seconds between two items.
const ITEM_INTERVAL: usize = 30;
/// Steps for which rows are on their way, at most.
const MAX_STEPS_TO_LAND: usize = 8;
/// Steps after which a scene that still has fetches in flight, or queued calls, never ends.
const MAX_STEPS_TO_IDLE: usize = 1_000;

/// An upstream whose rows have a version.
#[derive(Clone)]
struct Upstream {
    version: Arc<Mutex<i64>>,
    scheduler: Arc<CallScheduler>,
    calls: Arc<AtomicU64>,
    /// Notified when a call has read the rows, which are not on their way yet.
    was_read: Arc<Notify>,
}

impl Upstream {
    async fn fetch(self, run: PackedRun) -> RunOutcome {
        let permit = self.scheduler.acquire(&run.waiters).await.map_err(|error| PagingError::Quota(error.into()))?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let calling = run.waiters.calling();
        let version = *self.version.lock().unwrap();
        self.was_read.notify_one();
        for _ in 0..thread_rng().gen_range(0..MAX_STEPS_TO_LAND) {
            yield_now().await;
        }
        run.status.send_modify(|status| status.pages += 1);
        run.waiters.on_page();
        permit.answered(None);
        drop(calling);
        let interval = run.interval;
        let seconds = (interval.start.as_seconds()..interval.end.as_seconds()).step_by(ITEM_INTERVAL);
        let items = seconds.map(|second| {
            let time = jiff::Timestamp::from_second(second).unwrap();
            let json = format!(r#"{{"n":{version},"segmentID":"{second}","segmentStartTime":"{time}"}}"#);
            Item { at: Timestamp::from_seconds(second), id: second.to_string().into(), json: json.into() }
        });
        let part = RunPart { interval, items: items.collect(), fetched_at: at(5_000) };
        let packed = run.packer.pack(part);
        Ok(FetchedRun { interval, packed, order: RowOrder::Ascending, halved: false })
    }
}

/// A cache and its upstream.
#[derive(Clone)]
struct Scene {
    stage: CacheStage,
    upstream: Upstream,
}

impl Scene {
    fn new() -> Self {
        let (_, quota, layer) = layer(1 << 20, Vec::new());
        let limits = vec![QuotaLimit { requests: 1_000, per: Duration::from_mins(1) }];
        let quota = QuotaConfig { interactive_reserve: 0.0, ..quota };
        let scheduler = CallScheduler::new(&"a".into(), limits, &quota, 1, None);
        let upstream =
            Upstream { version: Arc::new(Mutex::new(1)), scheduler, calls: Arc::default(), was_read: Arc::default() };
        let below = upstream.clone();
        Self { stage: layer.layer(service_fn(move |run| below.clone().fetch(run))), upstream }
    }

    /// The versions of all items of a window.
    async fn versions(&self, start: i64, end: i64) -> Vec<i64> {
        let window = interval(OLD + start, OLD + end);
        let query = WindowQuery { may_stream: false, ..query(series(), window, Requester::anyone()) };
        seconds(&self.stage.clone().oneshot(query).await.expect("an answer"))
    }

    fn request(&self, start: i64, end: i64) -> JoinHandle<Vec<i64>> {
        let scene = self.clone();
        spawn(async move { scene.versions(start, end).await })
    }

    async fn purge(&self, start: i64, end: i64) {
        let (account, interval) = ("a".into(), interval(OLD + start, OLD + end));
        self.stage.0.purges.purge(Purge { account, stream: None, interval, ids: None }).await;
    }

    /// A call of another run, which has the only permit.
    async fn other_call(&self) -> CallPermit {
        self.upstream.scheduler.acquire(&RunWaiters::new(Requester::anyone())).await.expect("a permit")
    }

    /// Waits until nothing is in flight, pending or queued, and asserts that each call that the quota has counted was
    /// made, `other_calls` among them.
    async fn assert_ends(&self, other_calls: u64) {
        let is_idle = || {
            let state = self.stage.0.series_map.get_or_insert(&series());
            let state = state.lock();
            state.in_flight.is_empty() && state.pending.is_none() && self.upstream.scheduler.queue_length() == 0
        };
        let mut steps = 0;
        while !is_idle() {
            steps += 1;
            assert!(steps < MAX_STEPS_TO_IDLE, "a fetch or a call was left behind");
            yield_now().await;
        }
        self.other_call().await.answered(None);
        let (spent, _) = self.upstream.scheduler.spent_by(&Requester::anyone().caller);
        assert_eq!(spent, self.upstream.calls.load(Ordering::Relaxed) + other_calls + 1);
    }
}

#[test]
fn request_after_a_purge_gets_no_earlier_rows() {
    explore(|| {
        let scene = Scene::new();
        let before = [scene.request(0, 60), scene.request(60, 120)];
        let after = spawn({
            let scene = scene.clone();
            async move {
                *scene.upstream.version.lock().unwrap() = 2;
                scene.purge(0, 120).await;
                scene.versions(0, 120).await
            }
        });
        block_on(async {
            for request in before {
                assert_eq!(request.await.unwrap().len(), 2);
            }
            assert_eq!(after.await.unwrap(), [2; 4]);
            assert_eq!(scene.versions(0, 120).await, [2; 4], "what is stored now");
            scene.assert_ends(0).await;
        });
    });
}

/// Fewer steps than above, so that more of their orders are tried: the purge begins when the rows have been read.
#[test]
fn rows_that_land_during_a_purge_are_not_served_after_it() {
    explore(|| {
        let scene = Scene::new();
        let before = scene.request(0, 60);
        block_on(async {
            scene.upstream.was_read.notified().await;
            *scene.upstream.version.lock().unwrap() = 2;
            scene.purge(0, 60).await;
            assert_eq!(scene.versions(0, 60).await, [2; 2]);
            assert_eq!(before.await.unwrap(), [1; 2]);
            assert_eq!(scene.versions(0, 60).await, [2; 2], "what is stored now");
            scene.assert_ends(0).await;
        });
    });
}

#[test]
fn overlapping_requests_share_fetches_and_all_are_answered() {
    explore(|| {
        let scene = Scene::new();
        let requests = [scene.request(0, 120), scene.request(60, 180), scene.request(0, 60)];
        block_on(async {
            for (request, items) in requests.into_iter().zip([4, 4, 2]) {
                assert_eq!(request.await.unwrap().len(), items);
            }
            scene.assert_ends(0).await;
            let calls = scene.upstream.calls.load(Ordering::Relaxed);
            assert!(calls <= 3, "{calls} calls for three adjacent minutes");
        });
    });
}

#[test]
fn request_that_comes_while_the_last_waiter_leaves_is_answered() {
    explore(|| {
        let scene = Scene::new();
        let other_call = block_on(scene.other_call());
        let leaving = scene.request(0, 60);
        let coming = scene.request(0, 120);
        let ending = spawn(async move { other_call.answered(None) });
        leaving.abort();
        block_on(async {
            drop(leaving.await);
            assert_eq!(coming.await.unwrap(), [1; 4]);
            ending.await.unwrap();
            scene.assert_ends(1).await;
        });
    });
}
