//! A scan: one pass over the pages of a query by offset, the proof that it is complete, and duplicates over the borders
//! of its pages. Pure: it is fed pages and says what it has found.
//!
//! Kore does not promise that paging by offset is stable. A complete scan is verified by counting, not by order: if
//! every page began where the one before ended, the last one said that no more follow, and no `segmentID` was repeated,
//! then as many different items were seen as there were rows, so all rows were seen. The same holds where an item was
//! repeated as often as the upstream is proven to hold it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::item::Item;
use crate::upstream::Page;
use crate::window::{Interval, QueryBounds, Timestamp};

/// Memory of an item besides its bytes, in bytes.
const OVERHEAD: usize = 256;

/// An item outside of the interval that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideItem {
    /// The item's timestamp.
    pub at: Timestamp,
    /// The item's `segmentID`, as [`Item::id`].
    pub id: Bytes,
}

/// An item that was repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateItem {
    /// The item's `segmentID`, as [`Item::id`].
    pub id: Bytes,
    /// The item's timestamps: of the earlier occurrence and of this one.
    pub at: [Timestamp; 2],
}

/// Contradiction between pages: the scan cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inconsistency {
    /// An item was repeated more often than the upstream is proven to hold it: rows moved. The page was not added.
    SeenTwice(DuplicateItem),
    /// The order changed from one page to the next, though each page was in order.
    OrderBroke,
    /// More rows were promised, and none came.
    NothingCame,
    /// An item lies outside of the interval that was asked for: `window.field` may be wrong.
    OutsideInterval(OutsideItem),
    /// An item has no timestamp.
    WithoutTimestamp,
    /// No item of the first page has a timestamp: `window.field` may be wrong.
    AllWithoutTimestamp,
}

/// Distance from the beginning of the interval beyond which a timestamp is treated as missing, since it says nothing
/// about where the item lies. The longest window has 366 days.
const FARTHEST: Duration = Duration::from_hours(800 * 24);

/// Order of the upstream's rows, as far as it was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Too few items to tell.
    Unknown,
    /// Ascending by timestamp.
    Ascending,
    /// Descending by timestamp.
    Descending,
    /// By another criterion.
    Other,
}

/// A scan under way.
#[derive(Debug)]
pub struct OffsetScan {
    bounds: QueryBounds,
    field: Arc<str>,
    placement: PlacementCheck,
    watch: TearDetection,
    order: RowOrder,
    /// Timestamp of the first occurrence of each item, by `segmentID`.
    first_seen_by_id: HashMap<Bytes, Timestamp>,
    duplicates: HashMap<Bytes, Multiple>,
    /// Timestamps of all items, in the order in which they came.
    seen: Vec<Timestamp>,
    /// Items that were not yet handed over for packing.
    items: Vec<Item>,
    /// The interval whose items were handed over.
    handed_over: Interval,
    unpacked_bytes: usize,
    following: FollowingRows,
}

/// Whether more rows follow in the current interval, according to the last page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowingRows {
    Unknown,
    Promised,
    /// The scan is complete.
    None,
}

/// An item that the upstream holds several times.
#[derive(Clone, Copy, Debug)]
struct Multiple {
    /// How often the upstream is proven to hold it.
    proven_count: usize,
    /// How often the scan has seen it.
    seen_count: usize,
}

/// Whether items must lie within the interval that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementCheck {
    /// Items must lie within it, because the answer is filtered by their timestamps.
    Checked,
    /// Items may lie anywhere, because the answer is served only as a whole.
    Unchecked,
}

/// Whether a break in the order counts as a sign that rows moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TearDetection {
    /// A break in the order fails the scan.
    RowOrder,
    /// Only a repeated item fails the scan.
    DuplicateIds,
}

impl OffsetScan {
    /// A scan before its first page. `field` names the timestamp.
    pub fn new(bounds: QueryBounds, field: Arc<str>, placement: PlacementCheck, watch: TearDetection) -> Self {
        let (first_seen_by_id, duplicates, seen, items, handed_over) = Default::default();
        Self {
            bounds,
            field,
            placement,
            watch,
            order: RowOrder::Unknown,
            first_seen_by_id,
            duplicates,
            seen,
            items,
            handed_over,
            unpacked_bytes: 0,
            following: FollowingRows::Unknown,
        }
    }

