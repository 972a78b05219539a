//! Fetches what is missing: bounded runs are planned and begun here, and what they bring is stored.

mod coalesce;
mod in_flight;
mod redis_lookup;
mod setbacks;
mod task;
mod waiter;

pub(in crate::cache) use self::coalesce::{coalesce, needed_part};
pub(in crate::cache) use self::in_flight::{FetchSpec, FetchedInterval, InFlightFetch};
pub(in crate::cache) use self::setbacks::NegativeCache;
pub(in crate::cache) use self::task::FetchTask;
pub(in crate::cache) use self::waiter::{RedisHit, Waiter};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use tokio::sync::watch;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use self::coalesce::{BatchedRun, StartPolicy};
use super::CacheError;
use super::chunk::Chunk;
use super::cluster::Cluster;
use super::outcome::NotStored;
use super::purge::Purges;
use super::redis::RedisTier;
use super::series::{PendingBatch, PendingRequest, RunLengthPolicy, SeriesState, SharedSeriesState};
use super::series_map::SeriesMap;
use super::store::CacheEntry;
use super::store::ChunkPacker;
use super::store::Memory;
use super::window_field::WindowFields;
use crate::clock::Clock;
use crate::paging::{FIRST_RUN_ITEMS, FetchedRun, PagingError, PlacementCheck, RowOrder, Run, RunBounds, RunLimiters};
use crate::quota::{QuotaError, QuotaManager};
use crate::request::{Requester, RunWaiters, Series};
use crate::telemetry;
use crate::window::{
    Density, FreshnessPolicy, Grid, Interval, PlannedRun, RunLimits, Timestamp, plan_runs, small_run_length,
};

/// The stages below.
pub(super) type PagingService = BoxCloneSyncService<Run<ChunkPacker>, FetchedRun<Arc<Chunk>>, PagingError>;

/// A window of more than this is worth runs side by side.
const DAY: Duration = Duration::from_hours(24);
/// What an item takes in memory, packed, as long as nothing better is known, in bytes.
const PACKED_ITEM: f64 = 1500.0;

/// Begins flights and stores what they bring.
pub(super) struct Fetcher {
    pub(super) below: PagingService,
    pub(super) memory: Memory,
    /// What replicas share; `None` if there is no Redis.
    pub(super) redis: Option<RedisTier>,
    /// The way to the other replicas; `None` if there is no Redis.
    pub(super) remote: Option<Cluster>,
    pub(super) series_map: SeriesMap,
    pub(super) freshness_policy: FreshnessPolicy,
    pub(super) grid: Grid,
    pub(super) clock: Clock,
    /// To look whether callers compete.
    pub(super) quotas: QuotaManager,
    /// To look how many runs may be under way.
    pub(super) limiters: RunLimiters,
    /// How long a request waits for the quota.
    pub(super) queue_timeout: Duration,
    pub(super) window_fields: WindowFields,
    pub(super) window_field: Arc<str>,
    pub(super) purges: Purges,
    pub(super) stored: AtomicU64,
    /// When the latest of what was kept had been fetched, in nanoseconds since the epoch.
    pub(super) latest_fetch: AtomicI64,
}

impl Fetcher {
    /// Adds what is wanted to what is being gathered for a series. What is returned closes when their flights have begun.
    ///
    /// The caller holds the shelf's lock since it found that missing, and no flight is on its way to it.
    pub(super) fn add_to_batch(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedSeriesState,
        shelf: &mut SeriesState,
        want: PendingRequest,
    ) -> watch::Receiver<()> {
        let gathering = shelf.pending.get_or_insert_with(|| {
            let (begin, begun) = watch::channel(());
            let (fetcher, series, shelf) = (self.clone(), series.clone(), of.clone());
            tokio::spawn(async move {
                let announced = fetcher.announce(&series.account);
                fetcher.let_gather(&series.account).await;
                if let Some(tier) = &fetcher.redis {
                    fetcher.look_in(tier, &series, &shelf).await;
                }
                match fetcher.elsewhere(&series.account) {
                    None => fetcher.begin_gathered(&series, &shelf),
                    Some(relay) => fetcher.ask_gathered(relay, &series, &shelf, announced),
                }
                drop(begin);
            });
            PendingBatch { requests: Vec::new(), begun }
        });
        gathering.requests.push(want);
        gathering.begun.clone()
    }

