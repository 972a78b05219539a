//! What a window would cost if it were asked for now. Nothing is begun for it, and nothing counts as used.

use std::sync::Arc;
use std::time::Duration;

use super::answer::{Hit, Lookup};
use super::fetch::Fetcher;
use super::fetch::InFlightFetch;
use super::fetch::{coalesce, needed_part};
use super::series::{SeriesState, SharedSeriesState};
use super::store::CacheEntry;
use super::{Cost, WindowQuery};
use crate::paging::PlacementCheck;
use crate::request::Filter;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Density, Interval, IntervalSet, Plan, PlannedRun};

/// What the number of calls is estimated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Whose items.
    pub of: Known,
    /// How many of them are cached.
    pub items: u64,
    /// In how much time.
    pub length: Duration,
}

/// Whose density is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// That of the very series.
    Series,
    /// Only that of all the items that its filter chooses from: there are at most as many.
    Unfiltered,
    /// Nothing is cached to go by.
    Nothing,
}

impl Known {
    /// The word for it in answers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Unfiltered => "unfiltered",
            Self::Nothing => "nothing",
        }
    }
}

/// What `query` would cost now.
pub(super) fn cost(fetcher: &Fetcher, query: &WindowQuery) -> Cost {
    let own = fetcher.series_map.find(&query.series).unwrap_or_default();
    let look = Lookup {
        fetcher,
        series: &query.series,
        asked_at: query.asked_at,
        fresh_since: query.asked_at,
        open: CacheEntry::peek,
    };
    let mut found = Found::default();
    if query.interval.is_empty() {
        // Nobody need be asked for what is still to come.
    } else if fetcher.window_fields.is_wrong(&query.series) {
        found.look_for_exactly(&look, &own.lock(), query.interval);
    } else {
        found.look_for_chunks(&look, &own, query.interval);
    }
    let (density, of) = density(&look, &own);
    fetcher.series_map.remove_if_idle(&query.series, &own);
    let (seen, runs) = (density.observed(), found.runs.intervals().to_vec());
    Cost {
        expected: density.pages(&runs, PAGE_LIMIT),
        runs,
        under_way: found.under_way.intervals().to_vec(),
        chunks: found.chunks,
        hits: found.hits,
        basis: Basis { of, items: seen.items, length: seen.length },
    }
}

/// How a window would be answered.
#[derive(Debug, Default)]
struct Found {
    runs: IntervalSet,
    /// What of the window is being fetched already.
    under_way: IntervalSet,
    chunks: usize,
    hits: usize,
}

fn can_be_joined(flight: &InFlightFetch) -> bool {
    !flight.waiters.is_abandoned() && !flight.is_closed()
}

impl Found {
    /// As `Session::survey` finds it.
    fn look_for_chunks(&mut self, look: &Lookup<'_>, own: &SharedSeriesState, window: Interval) {
        let mut plan = Plan::new(window);
        let shelf = look.take(&mut plan, own);
        let agentic = look.series.agentic;
        let flights = shelf.in_flight.iter().filter(|flight| can_be_joined(flight) && flight.serves(window, agentic));
        // What is still being gathered for somebody is as good as on its way.
        let undivided = |interval, _| vec![PlannedRun { interval, items: None }];
        let gathered = shelf.pending.as_ref().map(|gathering| coalesce(&gathering.requests, false, undivided));
        let gathered = gathered.unwrap_or_default().into_iter().filter(|run| run.agentic || !agentic);
        let mut unasked = plan.missing.clone();
        for interval in flights.map(|flight| flight.interval()).chain(gathered.map(|run| run.plan.interval)) {
            if needed_part(&unasked, interval).is_some() {
                unasked.remove(interval);
                self.under_way.insert(interval.intersection(window));
            }
        }
        drop(shelf);
        self.runs = look.runs(&plan, &unasked);
        self.count(look, &plan.hits, window);
    }

    /// Counts the pieces of the answer: what comes takes the place of copies, and is cut where it is settled and where
    /// the grid says. Where the stream is dense, it will be cut further.
    fn count(&mut self, look: &Lookup<'_>, hits: &[(Interval, Hit)], window: Interval) {
        let coming: IntervalSet = self
            .runs
            .intervals()
            .iter()
            .chain(self.under_way.intervals())
            .map(|interval| interval.intersection(window))
            .collect();
        let stay = |interval: Interval| {
            let mut left = IntervalSet::from(interval);
            coming.intervals().iter().for_each(|coming| left.remove(*coming));
            left.intervals().len()
        };
        self.hits = hits.iter().map(|(interval, _)| stay(*interval)).sum();
        let settled_before = look.fetcher.freshness_policy.settled_before(look.asked_at);
        let pieces = |interval: &Interval| {
            let (settled, open) = interval.split_at(settled_before);
            [settled, open].map(|part| look.fetcher.grid.cut(part, |_| true).len()).into_iter().sum::<usize>()
        };
        self.chunks = self.hits + coming.intervals().iter().map(pieces).sum::<usize>();
    }

    /// As `Session::gather_exactly` finds it.
    fn look_for_exactly(&mut self, look: &Lookup<'_>, shelf: &SeriesState, window: Interval) {
        let key = (window, look.series.agentic);
        self.chunks = 1;
        let flies = |flight: &Arc<InFlightFetch>| {
            (flight.interval(), flight.spec.agentic, flight.spec.placed) == (key.0, key.1, PlacementCheck::Unchecked)
                && can_be_joined(flight)
        };
        if shelf.exact.get(&key).is_some_and(|copy| copy.peek(&look.fetcher.memory).is_some()) {
            self.hits = 1;
        } else if shelf.in_flight.iter().any(flies) {
            self.under_way.insert(window);
        } else {
            self.runs.insert(window);
        }
    }
}

/// How dense the series is, or else all that its filter chooses from.
fn density(look: &Lookup<'_>, own: &SharedSeriesState) -> (Density, Known) {
    let cached = |shelf: &SharedSeriesState| shelf.lock().density(|copy| copy.peek(&look.fetcher.memory));
    let of_series = cached(own);
    if !of_series.is_unknown() {
        return (of_series, Known::Series);
    }
    let filtered = matches!(look.series.filter, Filter::Known(_));
    let unfiltered = if filtered { look.unfiltered() } else { None };
    let unfiltered = unfiltered.as_ref().map(cached).unwrap_or_default();
    let of = if unfiltered.is_unknown() { Known::Nothing } else { Known::Unfiltered };
    (unfiltered, of)
}
