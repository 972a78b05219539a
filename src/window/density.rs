//! The density model of a series: row counts by hour of the UTC day, separately for working days and for weekends, and
//! the number of rows that they predict for an interval. Pure.
//!
//! The one density model of the project: run planning, the first page of a window of unknown density, the choice of
//! streaming and the cost of a dry run all use it.

use std::time::Duration;

use super::{Interval, Timestamp};

const HOUR: Duration = Duration::from_hours(1);
const HOURS_PER_DAY: usize = 24;

/// A number of items and the length of time that they lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowRate {
    /// Number of items.
    pub items: u64,
    /// Length of time that was observed.
    pub length: Duration,
}

impl RowRate {
    fn add(&mut self, items: u64, length: Duration) {
        self.items += items;
        self.length += length;
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn per_second(self) -> f64 {
        if self.length.is_zero() { 0.0 } else { self.items as f64 / self.length.as_secs_f64() }
    }
}

/// Observed row counts of one series. Conversations follow working hours, so each hour of the UTC day has a count of
/// its own, and a second one for weekends (UTC). An hour of the weekend that was observed for less than an hour is
/// taken to be like the same hour of working days; an hour of working days, like the mean of everything that was
/// observed.
#[derive(Clone, Debug, Default)]
pub struct Density {
    all: RowRate,
    working_days: [RowRate; HOURS_PER_DAY],
    weekends: [RowRate; HOURS_PER_DAY],
}

impl Density {
    /// Adds an observed interval; `items` returns the number of items in a part of it.
    pub fn add(&mut self, observed: Interval, items: impl Fn(Interval) -> usize) {
        for (hour, part) in observed.by_hour() {
            let (items, length) = (items(part) as u64, part.length());
            self.all.add(items, length);
            let hours = if part.start.is_weekend() { &mut self.weekends } else { &mut self.working_days };
            hours[hour].add(items, length);
        }
    }

    /// Adds an observed interval of which only the number of items is known, as if they were evenly distributed.
    pub fn add_evenly(&mut self, observed: Interval, items: u64) {
        let total = observed.length().as_nanos().max(1);
        let before = |timestamp: Timestamp| {
            let passed = timestamp.since(observed.start).as_nanos();
            usize::try_from(u128::from(items) * passed / total).unwrap_or(usize::MAX)
        };
        self.add(observed, |part| before(part.end) - before(part.start));
    }

    /// Adds items of which only the length of their interval is known, and not its position in the day.
    pub fn add_somewhere(&mut self, length: Duration, items: usize) {
        self.all.add(items as u64, length);
    }

    /// Adds the observations of another model.
    pub fn merge(&mut self, other: &Self) {
        self.all.add(other.all.items, other.all.length);
        let hours = self.working_days.iter_mut().chain(&mut self.weekends);
        for (hour, of_other) in hours.zip(other.working_days.iter().chain(&other.weekends)) {
            hour.add(of_other.items, of_other.length);
        }
    }

    /// Total of everything that was observed.
    pub fn observed(&self) -> RowRate {
        self.all
    }

    /// Whether nothing was observed.
    pub fn is_unknown(&self) -> bool {
        self.all.length.is_zero()
    }

    /// Whether each hour of a working day was observed. Otherwise the estimate may rest on the quiet hours alone.
    pub fn covers_the_day(&self) -> bool {
        self.working_days.iter().all(|hour| hour.length >= HOUR)
    }

    /// Expected number of pages of `page` items that these runs take, each at least one; `None` if nothing was
    /// observed.
    pub fn pages(&self, runs: &[Interval], page: u32) -> Option<u64> {
        if !runs.is_empty() && self.is_unknown() {
            return None;
        }
        let pages = |run: &Interval| {
            // Rounded, so that the floating-point error of a product does not add a page.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
            let items = self.items(*run).round() as u64;
            items.div_ceil(u64::from(page)).max(1)
        };
        Some(runs.iter().map(pages).sum())
    }

    /// Expected number of items in `interval`; zero if nothing was observed.
    pub fn items(&self, interval: Interval) -> f64 {
        interval.by_hour().map(|(hour, part)| self.per_second(hour, part) * part.length().as_secs_f64()).sum()
    }

    /// Expected timestamp by which `interval` has brought `items`; its end if it is not expected to hold as many.
    pub fn end_of(&self, interval: Interval, items: f64) -> Timestamp {
        let mut left = items;
        for (hour, part) in interval.by_hour() {
            let (per_second, seconds) = (self.per_second(hour, part), part.length().as_secs_f64());
            if per_second * seconds >= left {
                return if per_second > 0.0 {
                    part.start + Duration::from_secs_f64(left / per_second)
                } else {
                    part.start
                };
            }
            left -= per_second * seconds;
        }
        interval.end
    }

