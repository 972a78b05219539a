//! The run plan: the bounded runs that fetch a missing interval, and how long a run of pages is planned to be. Pure.
//!
//! A run is the unit of fetching: complete and verified, or failed. It is small enough to be waited for, to be held in
//! memory and to be fetched again, and large enough that its last, partly filled page (half a page on average) costs
//! little. Open time is never divided: two runs that read it at different times could both miss an item that moves from
//! one to the other.

use std::time::Duration;

use super::{Density, Grid, Interval, Timestamp};

/// Factor on the expected items of a window of which not every hour of the day was observed, when runs are planned in
/// parallel: the observed hours may be those of the night.
const UNOBSERVED_HOURS_MARGIN: f64 = 6.0;

/// Largest allowed ratio of a planned run to the target size of runs.
const OVERSIZE: f64 = 1.2;
/// Fraction of its window that a small run covers: an hour of a week.
const SMALL_RUN_PART: u32 = 7 * 24;

/// Bounds of the size of runs, in items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunLimits {
    /// Most items that one run is planned to bring.
    pub most: f64,
    /// Fewest items that justify a run of its own when runs are planned in parallel: each costs half a page more.
    pub least_parallel: f64,
    /// Number of runs that the interval is divided into for speed; the last one may be shorter.
    pub parallel_runs: f64,
    /// Size of the first run, where the beginning of the window is to be sent early.
    pub first: Option<f64>,
    /// Longest run where the upstream's rows come in no order: such a run cannot end early if it turns out too large.
    pub longest: Option<Duration>,
}

/// A planned run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedRun {
    /// The interval that it fetches.
    pub interval: Interval,
    /// Expected number of items; `None` if the density is unknown.
    pub items: Option<f64>,
}

/// The runs that fetch `missing`, ascending and without gaps. Only time before `settled_before` may be divided.
///
/// With unknown density, all of `missing` is one run: its first page shows how dense it is, and the run ends
/// accordingly.
pub fn plan_runs(
    missing: Interval,
    settled_before: Timestamp,
    grid: &Grid,
    density: &Density,
    limits: RunLimits,
) -> Vec<PlannedRun> {
    if density.is_unknown() && limits.longest.is_none() {
        return vec![PlannedRun { interval: missing, items: None }];
    }
    let (mut settled, open) = missing.split_at(settled_before);
    let mut items_left = density.items(missing);
    let mut runs_left = count(items_left, density, limits);
    let mut first = limits.first.filter(|_| runs_left > 1.0);
    let mut runs = Vec::new();
    while !settled.is_empty() {
        if runs_left <= 1.0 && items_left > limits.most * OVERSIZE {
            // Ends on the grid have left more than one run should fetch.
            runs_left = (items_left / limits.most).ceil();
        }
        let is_short = limits.longest.is_none_or(|longest| missing.end.since(settled.start) <= longest);
        if runs_left <= 1.0 && is_short {
            break;
        }
        // An even share of the rest; of an empty stream, all of it.
        let share = (items_left / runs_left).min(limits.most * OVERSIZE).max(1.0);
        let (size, longest) = if let Some(first) = first.take() {
            // Where not every hour was observed, the first hours may be much denser than expected.
            let longest = if density.covers_the_day() { Duration::MAX } else { small_run_length(missing, grid) };
            (first.min(share), longest)
        } else {
            runs_left = (runs_left - 1.0).max(1.0);
            (share, Duration::MAX)
        };
        let longest = settled.start + limits.longest.unwrap_or(Duration::MAX).min(longest);
        let planned = density.end_of(settled, size).min(longest);
        let end = if planned < settled.end { grid.line_before(settled.start, planned) } else { settled.end };
        let (run, rest) = settled.split_at(end);
        let items = density.items(run);
        runs.push(PlannedRun { interval: run, items: Some(items) });
        (settled, items_left) = (rest, (items_left - items).max(0.0));
    }
    // The last settled piece and the open time are one run, if they fit.
    let rest = Interval::new(settled.start, open.end.max(settled.end));
    if !rest.is_empty() {
        runs.push(PlannedRun { interval: rest, items: Some(density.items(rest)) });
    }
    runs
}

/// Length of a run at the beginning of `window` that is small whatever its density is; at least one cell of the grid.
pub fn small_run_length(window: Interval, grid: &Grid) -> Duration {
    (window.length() / SMALL_RUN_PART).max(grid.cell(window.start).length())
}

