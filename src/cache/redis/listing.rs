//! What the second tier says it has of a long window, and how much of that is read at a time. Pure.
//!
//! A year does not fit where its answer is put together, so what stands in Redis is read when the answer has come so far.
//! What is *not* there is known at once, by the names of the chunks, so runs are planned around what is. A name promises
//! nothing: what cannot be read then is missing, and fetched.

use crate::window::{Grid, Interval, IntervalSet, Timestamp};

/// About so many bytes of chunks are read at a time.
pub(in crate::cache) const READ_BYTES: usize = 2 << 20;
/// So many cells at first, while nobody knows how dense they are,
const FIRST_CELLS: usize = 4;
/// and at most.
const MOST_CELLS: usize = 32;
/// If Redis does not answer, so many cells are given up, and twice as many at each further failure in a row: a moment's
/// failure costs a few calls, and a Redis that is gone a handful of runs.
const GIVEN_UP_CELLS: usize = 24;

/// What is known of the second tier by name.
#[derive(Debug)]
pub(in crate::cache) struct RedisListing {
    /// What was looked for.
    looked_for: IntervalSet,
    /// What of it is there, and has not been read yet.
    there: IntervalSet,
    /// When the oldest of it was fetched.
    oldest: Option<Timestamp>,
    /// How many cells are read next.
    cells: usize,
    /// How many times in a row nothing could be read.
    failures: u32,
}

impl RedisListing {
    pub(in crate::cache) fn new() -> Self {
        let (looked_for, there) = (IntervalSet::default(), IntervalSet::default());
        Self { looked_for, there, oldest: None, cells: FIRST_CELLS, failures: 0 }
    }

    /// What of `missing` has not been looked for.
    pub(in crate::cache) fn unknown(&self, missing: &IntervalSet) -> IntervalSet {
        missing.without(&self.looked_for)
    }

    /// What of `missing` is not there: it must be fetched.
    pub(in crate::cache) fn absent(&self, missing: &IntervalSet) -> IntervalSet {
        missing.without(&self.there)
    }

    /// When the oldest of what was there had been fetched.
    pub(in crate::cache) fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    /// `intervals` have been looked for, and of them `there` was found, fetched at these moments.
    pub(in crate::cache) fn learn(
        &mut self,
        intervals: &IntervalSet,
        there: impl IntoIterator<Item = (Interval, Timestamp)>,
    ) {
        intervals.intervals().iter().for_each(|interval| self.looked_for.insert(*interval));
        for (found, fetched_at) in there {
            for interval in intervals.within(found) {
                self.there.insert(interval);
                self.oldest = Some(self.oldest.map_or(fetched_at, |oldest| oldest.min(fetched_at)));
            }
        }
    }

    /// What is read next of `missing`, if its beginning is there: what follows it there, in a few cells.
    pub(in crate::cache) fn next(&self, grid: &Grid, missing: &IntervalSet) -> Option<IntervalSet> {
        let first = missing.intervals().first()?.start;
        let is_there = self.there.within(Interval::new(first, first.next_tick())).next().is_some();
        let there = || missing.intervals().iter().flat_map(|interval| self.there.within(*interval)).collect();
        is_there.then(|| first_cells(grid, &there(), self.cells))
    }

    /// `piece` has been read, whether all of it was there or not: it was of so many bytes.
    pub(in crate::cache) fn read(&mut self, piece: &IntervalSet, bytes: usize) {
        piece.intervals().iter().for_each(|interval| self.there.remove(*interval));
        self.failures = 0;
        // As dense as it was, it will be.
        let fit = (self.cells * READ_BYTES).checked_div(bytes).unwrap_or(MOST_CELLS);
        self.cells = fit.clamp(1, MOST_CELLS).min(2 * self.cells);
    }

