//! Which of a window's items are wanted.

use crate::cache::Slice;

/// Some items of a window, which follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// How many items of the window to skip.
    pub offset: u64,
    /// How many to answer with at most; `None` is all.
    pub limit: Option<u64>,
}

impl PageRange {
    /// All items.
    pub const ALL: Self = Self { offset: 0, limit: None };

    /// Which items of a window of `total` these are: the first, and the one behind the last.
    pub(in crate::cache) fn bounds(self, total: u64) -> (u64, u64) {
        let start = self.offset.min(total);
        (start, start.saturating_add(self.limit.unwrap_or(u64::MAX)).min(total))
    }

    /// Cuts these items out of a window.
    pub fn of(self, window: Vec<Slice>) -> ItemSlice {
        let total = window.iter().map(|slice| slice.rows.len() as u64).sum();
        let (start, end) = self.bounds(total);
        let mut before = 0;
        let mut slices = Vec::new();
        for Slice { chunk, rows } in window {
            let here = before..before + rows.len() as u64;
            before = here.end;
            let wanted = start.max(here.start)..end.min(here.end);
            if wanted.start < wanted.end {
                let row = |position: u64| rows.start + usize::try_from(position - here.start).unwrap_or(usize::MAX);
                slices.push(Slice { rows: row(wanted.start)..row(wanted.end), chunk });
            }
        }
        ItemSlice { slices, count: end - start, has_more: end < total }
    }
}

/// The items of an page_range.
#[derive(Clone, Debug)]
pub struct ItemSlice {
    /// Where they lie, in order: the rows of each slice follow those of the one before.
    pub slices: Vec<Slice>,
    /// How many they are.
    pub count: u64,
    /// Whether the window holds items behind them.
    pub has_more: bool,
}
