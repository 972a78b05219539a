//! How many items lie in long stretches of time, so that a page far into a long window is found without a look at each
//! chunk in front of it.
//!
//! A tree over time, and pure: a stretch of each level is as long as eight of the level below, and begins where one of
//! those does. Only what cannot change by time alone is written down, and whoever changes what lies in a stretch has it
//! forgotten (`EntryIndex`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::window::{Interval, Timestamp};

/// So many stretches of one level make one of the next.
const FANOUT: u32 = 8;
/// Longer stretches than this are of no use: windows are hardly ever longer.
const LONGEST: Duration = Duration::from_hours(400 * 24);

/// What is known of a stretch of which nothing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct RangeStats {
    /// How many items lie in it.
    pub(in crate::cache) rows: u64,
    /// Of how many pieces of chunks it is made.
    pub(in crate::cache) chunks: usize,
    /// When the oldest of them was fetched.
    pub(in crate::cache) oldest: Timestamp,
}

impl RangeStats {
    /// That of nothing.
    pub(in crate::cache) const NOTHING: Self = Self { rows: 0, chunks: 0, oldest: Timestamp::MAX };

    /// That of both together.
    #[must_use]
    pub(in crate::cache) fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, chunks: self.chunks + other.chunks, oldest: self.oldest.min(other.oldest) }
    }
}

/// A piece of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct RangeSegment {
    pub(in crate::cache) interval: Interval,
    /// Its tally, and the level of the tree on which it stands; `None` if it must be looked at.
    pub(in crate::cache) tally: Option<(RangeStats, usize)>,
}

/// The tallies of a shelf: few against its chunks, since one is of eight cells of the grid at least, each with a chunk.
#[derive(Debug, Default)]
pub(in crate::cache) struct RangeStatsIndex {
    /// The level that stands lowest comes first; none before the first window is cut.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    width: Duration,
    /// By the beginning of the stretch.
    known: BTreeMap<Timestamp, RangeStats>,
}

impl RangeStatsIndex {
    /// Cuts `window` into the longest stretches that are known, or that `look` can tell of, and what must be looked at,
    /// ascending. `look` gives the tally of a short stretch, if nothing of it is missing and time alone does not change
    /// it. No chunk crosses the ends of a `cell`, which is always of the same length.
    pub(in crate::cache) fn cut(
        &mut self,
        window: Interval,
        cell: Duration,
        look: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Vec<RangeSegment> {
        if self.levels.is_empty() {
            let longer = |width: &Duration| width.checked_mul(FANOUT).filter(|width| *width <= LONGEST);
            let widths = std::iter::successors(longer(&cell), longer);
            self.levels = widths.map(|width| Level { width, known: BTreeMap::new() }).collect();
        }
        let mut stretches = Vec::new();
        let fitting = self.levels.partition_point(|level| level.width <= window.length());
        self.cut_on(fitting, window, look, &mut stretches);
        stretches
    }

    /// The same for a known stretch that is to be seen in more detail.
    pub(in crate::cache) fn open(
        &mut self,
        interval: Interval,
        level: usize,
        look: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Vec<RangeSegment> {
        let mut stretches = Vec::new();
        self.cut_on(level, interval, look, &mut stretches);
        stretches
    }

    /// Cuts `interval` into stretches of the first `levels` levels.
    fn cut_on(
        &mut self,
        levels: usize,
        interval: Interval,
        look: &mut impl FnMut(Interval) -> Option<RangeStats>,
        stretches: &mut Vec<RangeSegment>,
    ) {
        let Some(below) = levels.checked_sub(1) else {
            match stretches.last_mut() {
                // One look at both.
                Some(last) if last.tally.is_none() && last.interval.end == interval.start => {
                    last.interval.end = interval.end;
                }
                _ => stretches.push(RangeSegment { interval, tally: None }),
            }
            return;
        };
        let width = self.levels[below].width;
        let mut start = interval.start;
        while start < interval.end {
            let whole = stretch_at(start, width);
            // Both begin at the same moment, but for the first: it may begin anywhere.
            let part = Interval::new(start, whole.end.min(interval.end));
            let tally = if part == whole { self.tally(below, whole, look) } else { None };
            match tally {
                Some(tally) => stretches.push(RangeSegment { interval: whole, tally: Some((tally, below)) }),
                None => self.cut_on(below, part, look, stretches),
            }
            start = part.end;
        }
    }

    /// The tally of a stretch of this level, from those below it if need be.
    fn tally(
        &mut self,
        level: usize,
        stretch: Interval,
        look: &mut impl FnMut(Interval) -> Option<RangeStats>,
    ) -> Option<RangeStats> {
        if let Some(known) = self.levels[level].known.get(&stretch.start) {
            return Some(*known);
        }
        let tally = match level.checked_sub(1) {
            None => look(stretch)?,
            Some(below) => {
                let width = self.levels[below].width;
                let mut sum = RangeStats::NOTHING;
                let mut start = stretch.start;
                while start < stretch.end {
                    let part = stretch_at(start, width);
                    // Only at the beginning of time, where nothing is aligned.
                    if part.start != start {
                        return None;
                    }
                    sum = sum.plus(self.tally(below, part, look)?);
                    start = part.end;
                }
                sum
            }
        };
        self.levels[level].known.insert(stretch.start, tally);
        Some(tally)
    }

    /// Something in `interval` has changed.
    pub(in crate::cache) fn forget(&mut self, interval: Interval) {
        for Level { width, known } in &mut self.levels {
            let first = stretch_at(interval.start, *width).start;
            while let Some((&start, _)) = known.range(first..interval.end.max(first)).next() {
                known.remove(&start);
            }
        }
    }

    /// Anything may have changed.
    pub(in crate::cache) fn clear(&mut self) {
        self.levels.iter_mut().for_each(|level| level.known.clear());
    }
}

/// The stretch of this width that `moment` lies in. At the end of time it is cut, but never empty.
fn stretch_at(moment: Timestamp, width: Duration) -> Interval {
    let start = moment.floor_to(width);
    Interval::new(start, start + width)
}
