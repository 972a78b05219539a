//! How much of a long window is asked for at a time, by a replica that follows another one. Pure.
//!
//! What another replica brings comes all at once. So a year would have to lie in the memory of both, and its first item be
//! sent when its last page is there. It is asked for stretch by stretch instead, each when the one before it has come.
//!
//! The end of a stretch may cost a call, as each end of a run may. So a stretch is of many pages, and what is not very long
//! is asked for as it is: others want the same days at the same time, and what they all want is to be one run.

use std::time::Duration;

use super::estimate::Amount;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Grid, Moment, Span, SpanSet};

/// What is not longer is asked for at once: a month, wherever it begins.
const AT_ONCE: Duration = Duration::from_hours(32 * 24);
/// The first stretch, while nobody knows how dense it is. No weekend is as long, so it tells.
const FIRST: Duration = Duration::from_hours(3 * 24);
/// About so many items are in the others,
const ITEMS: u64 = 40 * PAGE_LIMIT as u64;
/// none of which is longer than so many times the one before it.
const GROWTH: u32 = 8;
/// What is expected to be so many items is not waited for before the answer begins: a dozen pages, as in any walk.
const LONG: u64 = 12 * PAGE_LIMIT as u64;

/// How far a window has been asked for.
#[derive(Debug)]
pub(super) struct Stretches {
    end: Moment,
    /// How long the last one was.
    length: Duration,
    /// What has come.
    seen: Amount,
    is_long: bool,
}

impl Stretches {
    /// Nothing of `window` has been asked for; `None` if that is done at once.
    pub(super) fn of(window: Span) -> Option<Self> {
        let none = Self { end: window.start, length: FIRST, seen: Amount::default(), is_long: false };
        (window.length() > AT_ONCE).then_some(none)
    }

    /// So many items have come, of so much time.
    pub(super) fn saw(&mut self, items: usize, length: Duration) {
        self.seen.add(items, length);
    }

    /// What of `missing` is to be asked for now: what is left of this stretch, or the next one.
    pub(super) fn within(&mut self, missing: &SpanSet, grid: &Grid) -> SpanSet {
        let Some(first) = missing.spans().first() else { return SpanSet::default() };
        if first.start >= self.end {
            self.length = self.next_length();
            self.end = grid.cell((first.start + self.length).previous_tick()).end;
        }
        let parts = missing.spans().iter().map(|span| span.split_at(self.end));
        let behind: Duration = parts.clone().map(|(_, behind)| behind.length()).sum();
        self.is_long = self.expected(behind) >= LONG;
        parts.map(|(stretch, _)| stretch).collect()
    }

    /// Whether it will take long until what lies behind this stretch is there, as far as can be told by what has come.
    pub(super) fn is_long(&self) -> bool {
        self.is_long
    }

    /// About so many items lie in so much time.
    fn expected(&self, length: Duration) -> u64 {
        let Amount { items, length: seen } = self.seen;
        items.saturating_mul(length.as_secs()).checked_div(seen.as_secs()).unwrap_or_default()
    }

    fn next_length(&self) -> Duration {
        let Amount { items, length } = self.seen;
        if length.is_zero() {
            return FIRST;
        }
        // As dense as it was, it will be.
        let fit = length.as_secs().saturating_mul(ITEMS).checked_div(items).unwrap_or(u64::MAX);
        Duration::from_secs(fit).min(self.length * GROWTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: i64 = 366;

    fn days(start: i64, end: i64) -> Span {
        let at = |day: i64| Moment::from_seconds(day * 24 * 3600);
        Span::new(at(start), at(end))
    }

    fn set(spans: &[(i64, i64)]) -> SpanSet {
        spans.iter().map(|(start, end)| days(*start, *end)).collect()
    }

    /// A day each.
    fn grid() -> Grid {
        Grid::new(Duration::from_hours(24))
    }

    /// The days of each stretch of a window of which nothing is there, and of which so many items lie in a day.
    fn lengths(items_a_day: usize) -> Vec<u64> {
        let mut stretches = Stretches::of(days(0, WINDOW)).unwrap();
        let (mut missing, mut lengths) = (set(&[(0, WINDOW)]), Vec::new());
        while !missing.is_empty() {
            let stretch = stretches.within(&missing, &grid());
            assert_eq!(stretch, stretches.within(&missing, &grid()), "until it has come");
            let [span] = *stretch.spans() else { panic!("{stretch:?}") };
            missing.remove(span);
            let length = span.length().as_secs() / (24 * 3600);
            stretches.saw(items_a_day * usize::try_from(length).unwrap(), span.length());
            lengths.push(length);
        }
        lengths
    }

    #[test]
    fn a_stretch_is_of_some_thousand_items() {
        let dense = lengths(1000);
        assert_eq!(dense[..3], [3, 4, 4]);
        assert_eq!(dense.iter().sum::<u64>(), 366);
        assert_eq!(lengths(10), [3, 24, 192, 147]);
        assert_eq!(lengths(0), [3, 24, 192, 147], "growing, where there is nothing");
        assert_eq!(lengths(100_000)[..3], [3, 1, 1], "a cell at least");
    }

    #[test]
    fn what_is_there_already_is_left_out() {
        let mut stretches = Stretches::of(days(0, WINDOW)).unwrap();
        let missing = set(&[(100, 102), (104, 200)]);
        assert_eq!(stretches.within(&missing, &grid()), set(&[(100, 102)]));
        stretches.saw(2000, days(0, 2).length());
        assert_eq!(stretches.within(&set(&[(104, 200)]), &grid()), set(&[(104, 108)]));
        // Some of it has come by another way.
        assert_eq!(stretches.within(&set(&[(106, 200)]), &grid()), set(&[(106, 108)]));
        assert_eq!(stretches.within(&set(&[(150, 200)]), &grid()), set(&[(150, 154)]));
        assert!(stretches.within(&SpanSet::default(), &grid()).is_empty());
    }

    #[test]
    fn it_is_long_if_a_dozen_pages_are_still_to_come() {
        let is_long = |items_in_three_days: usize, behind: i64| {
            let mut stretches = Stretches::of(days(0, WINDOW)).unwrap();
            stretches.within(&set(&[(0, WINDOW)]), &grid());
            assert!(!stretches.is_long(), "nothing is known yet");
            stretches.saw(items_in_three_days, days(0, 3).length());
            let end = 3 + i64::from(GROWTH) * 3;
            assert_eq!(stretches.within(&set(&[(3, end + behind)]), &grid()), set(&[(3, end)]));
            stretches.is_long()
        };
        assert!(is_long(36, 100) && !is_long(36, 99));
        assert!(!is_long(0, 300) && !is_long(36, 0));
    }

    #[test]
    fn a_month_is_asked_for_at_once() {
        assert!(Stretches::of(days(0, 31)).is_none());
    }
}
