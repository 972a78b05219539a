//! How large a run may become, and where one of unknown density ends. Pure.
//!
//! A run is planned to be of at most some forty pages. Of one whose density is not known, the first pages decide: as soon
//! as they let expect more than one run should bring, it ends a little behind them, and all that they tell is known for
//! the runs behind it. A run whose plan was wrong is cut by one proving call where its rows come in order, and dropped
//! where they do not.

use std::time::Duration;

use super::scan::{OffsetScan, PlacementCheck, RowOrder, TearDetection};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Density, Grid, Interval, Timestamp};

/// What is longer is not asked for as a whole if its rows come in no order, or move.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// The bounds of runs.
#[derive(Clone, Copy, Debug)]
pub struct RunBounds {
    /// A run is planned to be of no more pages.
    pub pages: u32,
    /// Where pages come slowly, a window of more than a day is divided if it is expected to be of more pages than this:
    /// its runs are fetched side by side.
    pub pages_side_by_side: u32,
    /// Each run side by side is planned to be of so many pages at least: its last page need not be full.
    pub least_pages_side_by_side: u32,
    /// A run that turns out to be of more pages is cut.
    pub overrun_pages: u32,
    /// So are runs of more bytes, as they are held: packed, or as they came where they cannot be packed yet.
    pub bytes: usize,
    /// A window of more than a day whose rows come in no order is dropped behind so many pages, and asked for in small
    /// runs.
    pub unordered_pages: u32,
    /// What must be fetched as a whole may be of so many bytes,
    pub indivisible_bytes: usize,
    /// and of so many pages.
    pub indivisible_pages: u32,
}

impl RunBounds {
    /// Those of the product.
    pub const PRODUCT: Self = Self {
        pages: 40,
        pages_side_by_side: 12,
        least_pages_side_by_side: 16,
        overrun_pages: 60,
        bytes: 32 << 20,
        unordered_pages: 2,
        indivisible_bytes: 256 << 20,
        indivisible_pages: 10_000,
    };

    /// Those of the product beside a cache of so many bytes of memory: what eight runs hold until they are proven is of
    /// its order.
    pub fn beside(memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let bytes = (memory / 6).clamp(6 << 20, Self::PRODUCT.bytes);
        let indivisible_bytes = memory.clamp(16 << 20, Self::PRODUCT.indivisible_bytes);
        Self { bytes, indivisible_bytes, ..Self::PRODUCT }
    }

    /// So many items are at most planned for one run.
    pub fn items(&self) -> f64 {
        f64::from(self.pages) * f64::from(PAGE_LIMIT)
    }

    /// So many items at least are planned for each of several runs side by side.
    pub fn least_items_side_by_side(&self) -> f64 {
        f64::from(self.least_pages_side_by_side) * f64::from(PAGE_LIMIT)
    }
}

impl Default for RunBounds {
    fn default() -> Self {
        Self::PRODUCT
    }
}

/// Behind the page that decides where a run ends, so many items more are expected of it: the page that ends it proves it
/// at the same time.
pub(super) const ITEMS_BEHIND_THE_LAST_PAGE: f64 = 35.0;
/// A run that is expected to bring so many times as many items as it was planned to ends as if it had not been planned.
pub(super) const WRONG_PLAN: f64 = 3.0;
/// So many items at the end of what has come tell how dense it is there.
const ITEMS_AT_THE_END: u16 = 25;
/// The size of the first run of a window whose beginning is to be sent early, in items.
pub const FIRST_RUN_ITEMS: f64 = PAGE_LIMIT as f64 + ITEMS_BEHIND_THE_LAST_PAGE;

/// What is to be done about a run that has become large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overrun {
    /// Nothing.
    Fits,
    /// It is to be cut where it has come, by one proving call.
    Cut,
    /// It is to be dropped, and a shorter one asked for.
    Drop,
    /// It cannot be cut, and is larger than anything may be.
    TooLarge,
}

/// How large a scan has become, and what may be done about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) pages: u32,
    /// Packed and unpacked.
    pub(super) bytes: usize,
    /// How many pages it was planned to be of.
    pub(super) planned_pages: Option<f64>,
    /// Proofs that have failed.
    pub(super) failed_cuts: u32,
}

/// Whether the rest of a run that is cut, or dropped, can be another run: what has not settled is read by one run, or by
/// runs that follow each other, ascending.
fn is_divisible(interval: Interval, watch: TearDetection, walk: &OffsetScan, settled_before: Timestamp) -> bool {
    let by_order = match walk.order() {
        RowOrder::Ascending | RowOrder::Unknown => true,
        RowOrder::Descending => interval.end <= settled_before,
        // It is asked for in shorter runs; what has not settled cannot be made shorter.
        RowOrder::Other => interval.start < settled_before,
    };
    by_order && watch == TearDetection::RowOrder && walk.placed() == PlacementCheck::Checked
}

