//! The calls and the quota of the last hours, by minute. Pure: totals and the time are arguments. Bounded, whatever the
//! clock does: [`MINUTES`] minutes with [`MAX_LIMITS`] limits each, about 1.6 MB at most.

use std::collections::VecDeque;
use std::time::Duration;

use crate::window::Timestamp;

/// Number of minutes that are kept.
pub(in crate::admin) const MINUTES: usize = 360;
/// Maximum limits whose remaining calls are kept: those of the first accounts.
const MAX_LIMITS: usize = 64;
const MINUTE: Duration = Duration::from_mins(1);

/// Counters of all callers since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct CallTotals {
    /// Requests for windows that were answered.
    pub(in crate::admin) requests: u64,
    /// Upstream calls made.
    pub(in crate::admin) made: u64,
    /// Upstream calls saved: callers would have made these beside those made.
    pub(in crate::admin) saved: u64,
}

impl CallTotals {
    fn since(self, earlier: Self) -> Self {
        let Self { requests, made, saved } = self;
        Self {
            requests: requests.saturating_sub(earlier.requests),
            made: made.saturating_sub(earlier.made),
            saved: saved.saturating_sub(earlier.saved),
        }
    }

    /// The sum.
    pub(in crate::admin) fn plus(self, other: Self) -> Self {
        let Self { requests, made, saved } = self;
        Self { requests: requests + other.requests, made: made + other.made, saved: saved + other.saved }
    }

    /// The calls that callers would have made without the gateway.
    pub(in crate::admin) fn alone(self) -> u64 {
        self.made + self.saved
    }
}

/// A span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Sample {
    /// When the span begins.
    pub(in crate::admin) start: Timestamp,
    /// The counts within the span.
    pub(in crate::admin) counts: CallTotals,
    /// The least number of calls that were left, by limit; shorter if nothing was observed.
    pub(in crate::admin) least_left: Vec<u32>,
}

/// The minutes in which the process ran, ascending, without gaps.
#[derive(Debug, Default)]
pub(in crate::admin) struct History {
    minutes: VecDeque<Sample>,
    /// The totals at the last observation.
    seen: CallTotals,
}

