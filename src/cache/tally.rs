//! How many items lie in long stretches of time, so that a page far into a long window is found without a look at each
//! chunk in front of it.
//!
//! A tree over time, and pure: a stretch of each level is as long as eight of the level below, and begins where one of
//! those does. Only what cannot change by time alone is written down, and whoever changes what lies in a stretch has it
//! forgotten (`Copies`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::window::{Moment, Span};

/// So many stretches of one level make one of the next.
const FANOUT: u32 = 8;
/// Longer stretches than this are of no use: windows are hardly ever longer.
const LONGEST: Duration = Duration::from_hours(400 * 24);

/// What is known of a stretch of which nothing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many items lie in it.
    pub(super) rows: u64,
    /// Of how many pieces of chunks it is made.
    pub(super) chunks: usize,
    /// When the oldest of them was fetched.
    pub(super) oldest: Moment,
}

impl Tally {
    /// That of nothing.
    pub(super) const NOTHING: Self = Self { rows: 0, chunks: 0, oldest: Moment::MAX };

    /// That of both together.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, chunks: self.chunks + other.chunks, oldest: self.oldest.min(other.oldest) }
    }
}

/// A piece of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) span: Span,
    /// Its tally, and the level of the tree on which it stands; `None` if it must be looked at.
    pub(super) tally: Option<(Tally, usize)>,
}

/// The tallies of a shelf: few against its chunks, since one is of eight cells of the grid at least, each with a chunk.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// The level that stands lowest comes first; none before the first window is cut.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    width: Duration,
    /// By the beginning of the stretch.
    known: BTreeMap<Moment, Tally>,
}

impl Tallies {
    /// Cuts `window` into the longest stretches that are known, or that `look` can tell of, and what must be looked at,
    /// ascending. `look` gives the tally of a short stretch, if nothing of it is missing and time alone does not change
    /// it. No chunk crosses the ends of a `cell`, which is always of the same length.
    pub(super) fn cut(
        &mut self,
        window: Span,
        cell: Duration,
        look: &mut impl FnMut(Span) -> Option<Tally>,
    ) -> Vec<Stretch> {
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
    pub(super) fn open(
        &mut self,
        span: Span,
        level: usize,
        look: &mut impl FnMut(Span) -> Option<Tally>,
    ) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        self.cut_on(level, span, look, &mut stretches);
        stretches
    }

    /// Cuts `span` into stretches of the first `levels` levels.
    fn cut_on(
        &mut self,
        levels: usize,
        span: Span,
        look: &mut impl FnMut(Span) -> Option<Tally>,
        stretches: &mut Vec<Stretch>,
    ) {
        let Some(below) = levels.checked_sub(1) else {
            match stretches.last_mut() {
                // One look at both.
                Some(last) if last.tally.is_none() && last.span.end == span.start => last.span.end = span.end,
                _ => stretches.push(Stretch { span, tally: None }),
            }
            return;
        };
        let width = self.levels[below].width;
        let mut start = span.start;
        while start < span.end {
            let whole = stretch_at(start, width);
            // Both begin at the same moment, but for the first: it may begin anywhere.
            let part = Span::new(start, whole.end.min(span.end));
            let tally = if part == whole { self.tally(below, whole, look) } else { None };
            match tally {
                Some(tally) => stretches.push(Stretch { span: whole, tally: Some((tally, below)) }),
                None => self.cut_on(below, part, look, stretches),
            }
            start = part.end;
        }
    }

    /// The tally of a stretch of this level, from those below it if need be.
    fn tally(&mut self, level: usize, stretch: Span, look: &mut impl FnMut(Span) -> Option<Tally>) -> Option<Tally> {
        if let Some(known) = self.levels[level].known.get(&stretch.start) {
            return Some(*known);
        }
        let tally = match level.checked_sub(1) {
            None => look(stretch)?,
            Some(below) => {
                let width = self.levels[below].width;
                let mut sum = Tally::NOTHING;
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

    /// Something in `span` has changed.
    pub(super) fn forget(&mut self, span: Span) {
        for Level { width, known } in &mut self.levels {
            let first = stretch_at(span.start, *width).start;
            while let Some((&start, _)) = known.range(first..span.end.max(first)).next() {
                known.remove(&start);
            }
        }
    }

    /// Anything may have changed.
    pub(super) fn clear(&mut self) {
        self.levels.iter_mut().for_each(|level| level.known.clear());
    }
}

/// The stretch of this width that `moment` lies in. At the end of time it is cut, but never empty.
fn stretch_at(moment: Moment, width: Duration) -> Span {
    let start = moment.floor_to(width);
    Span::new(start, start + width)
}
