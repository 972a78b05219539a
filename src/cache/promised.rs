//! What the second tier says it has of a long window, and how much of that is taken at a time. Pure.
//!
//! A year does not fit where its answer is put together, so what stands in Redis is taken when the answer has come so
//! far. What is *not* there is known at once, by the names: it is fetched in as few runs as ever.

use crate::window::{Grid, Moment, Span, SpanSet};

/// About so many bytes of chunks are taken at a time.
pub(super) const AT_A_TIME: usize = 2 << 20;
/// So many cells at first, while nobody knows how dense they are,
const FIRST_CELLS: usize = 4;
/// and at most.
const MOST_CELLS: usize = 32;

/// What is known of the second tier by name.
#[derive(Debug)]
pub(super) struct Promised {
    /// What was looked for.
    looked_for: SpanSet,
    /// What of it is there, and has not been taken yet.
    there: SpanSet,
    /// When the oldest of it was fetched.
    oldest: Option<Moment>,
    /// How many cells are taken next.
    cells: usize,
    /// How many times running nothing could be taken.
    failures: u32,
}

impl Promised {
    pub(super) fn new() -> Self {
        let (looked_for, there) = (SpanSet::default(), SpanSet::default());
        Self { looked_for, there, oldest: None, cells: FIRST_CELLS, failures: 0 }
    }

    /// What of `missing` has not been looked for.
    pub(super) fn unknown(&self, missing: &SpanSet) -> SpanSet {
        without(missing, &self.looked_for)
    }

    /// What of `missing` is not there, or could not be taken: it must be fetched.
    pub(super) fn broken(&self, missing: &SpanSet) -> SpanSet {
        without(missing, &self.there)
    }

    /// What of `missing` is to be taken.
    pub(super) fn kept(&self, missing: &SpanSet) -> SpanSet {
        missing.spans().iter().flat_map(|span| self.there.within(*span)).collect()
    }

    /// Whether what lies at `moment` is to be taken.
    pub(super) fn is_there(&self, moment: Moment) -> bool {
        self.there.within(Span::new(moment, moment.next_tick())).next().is_some()
    }

    /// When the oldest of what was there had been fetched.
    pub(super) fn oldest(&self) -> Option<Moment> {
        self.oldest
    }

    /// `spans` have been looked for, and of them `there` was found, fetched at these moments.
    pub(super) fn learn(&mut self, spans: &SpanSet, there: impl IntoIterator<Item = (Span, Moment)>) {
        spans.spans().iter().for_each(|span| self.looked_for.insert(*span));
        for (found, fetched_at) in there {
            for span in spans.within(found) {
                self.there.insert(span);
                self.oldest = Some(self.oldest.map_or(fetched_at, |oldest| oldest.min(fetched_at)));
            }
        }
    }

    /// What is taken next of `wanted`, which is there.
    pub(super) fn next(&self, grid: &Grid, wanted: &SpanSet) -> SpanSet {
        first_cells(grid, wanted, self.cells)
    }

    /// `piece` has been taken, whether all of it was there or not: it was of so many bytes.
    pub(super) fn took(&mut self, piece: &SpanSet, bytes: usize) {
        piece.spans().iter().for_each(|span| self.there.remove(*span));
        self.failures = 0;
        // As dense as it was, it will be.
        let fit = (self.cells * AT_A_TIME).checked_div(bytes).unwrap_or(MOST_CELLS);
        self.cells = fit.clamp(1, MOST_CELLS).min(2 * self.cells);
    }

    /// Nothing can be taken just now: what comes next of `wanted` is given up. Each time running it is twice as much, so
    /// that a short failure costs little, and a long one few runs.
    pub(super) fn fail(&mut self, grid: &Grid, wanted: &SpanSet) {
        let cells = self.cells.checked_shl(self.failures).unwrap_or(usize::MAX);
        first_cells(grid, wanted, cells).spans().iter().for_each(|span| self.there.remove(*span));
        self.failures += 1;
    }
}

fn without(spans: &SpanSet, others: &SpanSet) -> SpanSet {
    let mut left = SpanSet::default();
    for span in spans.spans() {
        let mut at = span.start;
        for other in others.within(*span) {
            left.insert(Span::new(at, other.start));
            at = other.end;
        }
        left.insert(Span::new(at, span.end));
    }
    left
}

