//! The calendar of a stream: how much of each day is cached in which tier. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::window::{Interval, IntervalSet, Timestamp};

const DAY: Duration = Duration::from_hours(24);

/// The cached time of a stream. Time in several sets counts for the first of them: memory, disk, Redis, open.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct CachedTime {
    pub(in crate::admin) memory: IntervalSet,
    pub(in crate::admin) disk: IntervalSet,
    pub(in crate::admin) redis: IntervalSet,
    /// Cached time that was not settled when it was fetched.
    pub(in crate::admin) open: IntervalSet,
}

/// The parts of a day, or of several, in seconds. Together they are the time that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::admin) struct DayParts {
    pub(in crate::admin) memory: u64,
    pub(in crate::admin) disk: u64,
    pub(in crate::admin) redis: u64,
    pub(in crate::admin) open: u64,
    pub(in crate::admin) missing: u64,
}

impl DayParts {
    /// All seconds.
    pub(in crate::admin) fn total(self) -> u64 {
        self.cached() + self.missing
    }

    /// The seconds that are cached in any tier.
    pub(in crate::admin) fn cached(self) -> u64 {
        self.memory + self.disk + self.redis + self.open
    }
}

/// A day of the calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::admin) struct CalendarDay {
    /// As in `2026-02-23`.
    pub(in crate::admin) date: String,
    #[serde(flatten)]
    pub(in crate::admin) parts: DayParts,
}

/// The interval of the last `days` days up to `now`, today included.
pub(in crate::admin) fn last_days(now: Timestamp, days: u32) -> Interval {
    let end = now.floor_to(DAY) + DAY;
    Interval::new(end - DAY * days, end)
}

/// The days of `interval`, which begins and ends at midnight, ascending; of today only what has passed.
pub(in crate::admin) fn calendar(cached: &CachedTime, interval: Interval, now: Timestamp) -> Vec<CalendarDay> {
    let CachedTime { memory, disk, redis, open } = cached;
    let mut days = Vec::new();
    let mut start = interval.start;
    while start < interval.end {
        let day = Interval::new(start, (start + DAY).min(now.max(start)));
        let mut left = IntervalSet::from(day);
        let mut take = |set: &IntervalSet| {
            let before = seconds(&left);
            set.within(day).for_each(|part| left.remove(part));
            before - seconds(&left)
        };
        let (memory, disk, redis, open) = (take(memory), take(disk), take(redis), take(open));
        let parts = DayParts { memory, disk, redis, open, missing: seconds(&left) };
        days.push(CalendarDay { date: date(start), parts });
        start = start + DAY;
    }
    days
}

/// The part of `interval` that has passed and is in none of the sets.
pub(in crate::admin) fn missing(cached: &CachedTime, interval: Interval, now: Timestamp) -> IntervalSet {
    let passed = Interval::new(interval.start, interval.end.min(now.max(interval.start)));
    let CachedTime { memory, disk, redis, open } = cached;
    [memory, disk, redis, open].into_iter().fold(IntervalSet::from(passed), |left, set| left.without(set))
}

/// The dates of `interval` on which the set has any time.
pub(in crate::admin) fn dates(set: &IntervalSet, interval: Interval) -> impl Iterator<Item = String> {
    set.within(interval).flat_map(|part| {
        let first = part.start.floor_to(DAY);
        std::iter::successors(Some(first), |day| Some(*day + DAY)).take_while(move |day| *day < part.end).map(date)
    })
}

/// The date of a timestamp in UTC.
pub(in crate::admin) fn date(at: Timestamp) -> String {
    at.to_timestamp().strftime("%Y-%m-%d").to_string()
}

/// The length of a set, in whole seconds.
fn seconds(set: &IntervalSet) -> u64 {
    set.intervals().iter().map(|interval| interval.length()).sum::<Duration>().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_seconds(hour * 3600)
    }

    fn set(hours: &[i64]) -> IntervalSet {
        let mut set = IntervalSet::default();
        for start in hours {
            set.insert(Interval::new(hour(*start), hour(start + 1)));
        }
        set
    }

    #[test]
    fn last_days_end_with_today() {
        let days = last_days(hour(25), 2);
        assert_eq!((days.start, days.end), (hour(0), hour(48)));
        assert_eq!(
            calendar(&CachedTime::default(), days, hour(25)).iter().map(|day| &*day.date).collect::<Vec<_>>(),
            ["1970-01-01", "1970-01-02"]
        );
    }

    #[test]
    fn dates_are_those_with_any_time() {
        let within = Interval::new(hour(0), hour(50));
        let found: Vec<_> = dates(&set(&[1, 2, 49, 60]), within).collect();
        assert_eq!(found, ["1970-01-01", "1970-01-03"]);
        let across = IntervalSet::from(Interval::new(hour(20), hour(48)));
        assert_eq!(dates(&across, within).collect::<Vec<_>>(), ["1970-01-01", "1970-01-02"]);
    }

    proptest! {
        /// Compared with a count of hours.
        #[test]
        fn day_has_each_hour_once_in_its_first_tier(
            tiers in prop::array::uniform4(prop::collection::vec(0i64..96, 0..40)),
            now in 0i64..96,
        ) {
            let [memory, disk, redis, open] = tiers.each_ref().map(|hours| set(hours));
            let cached = CachedTime { memory, disk, redis, open };
            let days = calendar(&cached, Interval::new(hour(0), hour(96)), hour(now));
            prop_assert_eq!(days.len(), 4);
            let mut missing_hours = 0;
            for (nth, day) in days.iter().enumerate() {
                let mut counts = [0; 5];
                for at in (24 * i64::try_from(nth).unwrap()..).take(24).filter(|at| *at < now) {
                    let tier = tiers.iter().position(|hours| hours.contains(&at)).unwrap_or(4);
                    counts[tier] += 3600;
                }
                let [memory, disk, redis, open, missing] = counts;
                prop_assert_eq!(day.parts, DayParts { memory, disk, redis, open, missing });
                missing_hours += missing;
            }
            let missing = missing(&cached, Interval::new(hour(0), hour(96)), hour(now));
            prop_assert_eq!(seconds(&missing), missing_hours);
        }
    }
}