    /// Nothing can be read just now: some of what comes next is given up.
    pub(in crate::cache) fn fail(&mut self, grid: &Grid) {
        let cells = GIVEN_UP_CELLS.checked_shl(self.failures).unwrap_or(usize::MAX);
        first_cells(grid, &self.there, cells).intervals().iter().for_each(|interval| self.there.remove(*interval));
        self.failures += 1;
    }
}

/// What lies in the first cells of `intervals`.
fn first_cells(grid: &Grid, intervals: &IntervalSet, cells: usize) -> IntervalSet {
    let (mut first, mut left, mut last) = (IntervalSet::default(), cells, None);
    for interval in intervals.intervals() {
        let mut at = interval.start;
        while at < interval.end {
            let cell = grid.cell(at);
            if last != Some(cell) {
                if left == 0 {
                    return first;
                }
                (left, last) = (left - 1, Some(cell));
            }
            first.insert(Interval::new(at, cell.end).intersection(*interval));
            at = cell.end;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hours(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start * 3600), Timestamp::from_seconds(end * 3600))
    }

    fn set(intervals: &[(i64, i64)]) -> IntervalSet {
        intervals.iter().map(|(start, end)| hours(*start, *end)).collect()
    }

    fn grid() -> Grid {
        Grid::new(Duration::from_hours(1))
    }

    fn listing(there: &[(i64, i64)]) -> RedisListing {
        let mut listing = RedisListing::new();
        let there = there.iter().map(|(start, end)| (hours(*start, *end), Timestamp::from_seconds(7)));
        listing.learn(&set(&[(0, 1000)]), there);
        listing
    }

    #[test]
    fn missing_time_is_unknown_or_listed_or_absent() {
        let listing = listing(&[(0, 10), (20, 1010)]);
        let missing = set(&[(5, 30), (990, 1020)]);
        assert_eq!(listing.unknown(&missing), set(&[(1000, 1020)]));
        assert_eq!(listing.absent(&missing), set(&[(10, 20), (1000, 1020)]));
        assert_eq!(listing.oldest(), Some(Timestamp::from_seconds(7)));
        assert_eq!(listing.next(&grid(), &set(&[(9, 21)])), Some(set(&[(9, 10), (20, 21)])));
        assert_eq!(listing.next(&grid(), &set(&[(10, 21)])), None, "its beginning is fetched first");
    }

    #[test]
    fn as_much_is_read_as_fits() {
        let mut listing = listing(&[(0, 1000)]);
        let mut missing = set(&[(0, 1), (2, 1000)]);
        let mut read = |bytes_per_cell: usize| {
            let piece = listing.next(&grid(), &missing).unwrap();
            let cells: usize = piece
                .intervals()
                .iter()
                .map(|interval| usize::try_from(interval.length().as_secs() / 3600).unwrap())
                .sum();
            listing.read(&piece, cells * bytes_per_cell);
            piece.intervals().iter().for_each(|interval| missing.remove(*interval));
            cells
        };
        assert_eq!([read(0), read(0), read(0), read(0)], [4, 8, 16, 32], "no more than twice as much as before");
        assert_eq!([read(READ_BYTES / 4), read(READ_BYTES / 4), read(2 * READ_BYTES), read(1)], [32, 4, 4, 1]);
    }

    #[test]
    fn a_cell_counts_once_however_it_is_cut() {
        let minutes = |start: i64, end: i64| {
            Interval::new(Timestamp::from_seconds(start * 60), Timestamp::from_seconds(end * 60))
        };
        let wanted: IntervalSet =
            [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 200)].into_iter().collect();
        let first = [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 120)];
        assert_eq!(first_cells(&grid(), &wanted, 2), first.into_iter().collect());
    }

    #[test]
    fn more_and_more_is_given_up_until_something_can_be_read() {
        let mut listing = listing(&[(0, 1000)]);
        let window = set(&[(0, 1000)]);
        let given_up = |listing: &mut RedisListing| {
            listing.fail(&grid());
            listing.absent(&window).intervals().last().map_or(0, |interval| interval.end.as_seconds() / 3600)
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
