//! How long a run of pages may become once it has begun, and where a run of unknown density ends. Pure.
//!
//! A run is planned for at most about forty pages, [`RunBounds::pages`] (see the decision record on bounded runs). With
//! unknown density, the first pages decide: as soon as more items are expected than one run should fetch, the run ends
//! shortly after them, and the observed density plans the following runs. A run that outgrows its plan ends early, with
//! one verifying call, where its rows come in order, and is dropped where they do not.

use std::time::Duration;

use super::scan::{OffsetScan, PlacementCheck, RowOrder, TearDetection};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Density, Grid, Interval, Timestamp};

/// Length above which an interval is not fetched as a whole if its rows come in no order, or move.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// Length above which an interval may be divided into parallel runs.
const MIN_LENGTH_OF_PARALLEL_RUNS: Duration = Duration::from_hours(24);

/// Whether parallel runs are worth their cost for `interval`: each fetches half a page more than it must, on
/// average, which only pays where pages are slow and the interval is long. The one place that decides this.
pub fn is_worth_parallel_runs(interval: Interval, pages_are_slow: bool) -> bool {
    pages_are_slow && interval.length() > MIN_LENGTH_OF_PARALLEL_RUNS
}

/// The bounds of runs.
#[derive(Clone, Copy, Debug)]
pub struct RunBounds {
    /// Most pages that one run is planned for.
    pub pages: u32,
    /// Where pages are slow, a window of more than a day with more expected pages than this is fetched by parallel
    /// runs.
    pub pages_before_parallel_runs: u32,
    /// Fewest planned pages of a parallel run; its last page need not be full.
    pub least_parallel_pages: u32,
    /// Number of pages above which a run ends early.
    pub overrun_pages: u32,
    /// Number of bytes above which a run ends early, packed or, where they cannot be packed yet, as they came.
    pub bytes: usize,
    /// Number of pages after which a window of more than a day without row order is dropped and fetched in small runs.
    pub unordered_pages: u32,
    /// Most bytes of a window that must be fetched as a whole.
    pub indivisible_bytes: usize,
    /// Most pages of a window that must be fetched as a whole.
    pub indivisible_pages: u32,
}

impl RunBounds {
    /// The product's bounds.
    pub const PRODUCT: Self = Self {
        pages: 40,
        pages_before_parallel_runs: 12,
        least_parallel_pages: 16,
        overrun_pages: 60,
        bytes: 32 << 20,
        unordered_pages: 2,
        indivisible_bytes: 256 << 20,
        indivisible_pages: 10_000,
    };

    /// The product's bounds for a cache of `memory` bytes: the unverified items of eight runs are of that order.
    pub fn beside(memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let bytes = (memory / 6).clamp(6 << 20, Self::PRODUCT.bytes);
        let indivisible_bytes = memory.clamp(16 << 20, Self::PRODUCT.indivisible_bytes);
        Self { bytes, indivisible_bytes, ..Self::PRODUCT }
    }

    /// Most items that are planned for one run.
    pub fn items(&self) -> f64 {
        f64::from(self.pages) * f64::from(PAGE_LIMIT)
    }

    /// Fewest items that are planned for each of several parallel runs.
    pub fn least_parallel_items(&self) -> f64 {
        f64::from(self.least_parallel_pages) * f64::from(PAGE_LIMIT)
    }
}

impl Default for RunBounds {
    fn default() -> Self {
        Self::PRODUCT
    }
}

/// Items expected after the page that decides where a run ends: the page that ends the run also verifies it.
pub(super) const ITEMS_BEHIND_THE_LAST_PAGE: f64 = 35.0;
/// Ratio of expected to planned items above which a run ends as if its density were unknown.
pub(super) const WRONG_PLAN: f64 = 3.0;
/// Number of most recent items that give the density at the scan's position.
const ITEMS_AT_THE_END: u16 = 25;
/// Size of the first run of a window whose beginning is to be sent early, in items.
pub const FIRST_RUN_ITEMS: f64 = PAGE_LIMIT as f64 + ITEMS_BEHIND_THE_LAST_PAGE;

/// Action on a run that has become large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overrun {
    /// Nothing.
    Fits,
    /// End the scan early, at its position, with one verifying call.
    EndEarly,
    /// Drop the run; a shorter one is needed.
    Drop,
    /// Fail: the scan cannot end early, and exceeds the limit of indivisible runs.
    TooLarge,
}

