//! The listing of a long window in Redis, and how much of it is read at a time. Pure.
//!
//! A year does not fit into memory, so chunks in Redis are read when the answer reaches them. Which time is absent from
//! Redis is known before, by the names of the chunks, so that runs are planned around what is listed. A listed chunk
//! that cannot be read is missing, and fetched.

use crate::window::{Grid, Interval, IntervalSet, Timestamp};

/// About how many bytes of chunks are read at a time.
pub(in crate::cache) const READ_BYTES: usize = 2 << 20;
/// Cells of the first read, while their density is unknown, and of the largest.
const FIRST_CELLS: usize = 4;
const MAX_CELLS: usize = 32;
/// Cells that are treated as absent when Redis does not answer, doubled at each further failure in a row: a short
/// failure costs a few calls, and a long one a few runs.
const ABANDONED_CELLS: usize = 24;

/// The listing of a window in Redis.
#[derive(Debug)]
pub(in crate::cache) struct RedisListing {
    /// The time that was looked up.
    looked_up: IntervalSet,
    /// The part of it that is listed and not read yet.
    listed: IntervalSet,
    /// When the oldest listed chunk was fetched.
    oldest: Option<Timestamp>,
    /// Cells of the next read.
    cells: usize,
    /// Failed reads in a row.
    failures: u32,
}

impl RedisListing {
    pub(in crate::cache) fn new() -> Self {
        let (looked_up, listed) = (IntervalSet::default(), IntervalSet::default());
        Self { looked_up, listed, oldest: None, cells: FIRST_CELLS, failures: 0 }
    }

    /// The part of `missing` that was not looked up.
    pub(in crate::cache) fn unknown(&self, missing: &IntervalSet) -> IntervalSet {
        missing.without(&self.looked_up)
    }

    /// The part of `missing` that is not listed, so that it must be fetched.
    pub(in crate::cache) fn absent(&self, missing: &IntervalSet) -> IntervalSet {
        missing.without(&self.listed)
    }

    /// When the oldest listed chunk was fetched.
    pub(in crate::cache) fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    /// Records that `intervals` were looked up, and `chunks` were listed, each with the time of its fetch.
    pub(in crate::cache) fn add(
        &mut self,
        intervals: &IntervalSet,
        chunks: impl IntoIterator<Item = (Interval, Timestamp)>,
    ) {
        intervals.intervals().iter().for_each(|interval| self.looked_up.insert(*interval));
        for (chunk, fetched_at) in chunks {
            for interval in intervals.within(chunk) {
                self.listed.insert(interval);
                self.oldest = Some(self.oldest.map_or(fetched_at, |oldest| oldest.min(fetched_at)));
            }
        }
    }

    /// The time that is read next, if the beginning of `missing` is listed: the listed part of `missing` in a few
    /// cells.
    pub(in crate::cache) fn next(&self, grid: &Grid, missing: &IntervalSet) -> Option<IntervalSet> {
        let first = missing.intervals().first()?.start;
        let is_listed = self.listed.within(Interval::new(first, first.next_tick())).next().is_some();
        let listed = || missing.intervals().iter().flat_map(|interval| self.listed.within(*interval)).collect();
        is_listed.then(|| first_cells(grid, &listed(), self.cells))
    }

    /// Records that `piece` was read, with chunks of so many bytes.
    pub(in crate::cache) fn record_read(&mut self, piece: &IntervalSet, bytes: usize) {
        piece.intervals().iter().for_each(|interval| self.listed.remove(*interval));
        self.failures = 0;
        // The next cells are expected to be as dense.
        let fit = (self.cells * READ_BYTES).checked_div(bytes).unwrap_or(MAX_CELLS);
        self.cells = fit.clamp(1, MAX_CELLS).min(2 * self.cells);
    }

    /// Records that Redis does not answer: some of the next cells are treated as absent.
    pub(in crate::cache) fn record_failure(&mut self, grid: &Grid) {
        let cells = ABANDONED_CELLS.checked_shl(self.failures).unwrap_or(usize::MAX);
        first_cells(grid, &self.listed, cells).intervals().iter().for_each(|interval| self.listed.remove(*interval));
        self.failures += 1;
    }
}

/// The part of `intervals` in their first cells.
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
        listing.add(&set(&[(0, 1000)]), there);
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
    fn size_of_reads_follows_the_density() {
        let mut listing = listing(&[(0, 1000)]);
        let mut missing = set(&[(0, 1), (2, 1000)]);
        let mut read = |bytes_per_cell: usize| {
            let piece = listing.next(&grid(), &missing).unwrap();
            let cells: usize = piece
                .intervals()
                .iter()
                .map(|interval| usize::try_from(interval.length().as_secs() / 3600).unwrap())
                .sum();
            listing.record_read(&piece, cells * bytes_per_cell);
            piece.intervals().iter().for_each(|interval| missing.remove(*interval));
            cells
        };
        assert_eq!([read(0), read(0), read(0), read(0)], [4, 8, 16, 32], "no more than twice as much as before");
        assert_eq!([read(READ_BYTES / 4), read(READ_BYTES / 4), read(2 * READ_BYTES), read(1)], [32, 4, 4, 1]);
    }

    #[test]
    fn cell_in_several_pieces_counts_once() {
        let minutes = |start: i64, end: i64| {
            Interval::new(Timestamp::from_seconds(start * 60), Timestamp::from_seconds(end * 60))
        };
        let wanted: IntervalSet =
            [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 200)].into_iter().collect();
        let first = [minutes(1, 2), minutes(3, 4), minutes(59, 61), minutes(119, 120)];
        assert_eq!(first_cells(&grid(), &wanted, 2), first.into_iter().collect());
    }

    #[test]
    fn failures_in_a_row_double_the_abandoned_cells() {
        let mut listing = listing(&[(0, 1000)]);
        let window = set(&[(0, 1000)]);
        let abandoned = |listing: &mut RedisListing| {
            listing.record_failure(&grid());
            listing.absent(&window).intervals().last().map_or(0, |interval| interval.end.as_seconds() / 3600)
        };
        assert_eq!([abandoned(&mut listing), abandoned(&mut listing), abandoned(&mut listing)], [24, 72, 168]);
        listing.record_read(&set(&[(168, 172)]), READ_BYTES);
        assert_eq!(abandoned(&mut listing), 196);
        for _ in 0..100 {
            listing.record_failure(&grid());
        }
        assert_eq!(listing.absent(&window), window);
    }
}
