//! The session of one request: a loop of two steps, shared by answers that are whole, exact, streamed, or for another
//! replica.
//!
//! 1. [`Session::plan_next_step`] looks at all sources (gathered chunks, memory, disk, fetches in flight, Redis by name).
//!    Under the lock under which it finds something missing, it joins or requests the fetch that brings it, so that no
//!    time is fetched twice.
//! 2. [`Session::wait`] (`wait.rs`) waits for what the first step found to be next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::gathered::Gathered;
use super::lookup::{Hit, ItemConversion, Lookup, LookupPolicy};
use super::next_step::{Action, NextStep, next_step};
use super::progress::{AnswerProgress, PartialFacts};
use super::query::{Delivery, Query};
use super::snapshot::{JoinedFetch, LockedSeries};
use super::tier_read::first_piece;
use crate::cache::chunk::Chunk;
use crate::cache::disk::DiskHit;
use crate::cache::error::CacheError;
use crate::cache::fetch::{Fetcher, UnreportedCalls, needed_part};
use crate::cache::redis::RedisListing;
use crate::cache::series::{
    BatchGuard, FetchedInterval, InFlightFetch, NextNeed, PendingRequest, SeriesState, SharedSeriesState, Waiter,
};
use crate::cache::store::CacheEntry;
use crate::cache::types::WindowQuery;
use crate::paging::PagingError;
use crate::request::{Filter, KnownFilter, QueueTimeout};
use crate::window::{FreshnessDemand, Interval, IntervalSet, Plan, Timestamp};

/// What a shared fetch has fetched at most this long before a request serves it, however short the freshness is.
const ALWAYS_FRESH_AGE: Duration = Duration::from_secs(5);

/// The state of one request, from its query to its answer.
pub(super) struct Session {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) query: Query,
    pub(super) series_state: SharedSeriesState,
    /// Registered with the fetches that the request waits for, as long as the session exists.
    pub(super) waiter: Arc<Waiter>,
    /// Dropped when the missing time has been requested, so that the leader's batch is complete.
    batch_guard: Option<Arc<BatchGuard>>,
    pub(super) gathered: Gathered,
    pub(super) progress: AnswerProgress,
    pub(super) report: PartialFacts,
    /// Whether cached data turned out not to be true any more, so that no cached copy is accepted in its place.
    rejects_cached: bool,
}

/// The result of a planning round.
pub(super) enum Round {
    /// All of the remaining window.
    Complete(Vec<(Interval, Hit)>),
    /// A part of it.
    Partial {
        /// The adjacent beginning of the remaining window, ascending.
        beginning: Vec<(Interval, Hit)>,
        /// Whether the answer is streamed from here on.
        is_long: bool,
        next: WaitFor,
    },
}

/// The event to wait for before the next round.
pub(super) enum WaitFor {
    /// The start of the runs of a batch.
    Batch(watch::Receiver<()>),
    /// News of fetches in flight.
    Fetches(Vec<JoinedFetch>),
    /// Chunks on disk, each with the part of the window that it serves.
    DiskChunks(Vec<(Interval, DiskHit)>),
    /// The names of the chunks that Redis has of these intervals.
    RedisNames(IntervalSet),
    /// The chunks that Redis has of these intervals.
    RedisChunks(IntervalSet),
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fetcher.series_map.remove_if_idle(&self.query.series, &self.series_state);
    }
}

impl UnreportedCalls for Session {
    fn charge(&self) -> u32 {
        self.gathered.charge()
    }
}