    /// Offset of the next page; `None` when the scan is complete.
    pub fn next_offset(&self) -> Option<u64> {
        (self.following != FollowingRows::None).then_some(self.seen.len() as u64)
    }

    /// Continues with a part of the interval that contains all items seen so far. Their count stays: the following
    /// pages begin where the last one ended, and the verification covers the part.
    pub fn narrow(&mut self, bounds: QueryBounds) {
        self.bounds = bounds;
        // The promised rows may lie in the other part.
        if self.following == FollowingRows::Promised {
            self.following = FollowingRows::Unknown;
        }
    }

    /// Allows an item to occur `count` times, as verified.
    pub fn allow(&mut self, id: Bytes, count: usize) {
        let seen_count = usize::from(self.first_seen_by_id.contains_key(&id));
        self.duplicates.entry(id).or_insert(Multiple { proven_count: count, seen_count }).proven_count = count;
    }

    /// Whether items must lie within the interval that was asked for.
    pub fn placement(&self) -> PlacementCheck {
        self.placement
    }

    /// The order of the rows so far.
    pub fn order(&self) -> RowOrder {
        self.order
    }

    /// Timestamp of the last item.
    pub fn last(&self) -> Option<Timestamp> {
        self.seen.last().copied()
    }

    /// Length of time in which the last `items` items lie.
    pub fn length_of_last(&self, items: usize) -> Duration {
        let last = &self.seen[self.seen.len().saturating_sub(items)..];
        let ends = last.iter().min().zip(last.iter().max());
        ends.map_or(Duration::ZERO, |(first, last)| last.since(*first))
    }

    /// The last whole second up to `line` at which no item lies exactly. With an inclusive upper bound, a query that
    /// ends at an item's second also returns that item, and the configured bound may be wrong.
    pub fn line_before(&self, line: Timestamp) -> Timestamp {
        self.seen.iter().rev().fold(line, |line, at| if *at == line { line - Duration::from_secs(1) } else { line })
    }

    /// Number of items seen in `interval`.
    pub fn count_within(&self, interval: Interval) -> u64 {
        self.seen.iter().filter(|at| interval.contains(**at)).count() as u64
    }

    /// Number of items seen.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether no item was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Removes and returns the items of `interval`, sorted, for packing. The interval must adjoin what was handed over
    /// before. The items still count; whether they are complete is not yet verified.
    pub fn hand_over(&mut self, interval: Interval) -> Vec<Item> {
        let mut items: Vec<Item> = self.items.extract_if(.., |item| interval.contains(item.at)).collect();
        Item::sort(&mut items);
        self.unpacked_bytes -= items.iter().map(weight).sum::<usize>();
        self.handed_over = match self.handed_over {
            before if before.is_empty() => interval,
            before => Interval::new(before.start.min(interval.start), before.end.max(interval.end)),
        };
        items
    }

    /// Bytes of the items that were not handed over.
    pub fn unpacked_bytes(&self) -> usize {
        self.unpacked_bytes
    }

    /// The interval that was handed over before the end of the scan; empty if none was.
    pub fn handed_over(&self) -> Interval {
        self.handed_over
    }

    /// Adds the page at [`OffsetScan::next_offset`].
    ///
    /// # Errors
    /// [`Inconsistency`] if the page contradicts earlier pages. The scan is unusable then, except after a repeated
    /// item: then it is as it was before.
    pub fn take(&mut self, page: &Page) -> Result<(), Inconsistency> {
        let read: Vec<_> = page.items.iter().map(|json| Item::read(json, &self.field)).collect();
        let before = (self.items.len(), self.seen.len(), self.order);
        let is_promised = self.following == FollowingRows::Promised || page.has_more;
        if page.items.is_empty() && !self.seen.is_empty() && is_promised {
            return Err(Inconsistency::NothingCame);
        }
        self.check_timestamps(&read)?;
        for (index, (json, (at, id))) in page.items.iter().zip(read).enumerate() {
            let taken = self.take_item(json.clone(), at, id, index == 0);
            if let Err(Inconsistency::SeenTwice(_)) = taken {
                self.give_back(before.0, before.1);
                self.order = before.2;
            }
            taken?;
        }
        self.following = if page.has_more { FollowingRows::Promised } else { FollowingRows::None };
        Ok(())
    }

