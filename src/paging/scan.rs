//! One walk over the pages of a query. Pure: it is fed pages and says what it has found.
//!
//! Kore does not promise that paging by offset is stable. What makes a finished walk whole is not an order but counting:
//! if every page began where the one before ended, the last one said that no more follow, and no `segmentID` came twice,
//! then as many different items were seen as there were rows, so all of them were. The same holds where an item came no
//! more often than it is proven to stand there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::item::Item;
use crate::upstream::Page;
use crate::window::{Interval, QueryBounds, Timestamp};

/// What an item takes in memory beside its bytes, in bytes.
const OVERHEAD: usize = 256;

/// An item that does not lie where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisplacedItem {
    /// Its timestamp.
    pub at: Timestamp,
    /// Its `segmentID`, as [`Item::id`].
    pub id: Bytes,
}

/// An item that came twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateItem {
    /// Its `segmentID`, as [`Item::id`].
    pub id: Bytes,
    /// Its timestamps, as it came before and now.
    pub at: [Timestamp; 2],
}

/// Why a walk cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inconsistency {
    /// An item came more often than it is proven to stand there: the rows moved under the paging. The page was not taken.
    SeenTwice(DuplicateItem),
    /// The order changed from one page to the next, though each page was in order.
    OrderBroke,
    /// More was promised, and nothing came.
    NothingCame,
    /// An item lies outside of what was asked for: `window.field` may be wrong.
    OutOfPlace(MisplacedItem),
    /// An item has no timestamp that it could be placed by.
    Unplaced,
    /// No item of the first page has a timestamp: `window.field` may be wrong.
    NoneIsPlaced,
}

/// A timestamp that is further away from the beginning of what was asked for says nothing of where its item lies, and is
/// taken for none. The longest window is of 366 days.
const FARTHEST: Duration = Duration::from_hours(800 * 24);

/// The order in which the upstream brings its rows, as far as it has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Too few items to tell.
    Unknown,
    /// By timestamp, upwards.
    Ascending,
    /// By timestamp, downwards.
    Descending,
    /// By something else.
    Other,
}

/// A walk under way.
#[derive(Debug)]
pub struct OffsetScan {
    bounds: QueryBounds,
    field: Arc<str>,
    placed: PlacementCheck,
    watch: TearDetection,
    order: RowOrder,
    /// The `segmentID` of each item that was seen, and when it lies.
    names: HashMap<Bytes, Timestamp>,
    multiples: HashMap<Bytes, Multiple>,
    /// When each item lies that was seen, in the order in which they came.
    seen: Vec<Timestamp>,
    /// Those that have not been handed on.
    items: Vec<Item>,
    /// Of which time the others are.
    handed_on: Interval,
    held: usize,
    /// Whether the last page said that more follow of what is asked for now.
    promised: bool,
    done: bool,
}

/// An item that stands several times in the upstream.
#[derive(Clone, Copy, Debug)]
struct Multiple {
    stands: usize,
    seen: usize,
}

/// Whether items must lie where they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementCheck {
    /// They must: the answer is going to be cut by their timestamps.
    Checked,
    /// They need not: the answer is served only as a whole.
    Unchecked,
}

/// Whether a break in the order counts as a sign that rows moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TearDetection {
    /// It does.
    RowOrder,
    /// Only an item that comes twice does.
    Names,
}

impl OffsetScan {
    /// A walk that has seen nothing yet. `field` names the timestamp.
    pub fn new(bounds: QueryBounds, field: Arc<str>, placed: PlacementCheck, watch: TearDetection) -> Self {
        let (names, multiples, seen, items, handed_on) = Default::default();
        Self {
            bounds,
            field,
            placed,
            watch,
            order: RowOrder::Unknown,
            names,
            multiples,
            seen,
            items,
            handed_on,
            held: 0,
            promised: false,
            done: false,
        }
    }

    /// What to ask for next: how many items to skip. `None` when the walk is whole.
    pub fn next_offset(&self) -> Option<u64> {
        (!self.done).then_some(self.seen.len() as u64)
    }

    /// Goes on with a part of its span, which holds all that it has seen. What was counted stays counted: the pages to
    /// come begin where the last one ended, and the proof is about the part.
    pub fn narrow(&mut self, bounds: QueryBounds) {
        self.bounds = bounds;
        // What was promised may lie in the other part.
        self.promised = false;
    }

    /// Lets an item come so many times, as it is proven to stand there.
    pub fn allow(&mut self, id: Bytes, stands: usize) {
        let seen = usize::from(self.names.contains_key(&id));
        self.multiples.entry(id).or_insert(Multiple { stands, seen }).stands = stands;
    }

    /// Whether items must lie where they were asked for.
    pub fn placed(&self) -> PlacementCheck {
        self.placed
    }

    /// The order of the rows so far.
    pub fn order(&self) -> RowOrder {
        self.order
    }

    /// Where the last item lies that came.
    pub fn last(&self) -> Option<Timestamp> {
        self.seen.last().copied()
    }

    /// In how much time the last so many items lie.
    pub fn length_of_last(&self, items: usize) -> Duration {
        let last = &self.seen[self.seen.len().saturating_sub(items)..];
        let ends = last.iter().min().zip(last.iter().max());
        ends.map_or(Duration::ZERO, |(first, last)| last.since(*first))
    }