/// The size of a scan, as the overrun rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) pages: u32,
    /// Bytes, packed and unpacked.
    pub(super) bytes: usize,
    /// Planned number of pages.
    pub(super) planned_pages: Option<f64>,
    /// Number of failed verifications.
    pub(super) failed_proofs: u32,
}

/// Whether the rest of a run that ends early or is dropped can be another run. Open time is read by one run, or by runs
/// one after another, ascending.
fn is_divisible(interval: Interval, watch: TearDetection, scan: &OffsetScan, settled_before: Timestamp) -> bool {
    let by_order = match scan.order() {
        RowOrder::Ascending | RowOrder::Unknown => true,
        RowOrder::Descending => interval.end <= settled_before,
        // The rest is fetched in shorter runs; open time cannot be divided.
        RowOrder::Other => interval.start < settled_before,
    };
    by_order && watch == TearDetection::RowOrder && scan.placement() == PlacementCheck::Checked
}

/// The action on a scan of `interval` of this size.
pub(super) fn overrun(
    size: Size,
    interval: Interval,
    watch: TearDetection,
    scan: &OffsetScan,
    settled_before: Timestamp,
    bounds: &RunBounds,
) -> Overrun {
    if !is_divisible(interval, watch, scan, settled_before) || scan.order() == RowOrder::Unknown {
        let is_too_large = size.bytes > bounds.indivisible_bytes || size.pages > bounds.indivisible_pages;
        return if is_too_large { Overrun::TooLarge } else { Overrun::Fits };
    }
    let tries = 1 + size.failed_proofs;
    let too_many = |pages: u32| size.pages >= pages || size.bytes > bounds.bytes * tries as usize;
    match scan.order() {
        // A failed verification is not repeated at each page.
        RowOrder::Ascending | RowOrder::Descending if too_many(bounds.overrun_pages * tries) => {
            if size.failed_proofs > 2 { Overrun::Drop } else { Overrun::EndEarly }
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

/// Whether a scan that has torn may end early at its position.
pub(super) fn may_end_early(interval: Interval, scan: &OffsetScan, settled_before: Timestamp) -> bool {
    is_divisible(interval, TearDetection::RowOrder, scan, settled_before)
}

/// The density that a scan has observed.
pub(super) fn density(scan: &OffsetScan, interval: Interval) -> Option<Density> {
    let last = scan.last()?;
    let scanned = match scan.order() {
        RowOrder::Ascending => Interval::new(interval.start, last),
        RowOrder::Descending => Interval::new(last, interval.end),
        RowOrder::Unknown | RowOrder::Other => return None,
    };
    let mut density = Density::default();
    density.add(scanned, |part| usize::try_from(scan.count_within(part)).unwrap_or(usize::MAX));
    (!density.is_unknown()).then_some(density)
}

/// The end of a run of unknown density that is expected to be too large: the part of `interval` that it continues with.
/// Only settled time is divided.
pub(super) fn narrowed(
    scan: &OffsetScan,
    interval: Interval,
    density: &Density,
    settled_before: Timestamp,
    grid: &Grid,
    (slow, parallel_runs): (bool, u32),
    bounds: &RunBounds,
) -> Option<Interval> {
    let expected = density.items(interval);
    let parallel = is_worth_parallel_runs(interval, slow);
    let pages = if parallel { bounds.pages_before_parallel_runs } else { bounds.pages };
    let most = f64::from(pages) * f64::from(PAGE_LIMIT);
    if expected <= most {
        return None;
    }
    let second = scan.last()?.floor_second();
    let kept = match scan.order() {
        RowOrder::Ascending => {
            let behind = second + Duration::from_secs(1);
            // The rows that follow are most likely as dense as the last items, which may be denser than the first.
            let length = scan.length_of_last(ITEMS_AT_THE_END.into());
            let length = length.mul_f64(ITEMS_BEHIND_THE_LAST_PAGE / f64::from(ITEMS_AT_THE_END));
            let target = behind + length;
            interval.split_at(grid.line_before(behind, target)).0
        }
        // The beginning of the window is another run, so this one is planned like the runs after the first.
        RowOrder::Descending => {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let length = if parallel {
                // The last hours may be much sparser than the others: a share of the time is more even.
                interval.length() / parallel_runs.max(1)
            } else {
                interval.end.since(second).mul_f64((most / scan.len() as f64).max(1.0))
            };
            interval.split_at(grid.cell(interval.end - length).start.min(second)).1
        }
        RowOrder::Unknown | RowOrder::Other => return None,
    };
    let line = if kept.end < interval.end { kept.end } else { kept.start };
    (line > interval.start && line < interval.end && line <= settled_before).then_some(kept)
}