impl History {
    /// Adds what was counted since the last observation to the minute of `now`, with the calls left by limit, in an
    /// order that never changes.
    pub(in crate::admin) fn observe(&mut self, now: Timestamp, totals: CallTotals, left: &[u32]) {
        let counts = totals.since(std::mem::replace(&mut self.seen, totals));
        let now = now.floor_to(MINUTE);
        let mut next = self.minutes.back().map_or(now, |last| last.start + MINUTE);
        if next < now && now.since(next) > MINUTE * MAX_GAP {
            // The machine slept, or its clock was set: what was before cannot be placed.
            self.minutes.clear();
            next = now;
        }
        // If the clock was set back, the last minute goes on.
        while next <= now {
            self.minutes.push_back(Sample { start: next, counts: CallTotals::default(), least_left: Vec::new() });
            next = next + MINUTE;
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
        if let Some(minute) = self.minutes.back_mut() {
            minute.counts = minute.counts.plus(counts);
            merge_least(&mut minute.least_left, &left[..left.len().min(MAX_LIMITS)]);
        }
    }

    /// The minutes, ascending.
    pub(in crate::admin) fn minutes(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.minutes.iter()
    }

    /// The last [`MINUTES`] up to the minute of `now` in spans of `width` minutes, ascending. Spans in which the
    /// process did not run are empty.
    pub(in crate::admin) fn spans(&self, now: Timestamp, width: usize) -> Vec<Sample> {
        let width = width.clamp(1, MINUTES);
        let last = self.minutes.back().map_or(now, |last| last.start.max(now)).floor_to(MINUTE);
        let count = MINUTES / width;
        let length = MINUTE * u32::try_from(width).unwrap_or(1);
        let end = last + MINUTE;
        let mut start = end - length * u32::try_from(count).unwrap_or(1);
        let first = start;
        let mut minutes = self.minutes.iter().skip_while(|minute| minute.start < first).peekable();
        let mut spans = Vec::with_capacity(count);
        while start < end {
            let mut span = Sample { start, counts: CallTotals::default(), least_left: Vec::new() };
            let next = start + length;
            while let Some(minute) = minutes.next_if(|minute| minute.start < next) {
                span.counts = span.counts.plus(minute.counts);
                merge_least(&mut span.least_left, &minute.least_left);
            }
            spans.push(span);
            start = next;
        }
        spans
    }
}

/// The longest time without an observation that is filled with empty minutes, in minutes.
const MAX_GAP: u32 = 360;

/// Sets each place of `least` to the lesser of both.
fn merge_least(least: &mut Vec<u32>, left: &[u32]) {
    for (place, left) in left.iter().enumerate() {
        match least.get_mut(place) {
            Some(least) => *least = (*least).min(*left),
            None => least.push(*left),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn totals(made: u64, saved: u64) -> CallTotals {
        CallTotals { requests: 0, made, saved }
    }

    #[test]
    fn minute_has_what_was_counted_in_it_and_the_least_left() {
        let mut history = History::default();
        history.observe(at(0), totals(1, 2), &[60, 1800]);
        history.observe(at(59), totals(4, 2), &[10, 1790]);
        history.observe(at(185), totals(5, 9), &[50, 1785]);
        let minutes: Vec<_> = history.minutes().map(|minute| (minute.start, minute.counts)).collect();
        let nothing = CallTotals::default();
        assert_eq!(minutes, [(at(0), totals(4, 2)), (at(60), nothing), (at(120), nothing), (at(180), totals(1, 7))]);
        let spans = history.spans(at(190), 5);
        assert_eq!((spans.len(), spans[71].counts, spans[71].start), (72, totals(5, 9), at(-60)));
        assert_eq!((&spans[71].least_left[..], spans[70].least_left.len()), (&[10, 1785][..], 0));
    }

    #[test]
    fn clock_that_jumps_leaves_the_history_bounded() {
        let mut history = History::default();
        history.observe(at(1_000_000), totals(1, 0), &[1; 100]);
        history.observe(at(0), totals(3, 0), &[]);
        assert_eq!((history.minutes().len(), history.minutes[0].counts), (1, totals(3, 0)));
        assert_eq!(history.minutes[0].least_left.len(), MAX_LIMITS);
        history.observe(at(i64::from(u32::MAX)), totals(4, 0), &[]);
        assert_eq!((history.minutes().len(), history.minutes[0].counts), (1, totals(1, 0)));
    }

    proptest! {
        /// Compared with a list of all observations.
        #[test]
        fn spans_have_what_was_counted_in_the_last_hours(
            steps in prop::collection::vec((0i64..400, 0u64..9, 0u64..9, 0u32..60), 1..200),
            width in prop::sample::select(vec![1usize, 5, 10, 30]),
        ) {
            let (mut history, mut all) = (History::default(), Vec::new());
            let (mut now, mut sum) = (0, totals(0, 0));
            for (pause, made, saved, left) in steps {
                now += pause;
                sum = sum.plus(totals(made, saved));
                history.observe(at(now), sum, &[left]);
                all.push((now, totals(made, saved), left));
            }
            let spans = history.spans(at(now), width);
            prop_assert_eq!(spans.len(), MINUTES / width);
            let length = 60 * i64::try_from(width).unwrap();
            for span in spans {
                let start = span.start.as_seconds();
                let within: Vec<_> = all.iter().filter(|(at, ..)| (start..start + length).contains(at)).collect();
                let counts = within.iter().fold(CallTotals::default(), |sum, (_, counts, _)| sum.plus(*counts));
                prop_assert_eq!(span.counts, counts);
                prop_assert_eq!(span.least_left.first(), within.iter().map(|(_, _, left)| left).min());
            }
            prop_assert!(history.minutes().len() <= MINUTES);
        }
    }
}
