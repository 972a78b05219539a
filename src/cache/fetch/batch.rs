//! Batches: how long missing intervals of requests are collected before they are fetched together ([`BATCH_WINDOW`]).
//! Then they are looked up in Redis, and started as runs: which limits bound a run of pages (`Fetcher::plan`), and how
//! many runs start for one batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::Instrument as _;

use super::coalesce::{BatchedRun, StartPolicy, coalesce};
use super::fetcher::Fetcher;
use crate::cache::series::{PendingBatch, PendingRequest, RunLengthPolicy, SeriesState, SharedSeriesState};
use crate::paging::{FIRST_RUN_ITEMS, RunBounds, is_worth_parallel_runs};
use crate::request::Series;
use crate::sync::{sleep, spawn};
use crate::traces::SpanKind;
use crate::window::{Density, Interval, PlannedRun, RunLimits, Timestamp, plan_runs};

/// How long missing intervals are collected before they are fetched. Short against any upstream call, long against the
/// time in which callers that were woken by the same clock tick arrive.
pub(in crate::cache) const BATCH_WINDOW: Duration = Duration::from_millis(10);
/// Bytes that an item takes in memory, deflated, as long as nothing better is known.
const ASSUMED_ITEM_BYTES: f64 = 1500.0;

impl Fetcher {
    /// Adds a request to the pending batch of its series. The returned channel closes when the fetches have started.
    ///
    /// The caller has held the lock of the series since it found the intervals missing, and none of them is in flight.
    pub(in crate::cache) fn add_to_batch(
        self: &Arc<Self>,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        state: &mut SeriesState,
        request: PendingRequest,
    ) -> watch::Receiver<()> {
        let batch = state.pending.get_or_insert_with(|| {
            let (sender, started) = watch::channel(());
            let (fetcher, series, shared) = (self.clone(), series.clone(), shared.clone());
            let waiter = request.waiter.upgrade();
            let span = waiter.map(|waiter| waiter.span.child(SpanKind::Internal, "batch")).unwrap_or_default();
            let batch = async move {
                span.scope(fetcher.process_batch(&series, &shared)).await;
                drop(sender);
            };
            spawn(batch.in_current_span());
            PendingBatch { requests: Vec::new(), started }
        });
        batch.requests.push(request);
        batch.started.clone()
    }

    /// Waits for the batch window, looks the batch up in Redis, and starts its fetches.
    async fn process_batch(self: &Arc<Self>, series: &Arc<Series>, shared: &SharedSeriesState) {
        let announcement = self.remote.as_ref().and_then(|remote| remote.announce_batch(&series.account));
        match &self.remote {
            Some(remote) => remote.batch_window(&series.account).await,
            None => sleep(BATCH_WINDOW).await,
        }
        if let Some(redis) = &self.redis {
            self.look_up_batch(redis, series, shared).await;
        }
        match self.remote(&series.account) {
            None => {
                self.start_batch(series, shared);
                drop(announcement);
            }
            Some(remote) => remote.fetch_batch(self, series, shared, announcement),
        }
    }

    /// Starts the runs of a batch: those that a request needs next, and, as far as calls are spare, those behind them.
    fn start_batch(self: &Arc<Self>, series: &Arc<Series>, shared: &SharedSeriesState) {
        let scheduler = self.quotas.scheduler(&series.account);
        let by_caller = scheduler.is_some_and(|scheduler| scheduler.is_contended());
        let mut state = shared.lock();
        let Some(PendingBatch { requests, .. }) = state.pending.take() else { return };
        let now = self.clock.now();
        let settled_before = self.settled_before(&self.settings.of(series), now);
        let density = self.density(&state);
        let waiters = requests.iter().filter_map(|request| request.waiter.upgrade());
        let spare = waiters.map(|waiter| self.spare_runs(series, &waiter.requester)).max().unwrap_or_default();
        // Small runs whose size is a guess are not worth parallel runs.
        let is_guess = state.run_length.longest().is_some() && !density.covers_the_day();
        let spare = if is_guess { 0 } else { spare };
        let plan = |interval, early| self.plan(interval, &density, state.run_length, (early, spare), settled_before);
        let runs = coalesce(&requests, by_caller, plan);
        let (needed, others): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.owner.start == StartPolicy::Now);
        let mut started = needed.len();
        for run in needed {
            self.start_fetch(series, shared, &mut state, run, now);
        }
        // Open data is read by one run after the other: two at a time could both miss an item that moves.
        let is_spare =
            |run: &BatchedRun| run.owner.start == StartPolicy::IfSpare && run.plan.interval.end <= settled_before;
        for run in others.into_iter().filter(is_spare) {
            if spare <= started {
                break;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
            let bytes = (run.plan.items.unwrap_or(FIRST_RUN_ITEMS) * ASSUMED_ITEM_BYTES) as u64;
            let Some(permit) = self.memory.reserve_ahead(bytes) else { break };
            started += 1;
            self.start_fetch(series, shared, &mut state, run, now).hold_read_ahead(permit);
        }
    }

    /// The bounded runs that bring `interval`, of which `spare` could start at once.
    fn plan(
        &self,
        interval: Interval,
        density: &Density,
        run_length: RunLengthPolicy,
        (early, spare): (bool, usize),
        settled_before: Timestamp,
    ) -> Vec<PlannedRun> {
        // Runs are spare only where pages are slow.
        let parallel_runs = if is_worth_parallel_runs(interval, spare > 0) { spare.max(1) } else { 1 };
        let limits = RunLimits {
            most: RunBounds::PRODUCT.items(),
            least_parallel: RunBounds::PRODUCT.least_parallel_items(),
            parallel_runs: f64::from(u32::try_from(parallel_runs).unwrap_or(u32::MAX)),
            first: early.then_some(FIRST_RUN_ITEMS),
            longest: run_length.longest(),
        };
        plan_runs(interval, settled_before, &self.settings.grid, density, limits)
    }
}
