//! Half-open intervals of time, and sets of them.

use std::fmt;
use std::time::Duration;

use super::Timestamp;

const HOUR: Duration = Duration::from_hours(1);

/// The timestamps `t` with `start <= t < end`. An interval whose `end` is not after its `start` is empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    /// The first timestamp inside.
    pub start: Timestamp,
    /// The first timestamp after.
    pub end: Timestamp,
}

impl Interval {
    /// All of time.
    pub const EVER: Self = Self::new(Timestamp::MIN, Timestamp::MAX);

    /// The interval from `start` (inclusive) to `end` (exclusive).
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// Whether no timestamp lies inside.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `timestamp` lies inside.
    pub fn contains(self, timestamp: Timestamp) -> bool {
        self.start <= timestamp && timestamp < self.end
    }

    /// Length; zero if empty.
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }

    /// The common part; may be empty.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// Whether both contain a common timestamp.
    pub fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The parts of this interval between full hours, each with its hour of the UTC day.
    pub fn by_hour(self) -> impl Iterator<Item = (usize, Self)> {
        let mut left = self;
        std::iter::from_fn(move || {
            let first = (!left.is_empty()).then_some(left.start)?;
            let (part, rest) = left.split_at(first.floor_to(HOUR) + HOUR);
            left = rest;
            let hour = first.as_seconds().div_euclid(3600).rem_euclid(24);
            Some((usize::try_from(hour).unwrap_or_default(), part))
        })
    }

    /// Extends an interval that ends with the first tick of a minute's last second to the full minute, as a window with
    /// the inclusive end `23:59:59` means the whole day. Returns any other interval unchanged.
    #[must_use]
    pub fn to_full_minute(self) -> Self {
        let (second, next) = (self.end.previous_tick(), self.end.floor_second() + Duration::from_secs(1));
        let ends_with_its_first_tick = second == second.floor_second() && next.as_seconds() % 60 == 0;
        if self.is_empty() || !ends_with_its_first_tick { self } else { Self::new(self.start, next) }
    }

    /// The part before `timestamp` and the part from `timestamp` on; either may be empty.
    pub fn split_at(self, timestamp: Timestamp) -> (Self, Self) {
        let timestamp = timestamp.clamp(self.start, self.end.max(self.start));
        (Self::new(self.start, timestamp), Self::new(timestamp, self.end))
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of timestamps, as ascending intervals that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet(Vec<Interval>);

impl IntervalSet {
    /// The intervals, ascending.
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// Whether the set contains no timestamp.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The difference: everything that is not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for interval in &self.0 {
            let mut at = interval.start;
            for taken in other.within(*interval) {
                left.insert(Interval::new(at, taken.start));
                at = taken.end;
            }
            left.insert(Interval::new(at, interval.end));
        }
        left
    }

    /// The parts of the set that lie within `interval`.
    pub fn within(&self, interval: Interval) -> impl Iterator<Item = Interval> {
        let first = self.0.partition_point(|part| part.end <= interval.start);
        let parts = self.0[first..].iter().take_while(move |part| part.start < interval.end);
        parts.map(move |part| part.intersection(interval)).filter(|part| !part.is_empty())
    }

    /// Adds `interval`, merging it with the intervals that it overlaps or touches.
    pub fn insert(&mut self, interval: Interval) {
        if interval.is_empty() {
            return;
        }
        let first = self.0.partition_point(|s| s.end < interval.start);
        let last = self.0.partition_point(|s| s.start <= interval.end);
        let merged = self.0[first..last]
            .iter()
            .fold(interval, |all, s| Interval::new(all.start.min(s.start), all.end.max(s.end)));
        self.0.splice(first..last, [merged]);
    }

    /// Removes the timestamps of `interval`.
    pub fn remove(&mut self, interval: Interval) {
        if interval.is_empty() {
            return;
        }
        let first = self.0.partition_point(|s| s.end <= interval.start);
        let last = self.0.partition_point(|s| s.start < interval.end);
        let rests: Vec<Interval> = self.0[first..last]
            .iter()
            .flat_map(|s| [s.split_at(interval.start).0, s.split_at(interval.end).1])
            .filter(|s| !s.is_empty())
            .collect();
        self.0.splice(first..last, rests);
    }
}

impl From<Interval> for IntervalSet {
    fn from(interval: Interval) -> Self {
        let mut set = Self::default();
        set.insert(interval);
        set
    }
}

impl FromIterator<Interval> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut set = Self::default();
        intervals.into_iter().for_each(|interval| set.insert(interval));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
    }

    #[test]
    fn only_an_end_in_a_last_second_means_a_full_minute() {
        let seconds = |end: i64| Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(end));
        let inclusive = |end: i64| Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(end).next_tick());
        assert_eq!(inclusive(3599).to_full_minute(), seconds(3600));
        assert_eq!(inclusive(59).to_full_minute(), seconds(60));
        for other in [inclusive(3600), inclusive(3598), seconds(3599), seconds(3600), Interval::default()] {
            assert_eq!(other.to_full_minute(), other);
        }
    }

    #[test]
    fn interval_is_cut_at_the_full_hours() {
        let part =
            |hour, start, end| (hour, Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end)));
        let parts = |start, end| part(0, start, end).1.by_hour().collect::<Vec<_>>();
        assert_eq!(parts(-1800, 3700), [part(23, -1800, 0), part(0, 0, 3600), part(1, 3600, 3700)]);
        assert_eq!(parts(3600, 7200), [part(1, 3600, 7200)]);
        assert_eq!(parts(5, 5), []);
    }

    proptest! {
        /// The naive model is a set of single timestamps.
        #[test]
        fn interval_set_equals_a_set_of_timestamps(edits in prop::collection::vec((any::<bool>(), 0i64..60, 0i64..12), 0..40)) {
            let mut set = IntervalSet::default();
            let mut model = BTreeSet::new();
            for (insert, start, length) in edits {
                if insert {
                    set.insert(interval(start, start + length));
                    model.extend(start..start + length);
                } else {
                    set.remove(interval(start, start + length));
                    model.retain(|m| !(start..start + length).contains(m));
                }
            }
            let timestamps: BTreeSet<i64> =
                set.intervals().iter().flat_map(|s| s.start.as_nanos()..s.end.as_nanos()).collect();
            prop_assert_eq!(timestamps, model);
            prop_assert!(set.intervals().iter().all(|s| !s.is_empty()));
            prop_assert!(set.intervals().windows(2).all(|pair| pair[0].end < pair[1].start), "intervals touch: {:?}", set);
        }

        #[test]
        fn difference_holds_what_only_the_first_set_holds(
            intervals in prop::collection::vec((0i64..60, 0i64..12), 0..8), others in prop::collection::vec((0i64..60, 0i64..12), 0..8)
        ) {
            let set = |intervals: &[(i64, i64)]| intervals.iter().map(|(start, length)| interval(*start, start + length)).collect::<IntervalSet>();
            let timestamps = |set: &IntervalSet| set.intervals().iter().flat_map(|s| s.start.as_nanos()..s.end.as_nanos()).collect::<BTreeSet<_>>();
            let (one, other) = (set(&intervals), set(&others));
            let expected: BTreeSet<i64> = timestamps(&one).difference(&timestamps(&other)).copied().collect();
            prop_assert_eq!(timestamps(&one.without(&other)), expected);
        }
    }
}
