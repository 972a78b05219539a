//! What the second tier says it has of a long window, and how much of that is read at a time. Pure.
//!
//! A year does not fit where its answer is put together, so what stands in Redis is read when the answer has come so far.
//! What is *not* there is known at once, by the names of the chunks, so runs are planned around what is. A name promises
//! nothing: what cannot be read then is missing, and fetched.

use crate::window::{Grid, Moment, Span, SpanSet};

/// About so many bytes of chunks are read at a time.
pub(super) const READ_BYTES: usize = 2 << 20;
/// So many cells at first, while nobody knows how dense they are,
const FIRST_CELLS: usize = 4;
/// and at most.
const MOST_CELLS: usize = 32;
/// If Redis does not answer, so many cells are given up, and twice as many at each further failure in a row: a moment's
/// failure costs a few calls, and a Redis that is gone a handful of runs.
const GIVEN_UP_CELLS: usize = 24;

/// What is known of the second tier by name.
#[derive(Debug)]
pub(super) struct Listing {
    /// What was looked for.
    looked_for: SpanSet,
    /// What of it is there, and has not been read yet.
    there: SpanSet,
    /// When the oldest of it was fetched.
    oldest: Option<Moment>,
    /// How many cells are read next.
    cells: usize,
    /// How many times in a row nothing could be read.
    failures: u32,
}

impl Listing {
    pub(super) fn new() -> Self {
        let (looked_for, there) = (SpanSet::default(), SpanSet::default());
        Self { looked_for, there, oldest: None, cells: FIRST_CELLS, failures: 0 }
    }

    /// What of `missing` has not been looked for.
    pub(super) fn unknown(&self, missing: &SpanSet) -> SpanSet {
        missing.without(&self.looked_for)
    }

    /// What of `missing` is not there: it must be fetched.
    pub(super) fn absent(&self, missing: &SpanSet) -> SpanSet {
        missing.without(&self.there)
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

    /// What is read next of `missing`, if its beginning is there: what follows it there, in a few cells.
    pub(super) fn next(&self, grid: &Grid, missing: &SpanSet) -> Option<SpanSet> {
        let first = missing.spans().first()?.start;
        let is_there = self.there.within(Span::new(first, first.next_tick())).next().is_some();
        let there = || missing.spans().iter().flat_map(|span| self.there.within(*span)).collect();
        is_there.then(|| first_cells(grid, &there(), self.cells))
    }

    /// `piece` has been read, whether all of it was there or not: it was of so many bytes.
    pub(super) fn read(&mut self, piece: &SpanSet, bytes: usize) {
        piece.spans().iter().for_each(|span| self.there.remove(*span));
        self.failures = 0;
        // As dense as it was, it will be.
        let fit = (self.cells * READ_BYTES).checked_div(bytes).unwrap_or(MOST_CELLS);
        self.cells = fit.clamp(1, MOST_CELLS).min(2 * self.cells);
    }

    /// Nothing can be read just now: some of what comes next is given up.
    pub(super) fn fail(&mut self, grid: &Grid) {
        let cells = GIVEN_UP_CELLS.checked_shl(self.failures).unwrap_or(usize::MAX);
        first_cells(grid, &self.there, cells).spans().iter().for_each(|span| self.there.remove(*span));
        self.failures += 1;
    }
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

    fn listing(there: &[(i64, i64)]) -> Listing {
        let mut listing = Listing::new();
        let there = there.iter().map(|(start, end)| (hours(*start, *end), Moment::from_seconds(7)));
        listing.learn(&set(&[(0, 1000)]), there);
        listing
    }

    #[test]
    fn missing_time_is_unknown_or_listed_or_absent() {
        let listing = listing(&[(0, 10), (20, 1010)]);
        let missing = set(&[(5, 30), (990, 1020)]);
        assert_eq!(listing.unknown(&missing), set(&[(1000, 1020)]));
        assert_eq!(listing.absent(&missing), set(&[(10, 20), (1000, 1020)]));
        assert_eq!(listing.oldest(), Some(Moment::from_seconds(7)));
        assert_eq!(listing.next(&grid(), &set(&[(9, 21)])), Some(set(&[(9, 10), (20, 21)])));
        assert_eq!(listing.next(&grid(), &set(&[(10, 21)])), None, "its beginning is fetched first");
    }

    #[test]
    fn as_much_is_read_as_fits() {
        let mut listing = listing(&[(0, 1000)]);
        let mut missing = set(&[(0, 1), (2, 1000)]);
        let mut read = |bytes_per_cell: usize| {
            let piece = listing.next(&grid(), &missing).unwrap();
            let cells: usize =
                piece.spans().iter().map(|span| usize::try_from(span.length().as_secs() / 3600).unwrap()).sum();
            listing.read(&piece, cells * bytes_per_cell);
            piece.spans().iter().for_each(|span| missing.remove(*span));
            cells
        };
        assert_eq!([read(0), read(0), read(0), read(0)], [4, 8, 16, 32], "no more than twice as much as before");
        assert_eq!([read(READ_BYTES / 4), read(READ_BYTES / 4), read(2 * READ_BYTES), read(1)], [32, 4, 4, 1]);
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
    fn more_and_more_is_given_up_until_something_can_be_read() {
        let mut listing = listing(&[(0, 1000)]);
        let window = set(&[(0, 1000)]);
        let given_up = |listing: &mut Listing| {
            listing.fail(&grid());
            listing.absent(&window).spans().last().map_or(0, |span| span.end.as_seconds() / 3600)
        };
        assert_eq!([given_up(&mut listing), given_up(&mut listing), given_up(&mut listing)], [24, 72, 168]);
        listing.read(&set(&[(168, 172)]), READ_BYTES);
        assert_eq!(given_up(&mut listing), 196);
        for _ in 0..100 {
            listing.fail(&grid());
        }
        assert_eq!(listing.absent(&window), window);
    }
}