impl Session {
    /// The session of a request that waits for the quota for as long as `queue_timeout`.
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        query: WindowQuery,
        queue_timeout: Arc<QueueTimeout>,
        batch_guard: Option<Arc<BatchGuard>>,
    ) -> Self {
        let query = Query::new(query, &fetcher);
        Self {
            series_state: fetcher.series_map.get_or_insert(&query.series),
            waiter: Waiter::new(query.requester.clone(), query.span.clone(), queue_timeout),
            batch_guard,
            gathered: Gathered::default(),
            progress: AnswerProgress::new(query.window, query.lists_redis),
            report: PartialFacts::default(),
            rejects_cached: false,
            fetcher,
            query,
        }
    }

    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup {
            policy: LookupPolicy::new(
                &self.fetcher,
                &self.query.settings,
                self.query.asked_at,
                self.query.options.freshness,
            ),
            series: &self.query.series,
            asked_at: self.query.asked_at,
            fresh_since: self.query.asked_at,
            open: CacheEntry::use_chunk,
        }
    }

    /// Finds what serves the remaining window now, and has the next missing time fetched.
    ///
    /// # Errors
    /// If a fetch has failed that was to bring the next missing time, or that time cannot be fetched now.
    pub(super) fn plan_next_step(&mut self) -> Result<Round, CacheError> {
        let mut plan = Plan::new(self.progress.remaining);
        self.take_gathered(&mut plan);
        self.lookup().take_filterable(&mut plan, &self.series_state);
        let filterable = self.fetcher.disk.as_ref().map(|_| self.lookup().filterable_on_disk(&plan.missing));
        // From here on the lock is held: missing time is requested before another request can find it missing.
        let series_state = self.series_state.clone();
        let mut series = series_state.lock();
        // A fetch that finishes does so under the lock, so what has not finished now is still in flight.
        self.take_finished(&self.progress.to_fetch(&plan.missing))?;
        self.take_gathered(&mut plan);
        self.lookup().take_entries(&mut plan, &series, None);
        let on_disk = filterable.map(|filterable| self.lookup().on_disk(&plan.missing, &series, &filterable));
        let on_disk = on_disk.unwrap_or_default();
        self.release_batch_guard();
        self.report.is_stale |= plan.stale;
        let (step, fetches) = self.choose_step(&plan, &on_disk, &series);
        if !matches!(step, NextStep::Complete | NextStep::ListRedis(_)) {
            self.report_entries(&plan, &on_disk);
        }
        let beginning = adjacent_beginning(self.progress.remaining, &plan.hits);
        match step {
            NextStep::Complete => Ok(Round::Complete(plan.hits)),
            NextStep::ListRedis(intervals) => {
                Ok(Round::Partial { beginning: Vec::new(), is_long: false, next: WaitFor::RedisNames(intervals) })
            }
            NextStep::SendBeginning => {
                Ok(Round::Partial { beginning, is_long: false, next: WaitFor::Fetches(Vec::new()) })
            }
            NextStep::RowsMoved(interval) => Err(CacheError::Paging(PagingError::Torn(interval))),
            // Before anything is read or sent of a window that cannot be answered as a whole.
            NextStep::Proceed { .. } if self.query.options.only_cached && self.must_fetch(&plan, &on_disk) => {
                Err(CacheError::NotCached)
            }
            NextStep::Proceed { action, is_long, .. } => {
                let next = match action {
                    Action::ReadDisk => WaitFor::DiskChunks(first_piece(on_disk, &plan.missing)),
                    Action::ReadRedis(piece) => WaitFor::RedisChunks(piece),
                    Action::AwaitFetches => WaitFor::Fetches(fetches),
                    Action::RequestRuns { unclaimed, next_need, is_additional } => {
                        let runs = self.lookup().runs(&plan, &unclaimed);
                        WaitFor::Batch(self.request_runs(&mut series, runs, next_need, is_additional))
                    }
                };
                Ok(Round::Partial { beginning, is_long, next })
            }
        }
    }

    /// Decides on the next step, and joins the fetches that it chooses.
    fn choose_step(
        &self,
        plan: &Plan<Hit>,
        on_disk: &[(Interval, DiskHit)],
        series: &SeriesState,
    ) -> (NextStep, Vec<JoinedFetch>) {
        let on_disk = on_disk.iter().map(|(interval, _)| *interval).collect();
        let snapshot = LockedSeries::new(&self.fetcher, &self.query, &self.gathered, &self.waiter, series, on_disk);
        loop {
            let step = next_step(&self.progress, plan, &snapshot);
            let NextStep::Proceed { fetches, .. } = &step else { return (step, Vec::new()) };
            // Otherwise the next choice is made without the one that was abandoned.
            if let Some(joined) = snapshot.join(fetches) {
                return (step, joined);
            }
        }
    }

    /// Adds runs to the pending batch of the series.
    fn request_runs(
        &mut self,
        series: &mut SeriesState,
        intervals: IntervalSet,
        next_need: Option<NextNeed>,
        is_additional: bool,
    ) -> watch::Receiver<()> {
        self.progress.has_requested_additional_run = is_additional;
        let request = PendingRequest {
            intervals,
            agentic: self.query.series.agentic,
            waiter: Arc::downgrade(&self.waiter),
            fresh_since: self.query.asked_at,
            freshness: self.demand(),
            redis_checked: self.progress.listing.is_some() || self.rejects_cached,
            next_need,
            more_runs: is_additional,
        };
        self.fetcher.add_to_batch(&self.query.series, &self.series_state, series, request)
    }

    fn report_entries(&mut self, plan: &Plan<Hit>, on_disk: &[(Interval, DiskHit)]) {
        let cached = plan.hits.iter().filter(|(_, hit)| hit.is_cached).map(|(_, hit)| hit.chunk.fetched_at());
        let cached = cached.chain(on_disk.iter().map(|(_, hit)| hit.facts.fetched_at));
        let listed = self.progress.listing.as_ref().and_then(RedisListing::oldest);
        self.report.add(cached.chain(listed), self.must_fetch(plan, on_disk));
    }

    /// Whether a part of the remaining window is in no tier.
    fn must_fetch(&self, plan: &Plan<Hit>, on_disk: &[(Interval, DiskHit)]) -> bool {
        let missing = plan.missing.without(&on_disk.iter().map(|(interval, _)| *interval).collect());
        !self.progress.to_fetch(&missing).is_empty()
    }

    /// Takes the chunks that the batch has found in Redis for this request, and those that its finished fetches returned. An
    /// error if a fetch has failed that was to bring the next missing time.
    fn take_finished(&mut self, missing: &IntervalSet) -> Result<(), CacheError> {
        for hit in self.waiter.take_redis_hits() {
            self.gathered.add_from_tier(hit);
        }
        for (fetch, result) in self.waiter.take_finished() {
            self.progress.has_requested_additional_run = false;
            let fetched = match result {
                Ok(fetched) => fetched,
                Err(error) if is_needed(&error, fetch.interval(), missing) => return Err(error),
                // A run behind the next one is requested again when it is the next.
                Err(_) => continue,
            };
            if fetched.chunks.is_empty() {
                self.waiter.queue_timeout.attempt_again();
            }
            self.progress.count_fetch(fetched.chunks.is_empty())?;
            for chunk in fetched.chunks.iter().filter(|chunk| chunk.interval().overlaps(self.progress.remaining)) {
                let usable = self.usable_part(&fetch, &fetched, chunk);
                self.gathered.add_chunk(&usable, chunk, fetch.spec.agentic);
            }
            self.gathered.add_fetch(fetch, fetched.interval);
        }
        Ok(())
    }

    /// The part of a chunk of a finished fetch that may serve the request. A shared fetch may have begun long before the
    /// request came, as when it waited for the quota: what it had fetched by then must be as fresh as cached data. A
    /// request with `no-cache` shares a fetch as others do.
    pub(super) fn usable_part(&self, fetch: &InFlightFetch, fetched: &FetchedInterval, chunk: &Chunk) -> IntervalSet {
        // A chunk that the leader cut its answer from may reach beyond the answer, where it was too old to be served.
        if fetch.is_remote() {
            return chunk.interval().intersection(fetched.interval).into();
        }
        // Not judged by the clock, which may have been set back.
        if fetch.began_after(&self.waiter) {
            return chunk.interval().into();
        }
        let demand = match self.query.options.freshness {
            FreshnessDemand::Refetch => FreshnessDemand::POLICY,
            bounded @ FreshnessDemand::Bounded { .. } => bounded,
        };
        let Query { series, asked_at, .. } = &self.query;
        let accepted = (*asked_at - ALWAYS_FRESH_AGE, demand);
        self.fetcher.fresh_part(series, chunk.interval(), chunk.fetched_at(), accepted, *asked_at)
    }

    fn take_gathered(&mut self, plan: &mut Plan<Hit>) {
        let (fetcher, query) = (&self.fetcher, &self.query);
        // A purge may have come since a chunk was gathered. A request that spans it may be answered from the fetch that it
        // waited for, but not from a cache; and what is streamed is taken at the time at which it is sent.
        let is_streamed = self.progress.delivery == Delivery::Streamed;
        self.gathered.chunks.retain(|_, gathered| {
            !(is_streamed || gathered.is_cached) || !fetcher.purges.is_purged(&query.series, &gathered.chunk)
        });
        plan.take(
            &self.gathered.chunks,
            &query.settings.freshness_policy,
            query.asked_at,
            Timestamp::MIN,
            |gathered| {
                let filter = match &query.series.filter {
                    Filter::Known(filter) if gathered.is_unfiltered => Some(KnownFilter::clone(filter)),
                    _ => None,
                };
                let conversion = ItemConversion { strips_agentic: gathered.agentic && !query.series.agentic, filter };
                Some(Hit { chunk: gathered.chunk.clone(), conversion, is_cached: gathered.is_cached })
            },
        );
    }

    /// Waits while it is being checked whether windows of the account may be cut.
    ///
    /// # Errors
    /// [`PagingError::WindowField`] if they may not.
    pub(super) async fn check_window_field(&self) -> Result<(), CacheError> {
        let Fetcher { window_fields, settings, .. } = &*self.fetcher;
        window_fields.check_finished(&settings.field_scope(&self.query.series)).await;
        let is_wrong = window_fields.is_wrong(&self.query.series, &self.query.settings);
        if is_wrong { Err(CacheError::Paging(PagingError::WindowField)) } else { Ok(()) }
    }

    /// Drops what is cached of these intervals, because items have moved out of them. Other replicas and Redis may have it
    /// too, so what is fetched from now on does not come from there.
    pub(super) fn reject_moved(&mut self, intervals: &[Interval]) {
        self.rejects_cached = true;
        self.invalidate(intervals);
    }

    /// Drops what is cached of these intervals, because it is known not to be true any more.
    pub(super) fn invalidate(&mut self, intervals: &[Interval]) {
        let unfiltered = match self.query.series.filter {
            Filter::Known(_) => self.lookup().unfiltered(),
            _ => None,
        };
        for interval in intervals {
            self.gathered.chunks.remove(*interval);
            for series_state in std::iter::once(&self.series_state).chain(&unfiltered) {
                series_state.lock().entries.remove(*interval);
            }
        }
    }

    /// The demand on the age of cached data that is looked up elsewhere than in memory.
    pub(super) fn demand(&self) -> FreshnessDemand {
        if self.rejects_cached { FreshnessDemand::Refetch } else { self.query.options.freshness }
    }

    /// Lets the leader's batch complete: the missing time of this request has been requested.
    pub(super) fn release_batch_guard(&mut self) {
        self.batch_guard = None;
    }

    /// Marks what lies before `timestamp` as answered.
    pub(super) fn advance_to(&mut self, timestamp: Timestamp) {
        self.gathered.discard_before(self.progress.remaining, timestamp);
        self.progress.remaining = self.progress.remaining.split_at(timestamp).1;
        // Until the client took it, the request did not wait for the quota.
        self.waiter.queue_timeout.at_most(Duration::ZERO);
    }
}

/// Whether the request cannot continue after a fetch of `interval` has failed: it was to bring the next missing time,
/// or nothing of the account can be cut any more.
fn is_needed(error: &CacheError, interval: Interval, missing: &IntervalSet) -> bool {
    let is_field_wrong = matches!(error, CacheError::Paging(PagingError::WindowField));
    let is_next = missing.intervals().first().is_some_and(|first| interval.contains(first.start));
    needed_part(missing, interval).is_some() && (is_field_wrong || is_next)
}

/// The hits that follow each other from the beginning of `interval` on, ascending.
fn adjacent_beginning(interval: Interval, hits: &[(Interval, Hit)]) -> Vec<(Interval, Hit)> {
    let mut hits: Vec<_> = hits.to_vec();
    hits.sort_by_key(|(interval, _)| interval.start);
    let mut end = interval.start;
    let follows = |(interval, _): &(Interval, Hit)| std::mem::replace(&mut end, interval.end) == interval.start;
    hits.into_iter().take_while(follows).collect()
}
