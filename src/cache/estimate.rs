//! Estimates the cost of a window. Starts no fetch, and no chunk counts as used.

use std::sync::Arc;

use super::answer::{Lookup, LookupPolicy};
use super::fetch::{Fetcher, coalesce, needed_part};
use super::outcome::Outcome;
use super::series::{InFlightFetch, SeriesState, SharedSeriesState};
use super::store::CacheEntry;
use super::types::{Cost, CostBasis, DensitySource, WindowQuery};
use crate::paging::PlacementCheck;
use crate::request::Filter;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Density, Grid, Interval, IntervalSet, Plan, PlannedRun};

/// The cost of `query` now.
pub(super) fn cost(fetcher: &Fetcher, query: &WindowQuery) -> Cost {
    let own = fetcher.series_map.find(&query.series).unwrap_or_default();
    let settings = fetcher.settings.of(&query.series);
    let lookup = Lookup {
        policy: LookupPolicy::new(fetcher, &settings, query.asked_at, query.options.freshness),
        series: &query.series,
        asked_at: query.asked_at,
        fresh_since: query.asked_at,
        open: CacheEntry::peek,
    };
    let mut forecast = AnswerForecast::default();
    if query.interval.is_empty() {
        // Future time needs no call.
    } else if fetcher.window_fields.is_wrong(&query.series, &settings) {
        forecast.find_exact(&lookup, &own.lock(), query.interval);
    } else {
        forecast.find_chunks(&lookup, &fetcher.settings.grid, &own, query.interval);
    }
    let (density, source) = density(&lookup, &own);
    fetcher.series_map.remove_if_idle(&query.series, &own);
    let (seen, runs) = (density.observed(), forecast.runs.intervals().to_vec());
    Cost {
        expected: density.pages(&runs, PAGE_LIMIT),
        runs,
        under_way: forecast.under_way.intervals().to_vec(),
        chunks: forecast.chunks,
        hits: forecast.hits,
        outcome: forecast.outcome(),
        basis: CostBasis { source, items: seen.items, length: seen.length },
        settled_until: fetcher.settled_before(&settings, query.asked_at),
    }
}

/// The sources from which a window would be answered.
#[derive(Debug, Default)]
struct AnswerForecast {
    runs: IntervalSet,
    /// The part of the window that is being fetched already.
    under_way: IntervalSet,
    chunks: usize,
    hits: usize,
    /// Whether an entry is there, but too old.
    is_stale: bool,
    /// Whether the window is not cut into chunks.
    is_exact: bool,
}

fn is_joinable(fetch: &InFlightFetch) -> bool {
    !fetch.waiters.is_abandoned() && !fetch.is_closed()
}

impl AnswerForecast {
    /// The cache's part in the answer, if all of it is fetched that is missing now.
    fn outcome(&self) -> Outcome {
        match (self.runs.is_empty(), self.under_way.is_empty()) {
            (true, true) => Outcome::Hit,
            _ if self.is_exact => Outcome::Bypass,
            (true, false) => Outcome::Collapsed,
            _ if self.is_stale => Outcome::Stale,
            _ if self.hits > 0 => Outcome::Partial,
            _ => Outcome::Miss,
        }
    }

    /// Forecasts an answer from chunks, as a session plans it.
    fn find_chunks(&mut self, lookup: &Lookup<'_>, grid: &Grid, own: &SharedSeriesState, window: Interval) {
        let mut plan = Plan::new(window);
        let filterable = lookup.filterable_on_disk(&window.into());
        let series = lookup.take(&mut plan, own);
        let on_disk = lookup.on_disk(&plan.missing, &series, &filterable);
        let on_disk: Vec<Interval> = on_disk.into_iter().map(|(interval, _)| interval).collect();
        let agentic = lookup.series.agentic;
        let fetches = series.in_flight.iter().filter(|fetch| is_joinable(fetch) && fetch.serves(window, agentic));
        // The runs of the pending batch start within milliseconds.
        let undivided = |interval, _| vec![PlannedRun { interval, items: None }];
        let batched = series.pending.as_ref().map(|batch| coalesce(&batch.requests, false, undivided));
        let batched = batched.unwrap_or_default().into_iter().filter(|run| run.agentic || !agentic);
        let mut unclaimed = plan.missing.without(&on_disk.iter().copied().collect());
        for interval in fetches.map(|fetch| fetch.interval()).chain(batched.map(|run| run.plan.interval)) {
            if needed_part(&unclaimed, interval).is_some() {
                unclaimed.remove(interval);
                self.under_way.insert(interval.intersection(window));
            }
        }
        drop(series);
        self.is_stale = plan.stale;
        self.runs = lookup.runs(&plan, &unclaimed);
        let hits = plan.hits.iter().map(|(interval, _)| *interval).chain(on_disk);
        self.count_slices(lookup, grid, hits, window);
    }

    /// Counts the chunk slices of the answer: fetched chunks replace cached ones, and are cut where time has settled,
    /// and on the grid. Where the stream is dense, they will be cut further.
    fn count_slices(
        &mut self,
        lookup: &Lookup<'_>,
        grid: &Grid,
        hits: impl Iterator<Item = Interval>,
        window: Interval,
    ) {
        let fetched: IntervalSet = self
            .runs
            .intervals()
            .iter()
            .chain(self.under_way.intervals())
            .map(|interval| interval.intersection(window))
            .collect();
        let kept_parts = |interval: Interval| {
            let mut left = IntervalSet::from(interval);
            fetched.intervals().iter().for_each(|fetched| left.remove(*fetched));
            left.intervals().len()
        };
        self.hits = hits.map(kept_parts).sum();
        let settled_before = lookup.policy.freshness.settled_before(lookup.asked_at);
        let slices = |interval: &Interval| {
            let (settled, open) = interval.split_at(settled_before);
            [settled, open].map(|part| grid.cut(part, |_| true).len()).into_iter().sum::<usize>()
        };
        self.chunks = self.hits + fetched.intervals().iter().map(slices).sum::<usize>();
    }

    /// Forecasts an answer of a window that is not cut, as a session finds it.
    fn find_exact(&mut self, lookup: &Lookup<'_>, series: &SeriesState, window: Interval) {
        let key = (window, lookup.series.agentic);
        (self.chunks, self.is_exact) = (1, true);
        let is_exact = |fetch: &Arc<InFlightFetch>| {
            (fetch.interval(), fetch.spec.agentic, fetch.spec.placement) == (key.0, key.1, PlacementCheck::Unchecked)
                && is_joinable(fetch)
        };
        if series.exact.get(&key).is_some_and(|entry| entry.peek(lookup.policy.memory).is_some()) {
            self.hits = 1;
        } else if series.in_flight.iter().any(is_exact) {
            self.under_way.insert(window);
        } else {
            self.runs.insert(window);
        }
    }
}

/// The density of the series, or, if nothing of it is cached, of the same series without its filter.
fn density(lookup: &Lookup<'_>, own: &SharedSeriesState) -> (Density, DensitySource) {
    let cached = |series: &SharedSeriesState| series.lock().density(|entry| entry.peek(lookup.policy.memory));
    let of_series = cached(own);
    if !of_series.is_unknown() {
        return (of_series, DensitySource::Series);
    }
    let is_filtered = matches!(lookup.series.filter, Filter::Known(_));
    let unfiltered = if is_filtered { lookup.unfiltered() } else { None };
    let unfiltered = unfiltered.as_ref().map(cached).unwrap_or_default();
    let source = if unfiltered.is_unknown() { DensitySource::Nothing } else { DensitySource::Unfiltered };
    (unfiltered, source)
}