    /// Undoes the page: keeps the first `items` items, of which `seen` were counted.
    fn give_back(&mut self, items: usize, seen: usize) {
        for item in self.items.drain(items..) {
            self.unpacked_bytes -= weight(&item);
            let Item { id, .. } = item;
            match self.duplicates.get_mut(&id) {
                Some(multiple) if multiple.seen_count > 1 => multiple.seen_count -= 1,
                Some(multiple) => {
                    multiple.seen_count = 0;
                    self.first_seen_by_id.remove(&id);
                }
                None => drop(self.first_seen_by_id.remove(&id)),
            }
        }
        self.seen.truncate(seen);
    }

    /// Checks that each item has a timestamp within the interval, where that is required.
    fn check_timestamps(&self, read: &[(Option<Timestamp>, Bytes)]) -> Result<(), Inconsistency> {
        let from = self.bounds.from;
        let is_usable = |at: Timestamp| from - FARTHEST < at && at < from + FARTHEST;
        let missing = read.iter().filter(|(at, _)| at.is_none()).count();
        if self.placement == PlacementCheck::Unchecked || read.is_empty() {
            Ok(())
        } else if self.seen.is_empty() && missing == read.len() {
            Err(Inconsistency::AllWithoutTimestamp)
        } else if read.iter().any(|(at, _)| !at.is_some_and(is_usable)) {
            Err(Inconsistency::WithoutTimestamp)
        } else {
            Ok(())
        }
    }

    fn take_item(
        &mut self,
        json: Bytes,
        at: Option<Timestamp>,
        id: Bytes,
        first_of_page: bool,
    ) -> Result<(), Inconsistency> {
        let at = match (at, self.placement) {
            (Some(at), PlacementCheck::Checked) if self.bounds.may_return(at) => at,
            (Some(at), PlacementCheck::Checked) => return Err(Inconsistency::OutsideInterval(OutsideItem { at, id })),
            (None, PlacementCheck::Checked) => return Err(Inconsistency::WithoutTimestamp),
            (at, PlacementCheck::Unchecked) => at.unwrap_or(Timestamp::MIN),
        };
        self.count(&id, at)?;
        if self.handed_over.contains(at) {
            // Its interval was handed over as complete, by an order that does not hold.
            return Err(Inconsistency::OrderBroke);
        }
        if let Some(last) = self.seen.last() {
            let order = in_order(self.order, *last, at);
            let broke = first_of_page && order == RowOrder::Other && self.order != RowOrder::Other;
            if broke && self.watch == TearDetection::RowOrder {
                return Err(Inconsistency::OrderBroke);
            }
            self.order = order;
        }
        let item = Item { at, id, json };
        self.unpacked_bytes += weight(&item);
        self.seen.push(at);
        self.items.push(item);
        Ok(())
    }

    /// Counts an item; an error if it occurs too often.
    fn count(&mut self, id: &Bytes, at: Timestamp) -> Result<(), Inconsistency> {
        let before = self.first_seen_by_id.get(id).copied();
        let multiple = self.duplicates.get_mut(id).filter(|multiple| multiple.seen_count < multiple.proven_count);
        match (before, multiple) {
            (_, Some(multiple)) => multiple.seen_count += 1,
            (None, None) => {}
            (Some(before), None) => {
                return Err(Inconsistency::SeenTwice(DuplicateItem { id: id.clone(), at: [before, at] }));
            }
        }
        if before.is_none() {
            self.first_seen_by_id.insert(id.clone(), at);
        }
        Ok(())
    }

    /// The items in `interval` that were not handed over, in the order of the contract.
    pub fn into_items(self, interval: Interval) -> Vec<Item> {
        let mut items = self.items;
        if self.placement == PlacementCheck::Checked {
            items.retain(|item| interval.contains(item.at));
        }
        Item::sort(&mut items);
        items
    }
}

/// Memory of an item, in bytes.
fn weight(item: &Item) -> usize {
    item.json.len() + OVERHEAD
}

/// The order after one more item.
fn in_order(order: RowOrder, last: Timestamp, next: Timestamp) -> RowOrder {
    match (order, last.cmp(&next)) {
        (RowOrder::Other, _) => RowOrder::Other,
        (order, std::cmp::Ordering::Equal) => order,
        (RowOrder::Unknown | RowOrder::Ascending, std::cmp::Ordering::Less) => RowOrder::Ascending,
        (RowOrder::Unknown | RowOrder::Descending, std::cmp::Ordering::Greater) => RowOrder::Descending,
        _ => RowOrder::Other,
    }
}