    /// Begins what was gathered: what somebody needs next, and, as far as calls can be had at once, what comes behind it.
    fn begin_gathered(self: &Arc<Self>, series: &Arc<Series>, of: &SharedSeriesState) {
        let by_caller = self.quotas.scheduler(&series.account).is_some_and(|turns| turns.is_contended());
        let mut shelf = of.lock();
        let Some(PendingBatch { requests: wants, .. }) = shelf.pending.take() else { return };
        let now = self.clock.now();
        let settled_before = self.settled_before(now);
        let density = self.density(&shelf);
        let seats = wants.iter().filter_map(|want| want.waiter.upgrade());
        let spare = seats.map(|seat| self.spare_runs(series, &seat.asker)).max().unwrap_or_default();
        // Small runs whose size is a guess are not worth it side by side.
        let is_guess = shelf.sizing.longest().is_some() && !density.covers_the_day();
        let spare = if is_guess { 0 } else { spare };
        let plan = |interval, early| self.plan(interval, &density, shelf.sizing, (early, spare), now);
        let runs = coalesce(&wants, by_caller, plan);
        let (needed, others): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.cause.begins == StartPolicy::Now);
        let mut begun = needed.len();
        for run in needed {
            self.begin(series, of, &mut shelf, run, now);
        }
        // What is open is read by one run after the other: two at a time could both miss an item that moves.
        let is_spare =
            |run: &BatchedRun| run.cause.begins == StartPolicy::IfSpare && run.plan.interval.end <= settled_before;
        for run in others.into_iter().filter(is_spare) {
            if spare <= begun {
                break;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
            let bytes = (run.plan.items.unwrap_or(FIRST_RUN_ITEMS) * PACKED_ITEM) as u64;
            let Some(room) = self.memory.reserve_ahead(bytes) else { break };
            begun += 1;
            self.begin(series, of, &mut shelf, run, now).hold_read_ahead(room);
        }
    }

    /// Begins one run. The caller holds the shelf's lock.
    fn begin(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedSeriesState,
        shelf: &mut SeriesState,
        run: BatchedRun,
        began_at: Timestamp,
    ) -> Arc<InFlightFetch> {
        let BatchedRun { plan: PlannedRun { interval, items }, agentic, cause } = run;
        let epoch = self.purges.epoch(&series.account);
        let spec = FetchSpec { interval, agentic, placed: PlacementCheck::Checked, began_at, epoch };
        let flight =
            InFlightFetch::begin(spec, items, RunWaiters::new(cause.asker), self.quotas.scheduler(&series.account));
        let work = FetchTask::new(series, of, shelf, flight.clone(), &cause.seats);
        tokio::spawn(self.clone().fly(work, items));
        flight
    }

    /// Begins a flight for exactly one window. The caller holds the shelf's lock.
    pub(super) fn fetch_exactly(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedSeriesState,
        shelf: &mut SeriesState,
        interval: Interval,
        fresh_since: Timestamp,
        seat: &Arc<Waiter>,
    ) -> Arc<InFlightFetch> {
        if let Some(relay) = self.elsewhere(&series.account) {
            return self.ask_exactly(relay, series, of, shelf, interval, fresh_since, seat);
        }
        let (began_at, epoch) = (self.clock.now(), self.purges.epoch(&series.account));
        let spec = FetchSpec { interval, agentic: series.agentic, placed: PlacementCheck::Unchecked, began_at, epoch };
        let flight = InFlightFetch::begin(
            spec,
            None,
            RunWaiters::new(seat.asker.clone()),
            self.quotas.scheduler(&series.account),
        );
        let work = FetchTask::new(series, of, shelf, flight.clone(), [seat]);
        tokio::spawn(self.clone().fly(work, None));
        flight
    }

    /// The line before which data has settled at `moment`, by this machine's clock or by the upstream's, whichever is
    /// earlier.
    pub(super) fn settled_before(&self, moment: Timestamp) -> Timestamp {
        self.freshness_policy.settled_before(moment - self.clock.ahead())
    }

    /// The bounded runs that bring `interval`, of which so many could begin at once.
    fn plan(
        &self,
        interval: Interval,
        density: &Density,
        sizing: RunLengthPolicy,
        (early, spare): (bool, usize),
        now: Timestamp,
    ) -> Vec<PlannedRun> {
        let lanes = u32::try_from(if interval.length() > DAY { spare } else { 0 }).unwrap_or(u32::MAX);
        let limits = RunLimits {
            most: RunBounds::PRODUCT.items(),
            least_side_by_side: RunBounds::PRODUCT.least_items_side_by_side(),
            lanes: f64::from(lanes.max(1)),
            first: early.then_some(FIRST_RUN_ITEMS),
            longest: sizing.longest(),
        };
        plan_runs(interval, self.settled_before(now), &self.grid, density, limits)
    }

    /// What is known of the density of a series: what is cached of it, with and without `agenticActivities` together, and
    /// what its runs in flight have seen.
    pub(super) fn density(&self, shelf: &SeriesState) -> Density {
        let mut density = shelf.density(|copy: &CacheEntry| copy.peek(&self.memory));
        for flight in &shelf.in_flight {
            if let Some(seen) = &flight.status().borrow().density {
                density.merge(seen);
            }
        }
        density
    }

    /// How many runs of this caller could begin beside those that are under way, if the upstream is so slow that this
    /// brings an answer sooner.
    pub(super) fn spare_runs(&self, series: &Series, asker: &Requester) -> usize {
        let limiter = self.limiters.of(&series.account).filter(|limiter| limiter.pages_are_slow());
        let Some((limiter, turns)) = limiter.zip(self.quotas.scheduler(&series.account)) else { return 0 };
        let idle = limiter.idle(asker);
        turns.spare_calls(asker.class, u32::try_from(idle).unwrap_or(u32::MAX)) as usize
    }

