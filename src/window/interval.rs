//! A half-open piece of the time line.

use std::fmt;
use std::time::Duration;

use super::Timestamp;

const HOUR: Duration = Duration::from_hours(1);

/// The moments `t` with `start <= t < end`. A span whose `end` is not after its `start` is empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    /// The first moment inside.
    pub start: Timestamp,
    /// The first moment after.
    pub end: Timestamp,
}

impl Interval {
    /// All of time.
    pub const EVER: Self = Self::new(Timestamp::MIN, Timestamp::MAX);

    /// The span from `start` up to, but without, `end`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// Whether no moment lies inside.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `moment` lies inside.
    pub fn contains(self, moment: Timestamp) -> bool {
        self.start <= moment && moment < self.end
    }

    /// How long it is; zero if empty.
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }

    /// What the two have in common; may be empty.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// Whether they share a moment.
    pub fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// This span cut at the full hours, each part with its hour of the UTC day.
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

    /// This span up to the next full minute, if it ends with the first tick of a minute's last second, as a window does
    /// whose inclusive end was spelled `23:59:59`: what was meant is the whole minute, hour or day. Otherwise as it is.
    #[must_use]
    pub fn to_full_minute(self) -> Self {
        let (second, next) = (self.end.previous_tick(), self.end.floor_second() + Duration::from_secs(1));
        let ends_with_its_first_tick = second == second.floor_second() && next.as_seconds() % 60 == 0;
        if self.is_empty() || !ends_with_its_first_tick { self } else { Self::new(self.start, next) }
    }

    /// The part before `moment` and the part from it on; either may be empty.
    pub fn split_at(self, moment: Timestamp) -> (Self, Self) {
        let moment = moment.clamp(self.start, self.end.max(self.start));
        (Self::new(self.start, moment), Self::new(moment, self.end))
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

/// A set of moments, as ascending spans that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet(Vec<Interval>);

impl IntervalSet {
    /// The spans, ascending.
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// Whether no moment is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of it is not in `other`.
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

    /// What of `interval` it holds.
    pub fn within(&self, interval: Interval) -> impl Iterator<Item = Interval> {
        let first = self.0.partition_point(|part| part.end <= interval.start);
        let parts = self.0[first..].iter().take_while(move |part| part.start < interval.end);
        parts.map(move |part| part.intersection(interval)).filter(|part| !part.is_empty())
    }

    /// Adds the moments of `interval`, melting it together with what it overlaps or touches.
    pub fn insert(&mut self, interval: Interval) {
        if interval.is_empty() {
            return;
        }
        let first = self.0.partition_point(|s| s.end < interval.start);
        let last = self.0.partition_point(|s| s.start <= interval.end);
        let melted = self.0[first..last]
            .iter()
            .fold(interval, |all, s| Interval::new(all.start.min(s.start), all.end.max(s.end)));
        self.0.splice(first..last, [melted]);
    }

    /// Takes the moments of `interval` out.
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
    fn only_an_end_in_a_last_second_is_meant_as_a_full_minute() {
        let seconds = |end: i64| Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(end));
        let inclusive = |end: i64| Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(end).next_tick());
        assert_eq!(inclusive(3599).to_full_minute(), seconds(3600));
        assert_eq!(inclusive(59).to_full_minute(), seconds(60));
        for other in [inclusive(3600), inclusive(3598), seconds(3599), seconds(3600), Interval::default()] {
            assert_eq!(other.to_full_minute(), other);
        }
    }

    #[test]
    fn a_span_is_cut_at_the_full_hours_of_the_utc_day() {
        let part =
            |hour, start, end| (hour, Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end)));
        let parts = |start, end| part(0, start, end).1.by_hour().collect::<Vec<_>>();
        assert_eq!(parts(-1800, 3700), [part(23, -1800, 0), part(0, 0, 3600), part(1, 3600, 3700)]);
        assert_eq!(parts(3600, 7200), [part(1, 3600, 7200)]);
        assert_eq!(parts(5, 5), []);
    }

    proptest! {
        /// The naive model is a set of single moments.
        #[test]
        fn a_span_set_is_a_set_of_moments(edits in prop::collection::vec((any::<bool>(), 0i64..60, 0i64..12), 0..40)) {
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
            let moments: BTreeSet<i64> =
                set.intervals().iter().flat_map(|s| s.start.as_nanos()..s.end.as_nanos()).collect();
            prop_assert_eq!(moments, model);
            prop_assert!(set.intervals().iter().all(|s| !s.is_empty()));
            prop_assert!(set.intervals().windows(2).all(|pair| pair[0].end < pair[1].start), "spans touch: {:?}", set);
        }

        #[test]
        fn difference_holds_what_only_the_first_set_holds(
            intervals in prop::collection::vec((0i64..60, 0i64..12), 0..8), others in prop::collection::vec((0i64..60, 0i64..12), 0..8)
        ) {
            let set = |intervals: &[(i64, i64)]| intervals.iter().map(|(start, length)| interval(*start, start + length)).collect::<IntervalSet>();
            let moments = |set: &IntervalSet| set.intervals().iter().flat_map(|s| s.start.as_nanos()..s.end.as_nanos()).collect::<BTreeSet<_>>();
            let (one, other) = (set(&intervals), set(&others));
            let expected: BTreeSet<i64> = moments(&one).difference(&moments(&other)).copied().collect();
            prop_assert_eq!(moments(&one.without(&other)), expected);
        }
    }
}