/// What is to be done about a scan of `interval` that has become so large.
pub(super) fn overrun(
    size: Size,
    interval: Interval,
    watch: TearDetection,
    walk: &OffsetScan,
    settled_before: Timestamp,
    bounds: &RunBounds,
) -> Overrun {
    if !is_divisible(interval, watch, walk, settled_before) || walk.order() == RowOrder::Unknown {
        let is_too_large = size.bytes > bounds.indivisible_bytes || size.pages > bounds.indivisible_pages;
        return if is_too_large { Overrun::TooLarge } else { Overrun::Fits };
    }
    let tries = 1 + size.failed_cuts;
    let too_many = |pages: u32| size.pages >= pages || size.bytes > bounds.bytes * tries as usize;
    match walk.order() {
        // A proof that has failed is not paid for at each page.
        RowOrder::Ascending | RowOrder::Descending if too_many(bounds.overrun_pages * tries) => {
            if size.failed_cuts > 2 { Overrun::Drop } else { Overrun::Cut }
        }
        RowOrder::Other => {
            let most = match size.planned_pages {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
                Some(planned) => ((2.0 * planned).ceil() as u32).max(bounds.pages),
                None if interval.length() > DAY => bounds.unordered_pages,
                None => bounds.pages,
            };
            if too_many(most) { Overrun::Drop } else { Overrun::Fits }
        }
        RowOrder::Ascending | RowOrder::Descending | RowOrder::Unknown => Overrun::Fits,
    }
}

/// Whether a run that has torn may be cut where it has come.
pub(super) fn may_cut(interval: Interval, walk: &OffsetScan, settled_before: Timestamp) -> bool {
    is_divisible(interval, TearDetection::RowOrder, walk, settled_before)
}

/// What is known of the density of a run by what its scan has seen.
pub(super) fn density(walk: &OffsetScan, interval: Interval) -> Option<Density> {
    let last = walk.last()?;
    let scanned = match walk.order() {
        RowOrder::Ascending => Interval::new(interval.start, last),
        RowOrder::Descending => Interval::new(last, interval.end),
        RowOrder::Unknown | RowOrder::Other => return None,
    };
    let mut density = Density::default();
    density.add(scanned, |part| usize::try_from(walk.count_within(part)).unwrap_or(usize::MAX));
    (!density.is_unknown()).then_some(density)
}

/// Where a run of unknown density ends, if it is expected to bring more than a run should: the part of `interval` that it
/// goes on with. Only what is settled is divided.
pub(super) fn narrowed(
    walk: &OffsetScan,
    interval: Interval,
    density: &Density,
    settled_before: Timestamp,
    grid: &Grid,
    (slow, lanes): (bool, u32),
    bounds: &RunBounds,
) -> Option<Interval> {
    let expected = density.items(interval);
    let side_by_side = slow && interval.length() > DAY;
    let pages = if side_by_side { bounds.pages_side_by_side } else { bounds.pages };
    let most = f64::from(pages) * f64::from(PAGE_LIMIT);
    if expected <= most {
        return None;
    }
    let second = walk.last()?.floor_second();
    let kept = match walk.order() {
        RowOrder::Ascending => {
            let behind = second + Duration::from_secs(1);
            // What follows is most likely as dense as the last items, which may be much denser than the first.
            let length = walk.length_of_last(ITEMS_AT_THE_END.into());
            let length = length.mul_f64(ITEMS_BEHIND_THE_LAST_PAGE / f64::from(ITEMS_AT_THE_END));
            let target = behind + length;
            interval.split_at(grid.line_before(behind, target)).0
        }
        // The beginning of the window is another run, so this one is like those behind the first.
        RowOrder::Descending => {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let length = if side_by_side {
                // Its last hours may be much less dense than the others: a share of the time is more even.
                interval.length() / lanes.max(1)
            } else {
                interval.end.since(second).mul_f64((most / walk.len() as f64).max(1.0))
            };
            interval.split_at(grid.cell(interval.end - length).start.min(second)).1
        }
        RowOrder::Unknown | RowOrder::Other => return None,
    };
    let line = if kept.end < interval.end { kept.end } else { kept.start };
    (line > interval.start && line < interval.end && line <= settled_before).then_some(kept)
}