    /// Fetches one run, and lands it.
    async fn fly(self: Arc<Self>, work: FetchTask, planned: Option<f64>) {
        let InFlightFetch { spec, waiters, .. } = &*work.flight;
        let run = Run {
            series: work.series.clone(),
            interval: spec.interval,
            placed: spec.placed,
            planned,
            demand: waiters.clone(),
            status: work.flight.status().clone(),
            packer: ChunkPacker::new(&self.freshness_policy, self.grid, spec.placed, spec.epoch),
        };
        // A task of its own: should it panic, those who wait are told all the same.
        let fetched = tokio::spawn(self.below.clone().oneshot(run)).await;
        let result = match fetched.unwrap_or(Err(PagingError::Torn(Interval::default()))) {
            Ok(FetchedRun { interval, mut packed, order, halved }) => {
                packed.sort_unstable_by_key(|chunk| chunk.interval().start);
                self.store_chunks(&work, interval, &packed);
                self.learn_of_field(&work, &packed);
                let sizing = &mut work.shelf.lock().sizing;
                if halved && order == RowOrder::Other {
                    sizing.was_oversized(interval.length(), true, interval.length());
                } else {
                    sizing.landed(interval.length(), order == RowOrder::Other);
                }
                Ok(FetchedInterval { interval, chunks: packed.into() })
            }
            Err(PagingError::Oversized) => {
                // Where rows come in no order, a window of unknown density begins with a small run.
                let first = small_run_length(spec.interval, &self.grid);
                work.shelf.lock().sizing.was_oversized(spec.interval.length(), planned.is_some(), first);
                Ok(FetchedInterval::nothing())
            }
            Err(error) => Err(CacheError::Paging(error)),
        };
        self.finish_fetch(&work, result);
    }

    /// Takes a flight off the shelf and tells those who wait.
    pub(super) fn finish_fetch(self: &Arc<Self>, work: &FetchTask, result: Result<FetchedInterval, CacheError>) {
        // Another replica makes the calls now: those who wait look again, and ask that one.
        let result = if is_elsewhere(&result) { Ok(FetchedInterval::nothing()) } else { result };
        if let Err(error) = &result
            && !work.flight.waiters.is_abandoned()
        {
            let account = &work.series.account;
            // What failed on another replica is told of there.
            if !work.flight.is_remote() {
                telemetry::run_failed(account, error);
                telemetry::not_stored(not_stored(error).label());
            }
        }
        match &result {
            Err(CacheError::Paging(PagingError::Torn(piece))) => work.shelf.lock().mark_torn(*piece),
            Err(CacheError::Paging(error)) => self.judge(work, error),
            Ok(_) | Err(_) => {}
        }
        let mut shelf = work.shelf.lock();
        shelf.in_flight.retain(|flight| !Arc::ptr_eq(flight, &work.flight));
        // Under the lock: whoever does not find it on the shelf any more finds that it has landed.
        work.flight.land(result);
        drop(shelf);
        self.series_map.remove_if_idle(&work.series, &work.shelf);
    }
}

/// Whether the calls were not made because another replica makes them now.
fn is_elsewhere<T>(result: &Result<T, CacheError>) -> bool {
    matches!(result, Err(CacheError::Paging(PagingError::Quota(QuotaError::NotLeader))))
}

fn not_stored(error: &CacheError) -> NotStored {
    match error {
        CacheError::QuotaExhausted(_)
        | CacheError::Paging(PagingError::Quota(QuotaError::Exhausted(_) | QuotaError::Refused(_))) => {
            NotStored::QuotaSpent
        }
        CacheError::Paging(PagingError::Quota(QuotaError::Token(_))) => NotStored::UpstreamFailed,
        CacheError::Paging(PagingError::Quota(QuotaError::Abandoned | QuotaError::NotLeader)) => NotStored::Unwanted,
        CacheError::Paging(PagingError::Torn(_)) | CacheError::ItemsMoving => NotStored::RowsMoved,
        CacheError::Paging(PagingError::WindowField) => NotStored::WrongWindowField,
        CacheError::Paging(PagingError::MisplacedItem(_)) => NotStored::MisplacedItem,
        CacheError::Paging(PagingError::Unplaced | PagingError::NoneIsPlaced) => NotStored::NoTimestamp,
        CacheError::Paging(PagingError::Oversized | PagingError::TooLarge { .. })
        | CacheError::TooLargeToBuffer { .. } => NotStored::TooLarge,
        // `PinnedMemoryFull` is an answer's, and no fetch fails with it.
        CacheError::TooManyFetches { .. }
        | CacheError::FetchLost
        | CacheError::Damaged(_)
        | CacheError::ConfigMismatch
        | CacheError::PinnedMemoryFull => NotStored::Lost,
    }
}
