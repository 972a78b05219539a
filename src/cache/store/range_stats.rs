//! Item counts of long ranges, by which a page deep in a long window is found without a look at each chunk before it.
//!
//! A tree over time, and pure. A range of one level is eight ranges of the level below, and is aligned to them. Only
//! ranges that time alone does not change are stored, and each change of an entry invalidates the ranges that it lies
//! in (`EntryIndex`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::window::{Interval, Timestamp};

/// Ranges of one level in a range of the level above.
const FANOUT: u32 = 8;
/// The longest range: windows are hardly ever longer.
const MAX_RANGE_LENGTH: Duration = Duration::from_hours(400 * 24);

/// Statistics of a range of which no part is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct RangeStats {
    /// Number of items.
    pub(in crate::cache) rows: u64,
    /// Number of entries, or parts of entries, that serve it.
    pub(in crate::cache) chunks: usize,
    /// When the oldest of them was fetched.
    pub(in crate::cache) oldest: Timestamp,
}

impl RangeStats {
    /// The statistics of an empty range.
    pub(in crate::cache) const NOTHING: Self = Self { rows: 0, chunks: 0, oldest: Timestamp::MAX };

    /// The statistics of both ranges together.
    #[must_use]
    pub(in crate::cache) fn merge(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, chunks: self.chunks + other.chunks, oldest: self.oldest.min(other.oldest) }
    }
}

/// Part of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct RangeSegment {
    pub(in crate::cache) interval: Interval,
    /// Its statistics and its level in the tree; `None` if its entries must be looked up.
    pub(in crate::cache) stats: Option<(RangeStats, usize)>,
}

/// The tree of one series. It is small beside the chunks: its smallest range is eight cells of the grid, each with a
/// chunk.
#[derive(Debug, Default)]
pub(in crate::cache) struct RangeStatsIndex {
    /// The lowest level first; empty before the first lookup.
    levels: Vec<Level>,
    /// The age from which on data was taken for settled when the ranges were measured.
    settle_after: Duration,
}

#[derive(Debug)]
struct Level {
    width: Duration,
    /// The known ranges by their start.
    known: BTreeMap<Timestamp, RangeStats>,
}

impl RangeStatsIndex {
    /// Divides `window` into the longest ranges that are known or can be measured, and segments without statistics,
    /// ascending. `measure` gives the statistics of a range of the lowest level, if no part is missing and time alone
    /// does not change it. No chunk that holds items crosses the ends of a `cell`, whose length is always the same.
    pub(in crate::cache) fn segments(
        &mut self,
        window: Interval,
        cell: Duration,
        measure: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Vec<RangeSegment> {
        if self.levels.is_empty() {
            let longer = |width: &Duration| width.checked_mul(FANOUT).filter(|width| *width <= MAX_RANGE_LENGTH);
            let widths = std::iter::successors(longer(&cell), longer);
            self.levels = widths.map(|width| Level { width, known: BTreeMap::new() }).collect();
        }
        let mut segments = Vec::new();
        let fitting = self.levels.partition_point(|level| level.width <= window.length());
        self.divide(fitting, window, measure, &mut segments);
        segments
    }

    /// Divides a range of this level into ranges of the levels below.
    pub(in crate::cache) fn subsegments(
        &mut self,
        interval: Interval,
        level: usize,
        measure: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Vec<RangeSegment> {
        let mut segments = Vec::new();
        self.divide(level, interval, measure, &mut segments);
        segments
    }

    /// Divides `interval` into ranges of the lowest `levels` levels.
    fn divide(
        &mut self,
        levels: usize,
        interval: Interval,
        measure: &mut impl FnMut(Interval) -> Option<RangeStats>,
        segments: &mut Vec<RangeSegment>,
    ) {
        let Some(below) = levels.checked_sub(1) else {
            match segments.last_mut() {
                // Adjacent segments without statistics are looked up together.
                Some(last) if last.stats.is_none() && last.interval.end == interval.start => {
                    last.interval.end = interval.end;
                }
                _ => segments.push(RangeSegment { interval, stats: None }),
            }
            return;
        };
        let width = self.levels[below].width;
        let mut start = interval.start;
        while start < interval.end {
            let whole = range_at(start, width);
            // The two begin at the same time, except for the first one, which may begin anywhere.
            let part = Interval::new(start, whole.end.min(interval.end));
            let stats = if part == whole { self.stats(below, whole, measure) } else { None };
            match stats {
                Some(stats) => segments.push(RangeSegment { interval: whole, stats: Some((stats, below)) }),
                None => self.divide(below, part, measure, segments),
            }
            start = part.end;
        }
    }

    /// The statistics of a range of this level, summed over the level below if they are not known.
    fn stats(
        &mut self,
        level: usize,
        range: Interval,
        measure: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Option<RangeStats> {
        if let Some(known) = self.levels[level].known.get(&range.start) {
            return Some(*known);
        }
        let stats = match level.checked_sub(1) {
            None => measure(range)?,
            Some(below) => {
                let width = self.levels[below].width;
                let mut sum = RangeStats::NOTHING;
                let mut start = range.start;
                while start < range.end {
                    let part = range_at(start, width);
                    // Only at the smallest timestamp, where nothing is aligned.
                    if part.start != start {
                        return None;
                    }
                    sum = sum.merge(self.stats(below, part, measure)?);
                    start = part.end;
                }
                sum
            }
        };
        self.levels[level].known.insert(range.start, stats);
        Some(stats)
    }

    /// Removes the ranges that overlap `interval`.
    pub(in crate::cache) fn invalidate(&mut self, interval: Interval) {
        for Level { width, known } in &mut self.levels {
            let first = range_at(interval.start, *width).start;
            while let Some((&start, _)) = known.range(first..interval.end.max(first)).next() {
                known.remove(&start);
            }
        }
    }

    /// Removes all ranges if they were measured with another `settle_after`: by the new one, some of their entries may be
    /// stale.
    pub(in crate::cache) fn measure_with(&mut self, settle_after: Duration) {
        if std::mem::replace(&mut self.settle_after, settle_after) != settle_after {
            self.clear();
        }
    }

    /// Removes all ranges.
    pub(in crate::cache) fn clear(&mut self) {
        self.levels.iter_mut().for_each(|level| level.known.clear());
    }
}

/// The range of this width that `timestamp` lies in. At the greatest timestamp it is shorter, but never empty.
fn range_at(timestamp: Timestamp, width: Duration) -> Interval {
    let start = timestamp.floor_to(width);
    Interval::new(start, start + width)
}
