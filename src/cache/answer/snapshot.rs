//! Snapshot of one series for a request, while the lock of the series is held.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::gathered::Gathered;
use super::next_step::{FetchChoice, SeriesSnapshot};
use super::query::Query;
use crate::cache::fetch::Fetcher;
use crate::cache::series::{InFlightFetch, SeriesState, Waiter};
use crate::window::{Grid, Interval, IntervalSet};

/// A snapshot of a locked series.
pub(super) struct LockedSeries<'a> {
    fetcher: &'a Fetcher,
    query: &'a Query,
    gathered: &'a Gathered,
    waiter: &'a Arc<Waiter>,
    series: &'a SeriesState,
    on_disk: IntervalSet,
    expected_wait: OnceCell<Duration>,
    /// Fetches that were abandoned since the lock was taken.
    abandoned: RefCell<Vec<usize>>,
}

/// A fetch in flight that the request waits for.
pub(super) struct JoinedFetch {
    pub(super) fetch: Arc<InFlightFetch>,
    /// The interval of the fetch when the request joined.
    pub(super) joined_interval: Interval,
    /// From the first to the last instant that the request needs of it.
    pub(super) needed: Interval,
}

impl<'a> LockedSeries<'a> {
    pub(super) fn new(
        fetcher: &'a Fetcher,
        query: &'a Query,
        gathered: &'a Gathered,
        waiter: &'a Arc<Waiter>,
        series: &'a SeriesState,
        on_disk: IntervalSet,
    ) -> Self {
        let (expected_wait, abandoned) = (OnceCell::new(), RefCell::default());
        Self { fetcher, query, gathered, waiter, series, on_disk, expected_wait, abandoned }
    }

    /// Joins the chosen fetches, and leaves all others. `None` if one of them has just been abandoned by its last
    /// waiter, so that others must be chosen.
    pub(super) fn join(&self, choices: &[FetchChoice]) -> Option<Vec<JoinedFetch>> {
        let mut joined = Vec::with_capacity(choices.len());
        for FetchChoice { index, interval, needed } in choices {
            let fetch = &self.series.in_flight[*index];
            if !self.waiter.join(fetch) {
                self.abandoned.borrow_mut().push(*index);
                return None;
            }
            joined.push(JoinedFetch { fetch: fetch.clone(), joined_interval: *interval, needed: *needed });
        }
        self.waiter.retain_fetches(|fetch| joined.iter().any(|joined| Arc::ptr_eq(fetch, &joined.fetch)));
        Some(joined)
    }

    fn fetch(&self, index: usize) -> &Arc<InFlightFetch> {
        &self.series.in_flight[index]
    }
}

impl SeriesSnapshot for LockedSeries<'_> {
    fn fetches(&self) -> Vec<Interval> {
        self.series.in_flight.iter().map(|fetch| fetch.interval()).collect()
    }

    fn is_joinable(&self, fetch: usize, needed: Interval) -> bool {
        let is_abandoned = self.abandoned.borrow().contains(&fetch);
        let fetch = self.fetch(fetch);
        let expected_wait = *self.expected_wait.get_or_init(|| {
            let scheduler = self.fetcher.quotas.scheduler(&self.query.series.account);
            scheduler.map(|scheduler| scheduler.expected_wait()).unwrap_or_default()
        });
        !is_abandoned
            && fetch.serves(needed, self.query.series.agentic)
            && !fetch.is_too_long_for(needed, self.waiter, expected_wait)
            && self.waiter.may_join(fetch)
    }

    fn expected_of_fetch(&self, fetch: usize) -> Option<f64> {
        self.fetch(fetch).expected()
    }

    fn expected_in(&self, intervals: &IntervalSet) -> Option<f64> {
        let density = self.fetcher.density(self.series);
        let items = || intervals.intervals().iter().map(|interval| density.items(*interval)).sum();
        (!density.is_unknown()).then(items)
    }

    fn has_moved_rows(&self, interval: Interval) -> bool {
        self.series.is_torn(interval)
    }

    fn spare_runs(&self) -> usize {
        self.fetcher.spare_runs(&self.query.series, &self.query.requester)
    }

    fn on_disk(&self) -> &IntervalSet {
        &self.on_disk
    }

    fn gathered_bytes(&self) -> usize {
        self.gathered.bytes()
    }

    fn has_redis(&self) -> bool {
        self.fetcher.redis.is_some()
    }

    fn grid(&self) -> &Grid {
        &self.fetcher.settings.grid
    }
}