/// Number of runs that should fetch an interval of so many items.
fn count(items: f64, density: &Density, limits: RunLimits) -> f64 {
    let margin = if density.covers_the_day() { 1.0 } else { UNOBSERVED_HOURS_MARGIN };
    let worth = (items * margin / limits.least_parallel).floor().max(1.0);
    (items / limits.most).ceil().max(limits.parallel_runs.clamp(1.0, worth))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 3600;
    const LIMITS: RunLimits =
        RunLimits { most: 4000.0, least_parallel: 1200.0, parallel_runs: 1.0, first: None, longest: None };

    fn seconds(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    fn grid() -> Grid {
        Grid::new(Duration::from_hours(1))
    }

    /// A model with `per_day` items in each day, evenly over its hours.
    fn even(items_per_day: u64) -> Density {
        let mut density = Density::default();
        density.add_evenly(seconds(0, 2 * DAY), 2 * items_per_day);
        density
    }

    fn lengths(runs: &[PlannedRun]) -> Vec<u64> {
        runs.iter().map(|run| run.interval.length().as_secs() / 3600).collect()
    }

    fn plan(missing: Interval, density: &Density, limits: RunLimits) -> Vec<PlannedRun> {
        plan_runs(missing, Timestamp::MAX, &grid(), density, limits)
    }

    #[test]
    fn unknown_density_plans_one_run() {
        let whole = seconds(0, 400 * DAY);
        assert_eq!(plan(whole, &Density::default(), LIMITS), [PlannedRun { interval: whole, items: None }]);
    }

    #[test]
    fn known_density_plans_runs_of_equal_size() {
        assert_eq!(lengths(&plan(seconds(0, 2 * DAY), &even(1700), LIMITS)), [48]);
        assert_eq!(lengths(&plan(seconds(0, 7 * DAY), &even(1700), LIMITS)), [56, 56, 56]);
        let early = RunLimits { first: Some(135.0), ..LIMITS };
        assert_eq!(lengths(&plan(seconds(0, 7 * DAY), &even(1700), early))[..2], [1, 55]);
        assert_eq!(lengths(&plan(seconds(0, DAY), &even(1700), early)), [24], "one run brings all of it");
    }

    #[test]
    fn parallel_runs_share_a_window_unless_it_is_small() {
        let parallel = RunLimits { parallel_runs: 8.0, ..LIMITS };
        assert_eq!(plan(seconds(0, 7 * DAY), &even(1700), parallel).len(), 8);
        assert_eq!(plan(seconds(0, 7 * DAY), &even(500), parallel).len(), 2);
        assert_eq!(plan(seconds(0, 7 * DAY), &even(100), parallel).len(), 1);
        let mut weekend = Density::default();
        weekend.add_evenly(seconds(2 * DAY - 6 * 3600, 4 * DAY), 100);
        assert_eq!(plan(seconds(-3 * DAY, DAY), &weekend, parallel).len(), 1, "a hundred items are one run");
        weekend.add_evenly(seconds(2 * DAY - 12 * 3600, 2 * DAY - 6 * 3600), 1000);
        assert_eq!(
            plan(seconds(-3 * DAY, DAY), &weekend, parallel).len(),
            8,
            "working days may be busier than a weekend"
        );
        let mut night = Density::default();
        night.add_evenly(seconds(0, 6 * 3600), 100);
        assert_eq!(plan(seconds(6 * 3600, 7 * DAY), &night, parallel).len(), 8, "the day may be busier");
    }

    #[test]
    fn open_time_is_not_divided() {
        let settled = Timestamp::from_seconds(3 * DAY);
        let runs = plan_runs(seconds(0, 4 * DAY), settled, &grid(), &even(3000), LIMITS);
        assert_eq!(lengths(&runs), [32, 32, 32]);
        let runs = plan_runs(seconds(0, 4 * DAY), Timestamp::from_seconds(0), &grid(), &even(3000), LIMITS);
        assert_eq!(lengths(&runs), [96]);
    }

    #[test]
    fn unordered_runs_are_no_longer_than_allowed() {
        let limits = RunLimits { longest: Some(Duration::from_hours(4)), ..LIMITS };
        assert_eq!(lengths(&plan(seconds(0, DAY / 2), &Density::default(), limits)), [4, 4, 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn runs_tile_what_is_missing(
            start in 0i64..100_000, length in 1i64..40 * DAY, settled in 0i64..50 * DAY, items in 1u64..200_000,
            observed in 1i64..3 * DAY, parallel_runs in 1.0f64..9.0, first in prop::option::of(1.0f64..500.0), chunk in 1u64..90_000
        ) {
            let mut density = Density::default();
            density.add_evenly(seconds(0, observed), items);
            let (missing, settled) = (seconds(start, start + length), Timestamp::from_seconds(settled));
            let limits = RunLimits { parallel_runs, first, ..LIMITS };
            let runs = plan_runs(missing, settled, &Grid::new(Duration::from_secs(chunk)), &density, limits);
            prop_assert_eq!(runs.first().map(|run| run.interval.start), Some(missing.start));
            prop_assert_eq!(runs.last().map(|run| run.interval.end), Some(missing.end));
            prop_assert!(runs.windows(2).all(|pair| pair[0].interval.end == pair[1].interval.start));
            prop_assert!(runs.iter().all(|run| !run.interval.is_empty()));
            prop_assert!(runs.iter().skip(1).all(|run| run.interval.start <= settled), "open time is divided");
        }
    }
}