    /// The last whole second up to `line` on which no item lies exactly: where the upper bound is inclusive, a query that
    /// ends on one brings what lies there, and that is not counted, for the bound might be another than it is said to be.
    pub fn line_before(&self, line: Timestamp) -> Timestamp {
        self.seen.iter().rev().fold(line, |line, at| if *at == line { line - Duration::from_secs(1) } else { line })
    }

    /// How many items were seen in `interval`.
    pub fn count_within(&self, interval: Interval) -> u64 {
        self.seen.iter().filter(|at| interval.contains(**at)).count() as u64
    }

    /// How many items were seen.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether no item was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Lets go of the items of `interval`, in the order of the contract: on the side of the walk that it has seen, next to
    /// what was handed on before, to be packed. They still count; whether there are more of them is not proven yet.
    pub fn hand_on(&mut self, interval: Interval) -> Vec<Item> {
        let mut items: Vec<Item> = self.items.extract_if(.., |item| interval.contains(item.at)).collect();
        Item::sort(&mut items);
        self.held -= items.iter().map(weight).sum::<usize>();
        self.handed_on = match self.handed_on {
            before if before.is_empty() => interval,
            before => Interval::new(before.start.min(interval.start), before.end.max(interval.end)),
        };
        items
    }

    /// Bytes of the items that have not been handed on.
    pub fn held(&self) -> usize {
        self.held
    }

    /// What has been handed on before the walk has ended; empty if nothing has.
    pub fn handed_on(&self) -> Interval {
        self.handed_on
    }

    /// Takes the page that was asked for at [`OffsetScan::next_offset`].
    ///
    /// # Errors
    /// [`Inconsistency`] if the page contradicts what came before; the walk is of no use then, unless an item came too often:
    /// then it is as it was before.
    pub fn take(&mut self, page: &Page) -> Result<(), Inconsistency> {
        let read: Vec<_> = page.items.iter().map(|json| Item::read(json, &self.field)).collect();
        let before = (self.items.len(), self.seen.len(), self.order);
        let promised = std::mem::replace(&mut self.promised, page.has_more);
        if page.items.is_empty() && !self.seen.is_empty() && (promised || page.has_more) {
            return Err(Inconsistency::NothingCame);
        }
        self.check_timestamps(&read)?;
        for (index, (json, (at, id))) in page.items.iter().zip(read).enumerate() {
            let taken = self.take_item(json.clone(), at, id, index == 0);
            if let Err(Inconsistency::SeenTwice(_)) = taken {
                self.give_back(before.0, before.1);
                (self.order, self.promised) = (before.2, promised);
            }
            taken?;
        }
        self.done = !page.has_more;
        Ok(())
    }

    /// Gives back all items but the first so many, of which so many were seen.
    fn give_back(&mut self, items: usize, seen: usize) {
        for item in self.items.drain(items..) {
            self.held -= weight(&item);
            let Item { id, .. } = item;
            match self.multiples.get_mut(&id) {
                Some(multiple) if multiple.seen > 1 => multiple.seen -= 1,
                Some(multiple) => {
                    multiple.seen = 0;
                    self.names.remove(&id);
                }
                None => drop(self.names.remove(&id)),
            }
        }
        self.seen.truncate(seen);
    }

    /// An error if an item cannot be placed that must be.
    fn check_timestamps(&self, read: &[(Option<Timestamp>, Bytes)]) -> Result<(), Inconsistency> {
        let from = self.bounds.from;
        let is_usable = |at: Timestamp| from - FARTHEST < at && at < from + FARTHEST;
        let missing = read.iter().filter(|(at, _)| at.is_none()).count();
        if self.placed == PlacementCheck::Unchecked || read.is_empty() {
            Ok(())
        } else if self.seen.is_empty() && missing == read.len() {
            Err(Inconsistency::NoneIsPlaced)
        } else if read.iter().any(|(at, _)| !at.is_some_and(is_usable)) {
            Err(Inconsistency::Unplaced)
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
        let at = match (at, self.placed) {
            (Some(at), PlacementCheck::Checked) if self.bounds.may_return(at) => at,
            (Some(at), PlacementCheck::Checked) => return Err(Inconsistency::OutOfPlace(MisplacedItem { at, id })),
            (None, PlacementCheck::Checked) => return Err(Inconsistency::Unplaced),
            (at, PlacementCheck::Unchecked) => at.unwrap_or(Timestamp::MIN),
        };
        self.count(&id, at)?;
        if self.handed_on.contains(at) {
            // It was taken for complete, by an order that does not hold.
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
        self.held += weight(&item);
        self.seen.push(at);
        self.items.push(item);
        Ok(())
    }

    /// Counts an item; an error if it has come too often.
    fn count(&mut self, id: &Bytes, at: Timestamp) -> Result<(), Inconsistency> {
        let before = self.names.get(id).copied();
        let multiple = self.multiples.get_mut(id).filter(|multiple| multiple.seen < multiple.stands);
        match (before, multiple) {
            (_, Some(multiple)) => multiple.seen += 1,
            (None, None) => {}
            (Some(before), None) => {
                return Err(Inconsistency::SeenTwice(DuplicateItem { id: id.clone(), at: [before, at] }));
            }
        }
        if before.is_none() {
            self.names.insert(id.clone(), at);
        }
        Ok(())
    }

    /// The items that lie in `interval` and were not handed on, in the order of the contract.
    pub fn into_items(self, interval: Interval) -> Vec<Item> {
        let mut items = self.items;
        if self.placed == PlacementCheck::Checked {
            items.retain(|item| interval.contains(item.at));
        }
        Item::sort(&mut items);
        items
    }
}

/// What an item takes in memory, in bytes.
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