/// What lies in the first cells of `spans`.
fn first_cells(grid: &Grid, spans: &SpanSet, cells: usize) -> SpanSet {
    let (mut first, mut left, mut last) = (SpanSet::default(), cells, None);
    for span in spans.spans() {
        let mut at = span.start;
        while at < span.end {
            let cell = grid.cell(at);
            if last != Some(cell) {
                if left == 0 {
                    return first;
                }
                (left, last) = (left - 1, Some(cell));
            }
            first.insert(Span::new(at, cell.end).intersection(*span));
            at = cell.end;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hours(start: i64, end: i64) -> Span {
        Span::new(Moment::from_seconds(start * 3600), Moment::from_seconds(end * 3600))
    }

    fn set(spans: &[(i64, i64)]) -> SpanSet {
        spans.iter().map(|(start, end)| hours(*start, *end)).collect()
    }

    fn grid() -> Grid {
        Grid::new(Duration::from_hours(1))
    }

    fn promised(there: &[(i64, i64)]) -> Promised {
        let mut promised = Promised::new();
        let there = there.iter().map(|(start, end)| (hours(*start, *end), Moment::from_seconds(7)));
        promised.learn(&set(&[(0, 1000)]), there);
        promised
    }

    #[test]
    fn what_is_missing_is_unknown_or_there_or_to_be_fetched() {
        let promised = promised(&[(0, 10), (20, 1010)]);
        let missing = set(&[(5, 30), (990, 1020)]);
        assert_eq!(promised.unknown(&missing), set(&[(1000, 1020)]));
        assert_eq!(promised.kept(&missing), set(&[(5, 10), (20, 30), (990, 1000)]));
        assert_eq!(promised.broken(&missing), set(&[(10, 20), (1000, 1020)]));
        assert!(promised.is_there(hours(20, 20).start) && !promised.is_there(hours(10, 10).start));
        assert_eq!(promised.oldest(), Some(Moment::from_seconds(7)));
    }

    #[test]
    fn as_much_is_taken_as_fits() {
        let mut promised = promised(&[(0, 1000)]);
        let mut wanted = set(&[(0, 1), (2, 1000)]);
        let mut take = |bytes_a_cell: usize| {
            let piece = promised.next(&grid(), &wanted);
            let cells: usize =
                piece.spans().iter().map(|span| usize::try_from(span.length().as_secs() / 3600).unwrap()).sum();
            promised.took(&piece, cells * bytes_a_cell);
            piece.spans().iter().for_each(|span| wanted.remove(*span));
            cells
        };
        assert_eq!([take(0), take(0), take(0), take(0)], [4, 8, 16, 32], "no more than twice as much as before");
        assert_eq!([take(AT_A_TIME / 4), take(AT_A_TIME / 4), take(2 * AT_A_TIME), take(1)], [32, 4, 4, 1]);
    }

    #[test]
    fn a_cell_counts_once_however_it_is_cut() {
        let minutes =
            |start: i64, end: i64| Span::new(Moment::from_seconds(start * 60), Moment::from_seconds(end * 60));
        let wanted: SpanSet = [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 200)].into_iter().collect();
        let first = [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 120)];
        assert_eq!(first_cells(&grid(), &wanted, 2), first.into_iter().collect());
    }

    #[test]
    fn what_cannot_be_taken_is_given_up_more_and_more_until_something_can() {
        let mut promised = promised(&[(0, 1000)]);
        let window = set(&[(0, 1000)]);
        let give_up = |promised: &mut Promised| {
            let wanted = promised.kept(&window);
            promised.fail(&grid(), &wanted);
            promised.kept(&window).spans()[0].start.as_seconds() / 3600
        };
        assert_eq!([give_up(&mut promised), give_up(&mut promised), give_up(&mut promised)], [4, 12, 28]);
        promised.took(&set(&[(28, 32)]), AT_A_TIME);
        assert_eq!(give_up(&mut promised), 36);
        for _ in 0..100 {
            let wanted = promised.kept(&window);
            promised.fail(&grid(), &wanted);
        }
        assert!(promised.kept(&window).is_empty());
    }
}
