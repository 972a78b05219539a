//! Windows that are not divided into chunks: cached, and fetched, as exactly the requested window.
//!
//! For a window with an item whose timestamp lies outside of it or is missing, and for accounts whose `window.field` is
//! wrong.

use std::sync::Arc;

use super::progress::MAX_ROUNDS_WITHOUT_PROGRESS;
use super::query::Delivery;
use super::session::{Session, WaitFor};
use super::snapshot::JoinedFetch;
use crate::cache::chunk::{Chunk, Slice};
use crate::cache::error::CacheError;
use crate::cache::fetch::{ExactWindow, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::series::{InFlightFetch, SeriesState};
use crate::paging::{PagingError, PlacementCheck};
use crate::window::{FreshnessDemand, IntervalSet};

/// The source of an exact window.
enum ExactSource {
    Cached(Arc<Chunk>),
    Fetch(Arc<InFlightFetch>),
}

impl Session {
    /// The upstream's answer to exactly this window, as one segment.
    ///
    /// # Errors
    /// If the fetch fails, or its rows moved a moment ago.
    pub(super) async fn assemble_exactly(&mut self) -> Result<(Vec<Segment>, Outcome), CacheError> {
        self.gathered.clear_fetches();
        self.waiter.retain_fetches(|_| false);
        self.progress.delivery = Delivery::Whole;
        for _ in 0..MAX_ROUNDS_WITHOUT_PROGRESS {
            let source = self.find_exact_source()?;
            self.release_batch_guard();
            let (chunk, outcome) = match source {
                ExactSource::Cached(chunk) => (chunk, Outcome::Hit),
                ExactSource::Fetch(fetch) => {
                    let Some(chunk) = self.wait_for_exact(fetch).await? else {
                        // Another replica is the leader now, or the shared fetch began too long ago.
                        self.waiter.queue_timeout.attempt_again();
                        continue;
                    };
                    (chunk, Outcome::Bypass)
                }
            };
            return Ok((vec![self.exact_segment(chunk, outcome == Outcome::Hit)], outcome));
        }
        Err(CacheError::FetchLost)
    }

    /// The one segment of the window, if it is cached.
    pub(super) fn find_cached_exactly(&self) -> Option<Vec<Segment>> {
        let chunk = self.cached_exact_chunk(&self.series_state.lock())?;
        Some(vec![self.exact_segment(chunk, true)])
    }

    fn exact_segment(&self, chunk: Arc<Chunk>, is_cached: bool) -> Segment {
        let (interval, fetched_at) = (self.progress.remaining, chunk.fetched_at());
        let slice = Slice { rows: 0..chunk.len(), chunk };
        Segment { interval, slice, fetched_at, is_cached, is_derived: false }
    }

    fn cached_exact_chunk(&self, series: &SeriesState) -> Option<Arc<Chunk>> {
        let entry = series.exact.get(&(self.progress.remaining, self.query.series.agentic))?;
        // `window.settle_after` may have been raised since.
        let settled_before = self.query.settings.freshness_policy.settled_before(entry.fetched_at);
        let is_old = entry.fetched_at < self.query.asked_at;
        let is_refetch = self.query.options.freshness == FreshnessDemand::Refetch;
        if is_old && (is_refetch || entry.chunk.end > settled_before) {
            return None;
        }
        entry.use_chunk(&self.fetcher.memory)
    }

    /// Waits until an exact fetch has finished. `None` if it returned nothing, or what is too old for the request.
    async fn wait_for_exact(&mut self, fetch: Arc<InFlightFetch>) -> Result<Option<Arc<Chunk>>, CacheError> {
        let needed = self.progress.remaining;
        while fetch.result().is_none() {
            let (fetch, joined_interval) = (fetch.clone(), fetch.interval());
            self.wait(WaitFor::Fetches(vec![JoinedFetch { fetch, joined_interval, needed }])).await?;
        }
        let fetched = fetch.result().ok_or(CacheError::FetchLost)??;
        let is_usable = |chunk: &&Arc<Chunk>| {
            let usable = self.usable_part(&fetch, &fetched, chunk);
            IntervalSet::from(chunk.interval()).without(&usable).is_empty()
        };
        let chunk = fetched.chunks.first().filter(is_usable).cloned();
        self.gathered.add_calls(fetch);
        Ok(chunk)
    }

    /// The cached window, or the fetch that brings it, which is started if there is none.
    fn find_exact_source(&self) -> Result<ExactSource, CacheError> {
        let (window, agentic) = (self.progress.remaining, self.query.series.agentic);
        let mut series = self.series_state.lock();
        if let Some(chunk) = self.cached_exact_chunk(&series) {
            return Ok(ExactSource::Cached(chunk));
        }
        if self.query.options.only_cached {
            return Err(CacheError::NotCached);
        }
        if series.is_torn(window) {
            return Err(CacheError::Paging(PagingError::Torn(window)));
        }
        let is_exact = |fetch: &&Arc<InFlightFetch>| {
            let route = &fetch.spec;
            fetch.interval() == window && route.agentic == agentic && route.placement == PlacementCheck::Unchecked
        };
        let mut exact = series.in_flight.iter().filter(is_exact);
        let fetch = exact.find(|fetch| self.waiter.may_join(fetch) && self.waiter.join(fetch)).cloned();
        Ok(ExactSource::Fetch(fetch.unwrap_or_else(|| {
            self.fetcher.fetch_exactly(ExactWindow {
                series: &self.query.series,
                shared: &self.series_state,
                state: &mut series,
                interval: window,
                fresh_since: self.query.asked_at,
                freshness: self.query.options.freshness,
                waiter: &self.waiter,
            })
        })))
    }
}
