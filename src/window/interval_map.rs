//! An interval map: intervals that do not overlap, each with a value.

use std::collections::BTreeMap;

use super::{Interval, Timestamp};

/// Intervals that do not overlap, each with a value; looked up in time order.
#[derive(Clone, Debug)]
pub struct IntervalMap<V>(BTreeMap<Timestamp, (Timestamp, V)>);

impl<V> Default for IntervalMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V: Clone> IntervalMap<V> {
    /// Number of intervals.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts of `window` that are covered, ascending, each cut to the window, with its value.
    pub fn within(&self, window: Interval) -> impl Iterator<Item = (Interval, &V)> {
        let first = self.0.range(..=window.start).next_back().map_or(window.start, |(start, _)| *start);
        let range = if window.is_empty() { first..first } else { first..window.end };
        self.0
            .range(range)
            .map(move |(start, (end, value))| (Interval::new(*start, *end).intersection(window), value))
            .filter(|(interval, _)| !interval.is_empty())
    }

    /// The values of the intervals that overlap `window`, ascending.
    pub fn values_mut(&mut self, window: Interval) -> impl Iterator<Item = &mut V> {
        let first = self.0.range(..=window.start).next_back().map_or(window.start, |(start, _)| *start);
        let range = if window.is_empty() { first..first } else { first..window.end };
        let overlapping = self.0.range_mut(range).filter(move |(_, (end, _))| *end > window.start);
        overlapping.map(|(_, (_, value))| value)
    }

    /// Sets the value of `interval`, replacing the values that it overlaps.
    pub fn insert(&mut self, interval: Interval, value: V) {
        if !interval.is_empty() {
            self.remove(interval);
            self.0.insert(interval.start, (interval.end, value));
        }
    }

    /// Removes the values within `interval`; parts beyond it on either side stay.
    pub fn remove(&mut self, interval: Interval) {
        if interval.is_empty() {
            return;
        }
        let before = self.0.range(..interval.start).next_back().map(|(start, _)| *start);
        let touched: Vec<Timestamp> =
            before.into_iter().chain(self.0.range(interval.start..interval.end).map(|(start, _)| *start)).collect();
        for start in touched {
            let Some((end, value)) = self.0.remove(&start) else { continue };
            let old = Interval::new(start, end);
            for rest in [old.split_at(interval.start).0, old.split_at(interval.end).1] {
                if !rest.is_empty() {
                    self.0.insert(rest.start, (rest.end, value.clone()));
                }
            }
        }
    }

    /// Keeps only the intervals for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(Interval, &V) -> bool) {
        self.0.retain(|start, (end, value)| keep(Interval::new(*start, *end), value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: usize, end: usize) -> Interval {
        let timestamp = |n: usize| Timestamp::from_nanos(i64::try_from(n).unwrap());
        Interval::new(timestamp(start), timestamp(end))
    }

    proptest! {
        /// The naive model is an array with one cell for each timestamp.
        #[test]
        fn interval_map_equals_an_array_of_timestamps(
            edits in prop::collection::vec((any::<bool>(), 0usize..60, 0usize..12), 0..40), from in 0usize..70, length in 0usize..70
        ) {
            let mut map = IntervalMap::default();
            let mut model = [None; 160];
            for (value, (insert, start, length)) in edits.into_iter().enumerate() {
                let cell = insert.then_some(value);
                model[start..start + length].fill(cell);
                match cell {
                    Some(value) => map.insert(interval(start, start + length), value),
                    None => map.remove(interval(start, start + length)),
                }
            }
            let mut seen = [None; 160];
            let mut last = Timestamp::MIN;
            for (part, value) in map.within(interval(from, from + length)) {
                prop_assert!(last <= part.start && !part.is_empty());
                last = part.end;
                for timestamp in part.start.as_nanos()..part.end.as_nanos() {
                    seen[usize::try_from(timestamp).unwrap()] = Some(*value);
                }
            }
            prop_assert_eq!(&seen[from..from + length], &model[from..from + length]);
            prop_assert!(seen[..from].iter().chain(&seen[from + length..]).all(Option::is_none));
        }
    }
}
