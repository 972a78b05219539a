//! The grid that chunks are cut on: its lines are finer where a stream is dense.

use std::time::Duration;

use super::{Interval, Timestamp};

/// Lines that no chunk crosses: multiples of the longest chunk, and repeated halves between them.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    longest: Duration,
}

impl Grid {
    /// A grid whose widest cells are `longest`: whole seconds, at least one.
    pub fn new(longest: Duration) -> Self {
        Self { longest: longest.max(Duration::from_secs(1)) }
    }

    /// The widest cell that contains `timestamp`.
    pub fn cell(&self, timestamp: Timestamp) -> Interval {
        let start = timestamp.floor_to(self.longest);
        Interval::new(start, start + self.longest)
    }

    /// End of a run that begins at `start` and should end near `target`, a later timestamp: the last line of a widest
    /// cell up to `target`, else its whole second, else the first whole second after `start`.
    pub fn line_before(&self, start: Timestamp, target: Timestamp) -> Timestamp {
        let lines = [target.floor_to(self.longest), target.floor_second()];
        lines.into_iter().find(|line| *line > start).unwrap_or(start.floor_second() + Duration::from_secs(1))
    }

    /// Cuts `interval` into chunks, ascending: at each line of the grid, and, while `fits` is false for a piece, in the
    /// middle of its cell, until the piece fits or its cell is one second long.
    ///
    /// The lines depend on the grid alone, so two overlapping intervals are cut at the same places.
    pub fn cut(&self, interval: Interval, mut fits: impl FnMut(Interval) -> bool) -> Vec<Interval> {
        let mut chunks = Vec::new();
        let mut start = interval.start;
        while start < interval.end {
            let cell = self.cell(start);
            halve(cell, interval, &mut fits, &mut chunks);
            start = cell.end;
        }
        chunks
    }
}

fn halve(cell: Interval, interval: Interval, fits: &mut impl FnMut(Interval) -> bool, chunks: &mut Vec<Interval>) {
    let piece = cell.intersection(interval);
    if piece.is_empty() {
        return;
    }
    let middle = (cell.start + cell.length() / 2).floor_second();
    if middle == cell.start || fits(piece) {
        chunks.push(piece);
    } else {
        let (left, right) = cell.split_at(middle);
        halve(left, interval, fits, chunks);
        halve(right, interval, fits, chunks);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    #[test]
    fn sparse_interval_is_cut_at_the_hours() {
        let grid = Grid::new(Duration::from_hours(1));
        assert_eq!(
            grid.cut(seconds(1800, 9000), |_| true),
            [seconds(1800, 3600), seconds(3600, 7200), seconds(7200, 9000)]
        );
    }

    proptest! {
        #[test]
        fn pieces_tile_the_interval_and_fit(start in -9000i64..9000, length in 1i64..20_000, chunk in 1u64..4000, fit in 1u64..500) {
            let grid = Grid::new(Duration::from_secs(chunk));
            let interval = seconds(start, start + length);
            let pieces = grid.cut(interval, |piece| piece.length() <= Duration::from_secs(fit));
            prop_assert_eq!(pieces.first().map(|p| p.start), Some(interval.start));
            prop_assert_eq!(pieces.last().map(|p| p.end), Some(interval.end));
            prop_assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            for piece in pieces {
                prop_assert!(!piece.is_empty() && piece.length() <= Duration::from_secs(fit.max(1)));
                prop_assert!(piece.end <= grid.cell(piece.start).end, "{:?} crosses a line", piece);
            }
        }

        #[test]
        fn overlapping_intervals_are_cut_at_the_same_lines(a in 0i64..5000, b in 5000i64..9000, c in 9000i64..12_000) {
            let grid = Grid::new(Duration::from_hours(1));
            let fits = |piece: Interval| piece.length() <= Duration::from_mins(10);
            let lines = |interval: Interval| -> Vec<Timestamp> {
                grid.cut(interval, fits).iter().map(|piece| piece.start).filter(|line| *line > seconds(b, b).start).collect()
            };
            let (short, long) = (lines(seconds(b, c)), lines(seconds(a, c)));
            // Whether a piece fits may differ at the start of an interval, so only cells after it are compared.
            let after = grid.cell(Timestamp::from_seconds(b)).end;
            let tail = |lines: Vec<Timestamp>| lines.into_iter().filter(|line| *line >= after).collect::<Vec<_>>();
            prop_assert_eq!(tail(short), tail(long));
        }
    }
}
