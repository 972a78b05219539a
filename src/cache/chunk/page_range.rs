//! `offset` and `limit`, and the items of a window that they select.

use std::ops::Range;
use std::sync::Arc;

use super::layout::Chunk;

/// `offset` and `limit` of a request, over all items of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// How many items of the window to skip.
    pub offset: u64,
    /// The most items to return; `None` is all.
    pub limit: Option<u64>,
}

impl PageRange {
    /// All items.
    pub const ALL: Self = Self { offset: 0, limit: None };

    /// The positions of the first item and of the item after the last one, in a window of `total` items.
    pub(in crate::cache) fn bounds(self, total: u64) -> (u64, u64) {
        let start = self.offset.min(total);
        (start, start.saturating_add(self.limit.unwrap_or(u64::MAX)).min(total))
    }

    /// Selects the items of this range from all slices of a window.
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

/// Rows of one chunk.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// Rows of the chunk.
    pub rows: Range<usize>,
}

/// The items that a [`PageRange`] selects.
#[derive(Clone, Debug)]
pub struct ItemSlice {
    /// The slices that hold the items, in order.
    pub slices: Vec<Slice>,
    /// Number of items.
    pub count: u64,
    /// Whether the window holds items after them.
    pub has_more: bool,
}