    /// Expected rows per second of `part`, which lies in `hour` of its day.
    fn per_second(&self, hour: usize, part: Interval) -> f64 {
        let weekend = self.weekends[hour];
        let known = if part.start.is_weekend() && weekend.length >= HOUR { weekend } else { self.working_days[hour] };
        if known.length >= HOUR { known.per_second() } else { self.all.per_second() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 3600;

    fn interval(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    #[test]
    fn density_without_observations_is_unknown() {
        let density = Density::default();
        assert_eq!(density.pages(&[interval(0, 10)], 100), None);
        assert_eq!(density.pages(&[], 100), Some(0), "what asks for nothing costs nothing all the same");
    }

    #[test]
    fn even_stream_costs_its_pages_at_least_one_per_run() {
        let mut density = Density::default();
        // One item every ten seconds.
        density.add(interval(0, DAY), |part| usize::try_from(part.length().as_secs() / 10).unwrap());
        assert_eq!(density.observed(), RowRate { items: 8640, length: Duration::from_hours(24) });
        for (runs, calls) in [
            (vec![interval(DAY, 2 * DAY)], 87),
            (vec![interval(DAY, DAY + 1000)], 1),
            (vec![interval(DAY, DAY + 1010)], 2),
            (vec![interval(DAY, DAY + 10), interval(3 * DAY, 3 * DAY + 10), interval(5 * DAY, 5 * DAY + 2000)], 4),
        ] {
            assert_eq!(density.pages(&runs, 100), Some(calls), "{runs:?}");
        }
    }

    #[test]
    fn hour_of_the_day_has_its_own_density() {
        let mut density = Density::default();
        density.add(interval(0, 3600), |_| 0);
        density.add(interval(9 * 3600, 10 * 3600), |_| 2000);
        // Too short an observation for this hour.
        density.add(interval(20 * 3600, 20 * 3600 + 60), |_| 0);
        let at = |density: &Density, hour: i64| {
            density.pages(&[interval(DAY + hour * 3600, DAY + (hour + 1) * 3600)], 100).unwrap()
        };
        assert_eq!((at(&density, 0), at(&density, 9)), (1, 20));
        assert_eq!((at(&density, 12), at(&density, 20)), (10, 10), "as all that was seen");
        density.add_somewhere(Duration::from_mins(119), 0);
        assert_eq!((at(&density, 9), at(&density, 12)), (20, 5));
    }

    #[test]
    fn weekends_have_their_own_density() {
        // The third day after the epoch, a Saturday, is empty; the Thursday before it is not.
        let (thursday, saturday) = (interval(0, DAY), interval(2 * DAY, 3 * DAY));
        let mut density = Density::default();
        density.add(saturday, |_| 0);
        assert!(!density.covers_the_day(), "a working day may be busier");
        density.add_evenly(thursday, 2400);
        assert!(density.covers_the_day());
        let items = |start: i64, end: i64| density.items(interval(start * DAY, end * DAY)).round();
        assert_eq!((items(1, 2), items(2, 4), items(4, 9)), (2400.0, 0.0, 5.0 * 2400.0));
        let mut working = Density::default();
        working.add_evenly(thursday, 2400);
        assert_eq!(working.pages(&[saturday], 100), Some(24), "as the hours of working days");
    }

    #[test]
    fn end_of_items_follows_the_hours() {
        let mut density = Density::default();
        density.add_evenly(interval(0, 12 * 3600), 120);
        density.add_evenly(interval(12 * 3600, DAY), 1200);
        let end = |items| density.end_of(interval(DAY, 2 * DAY), items).as_seconds() - DAY;
        assert_eq!((end(10.0), end(120.0), end(220.0)), (3600, 12 * 3600, 13 * 3600));
        assert_eq!(end(1e9), DAY, "there are not as many");
        assert_eq!(Density::default().end_of(interval(0, 10), 5.0), interval(0, 10).end);
    }

    #[test]
    fn merged_counts_are_the_sum() {
        let (mut one, mut other) = (Density::default(), Density::default());
        one.add_evenly(interval(0, 12 * 3600), 100);
        other.add_evenly(interval(12 * 3600, DAY), 50);
        assert!(!one.covers_the_day());
        one.merge(&other);
        assert!(one.covers_the_day());
        assert_eq!(one.observed(), RowRate { items: 150, length: Duration::from_hours(24) });
    }

    proptest! {
        /// The estimate does not depend on how observations are divided into entries.
        #[test]
        fn density_is_independent_of_entry_boundaries(cuts in prop::collection::vec(0i64..2 * DAY, 0..12), at in 0i64..9 * DAY, length in 1i64..3 * DAY) {
            let items = |part: Interval| {
                let before = |timestamp: Timestamp| usize::try_from(timestamp.as_seconds() * timestamp.as_seconds() / 90_000_000).unwrap();
                before(part.end) - before(part.start)
            };
            let (mut whole, mut cut) = (Density::default(), Density::default());
            whole.add(interval(0, 2 * DAY), items);
            let mut lines = [cuts, vec![0, 2 * DAY]].concat();
            lines.sort_unstable();
            lines.windows(2).for_each(|pair| cut.add(interval(pair[0], pair[1]), items));
            let runs = [interval(at, at + length)];
            prop_assert_eq!(whole.observed(), cut.observed());
            prop_assert_eq!(whole.pages(&runs, 100), cut.pages(&runs, 100));
        }
    }
}
