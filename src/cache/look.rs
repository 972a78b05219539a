//! What of a window is there, and which runs would bring the rest. It only looks: nothing is begun here.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::chunk::Chunk;
use super::copies::Copy;
use super::fetch::Fetcher;
use super::member;
use super::memory::Memory;
use super::shelf::{SharedShelf, Shelf};
use crate::upstream::{Filter, KnownFilter, PAGE_LIMIT, Series};
use crate::window::{Moment, Plan, Span, SpanSet};

/// A run is ended by a gap of this many items, at which leaving them out saves as much, on the average, as the last page
/// of a run wastes.
const WORTH_A_RUN: usize = PAGE_LIMIT as usize / 2;
/// What a rich item has and a plain one has not.
const RICH_MEMBER: &str = "agenticActivities";

/// What serves a part of the window.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) chunk: Arc<Chunk>,
    /// What must be done to its items first.
    pub(super) change: Change,
    /// Whether it was there before this window was asked for.
    pub(super) copy: bool,
}

/// How the items of another series become those of the one that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) strip: bool,
    pub(super) filter: Option<KnownFilter>,
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        !self.strip && self.filter.is_none()
    }

    pub(super) fn apply(&self, item: Bytes) -> Option<Bytes> {
        if self.filter.as_ref().is_some_and(|filter| !filter.passes(&item)) {
            return None;
        }
        if self.strip { Some(member::without(&item, RICH_MEMBER).unwrap_or(item)) } else { Some(item) }
    }
}

/// One look at what is there of a series.
pub(super) struct Look<'a> {
    pub(super) fetcher: &'a Fetcher,
    pub(super) series: &'a Series,
    pub(super) asked_at: Moment,
    /// Copies fetched since then are good enough.
    pub(super) fresh_since: Moment,
    /// Whether what is seen counts as used.
    pub(super) open: fn(&Copy, &Memory) -> Option<Arc<Chunk>>,
}

impl Look<'_> {
    /// Takes what the shelves have for the plan. The series' own is still locked then.
    pub(super) fn take<'s>(&self, plan: &mut Plan<Held>, own: &'s SharedShelf) -> MutexGuard<'s, Shelf> {
        self.take_filterable(plan, own);
        let own = own.lock();
        self.take_copies(plan, &own, None);
        own
    }

    /// Takes what the filter of the series can be applied to, where nothing is kept filtered.
    pub(super) fn take_filterable(&self, plan: &mut Plan<Held>, own: &SharedShelf) {
        if !plan.missing.is_empty()
            && let Filter::Known(filter) = &self.series.filter
        {
            self.take_copies(plan, &own.lock(), None);
            if let Some(unfiltered) = self.unfiltered() {
                self.take_copies(plan, &unfiltered.lock(), Some(filter));
            }
        }
    }

    /// The shelf of all items that the filter chooses from.
    pub(super) fn unfiltered(&self) -> Option<SharedShelf> {
        self.fetcher.shelves.find(&Series { filter: Filter::None, ..self.series.clone() })
    }

    /// Takes the copies of a shelf, to which `filter` is to be applied.
    pub(super) fn take_copies(&self, plan: &mut Plan<Held>, shelf: &Shelf, filter: Option<&KnownFilter>) {
        let open = |copy: &Copy, strip| {
            let chunk = (self.open)(copy, &self.fetcher.memory)?;
            Some(Held { chunk, change: Change { strip, filter: filter.cloned() }, copy: true })
        };
        let (ladder, rich) = (&self.fetcher.ladder, self.series.rich);
        if !rich {
            plan.take(shelf.copies.of(false), ladder, self.asked_at, self.fresh_since, |copy| open(copy, false));
        }
        plan.take(shelf.copies.of(true), ladder, self.asked_at, self.fresh_since, |copy| open(copy, !rich));
    }

    /// The runs that bring `unasked`, which is missing in `plan`.
    pub(super) fn runs(&self, plan: &Plan<Held>, unasked: &SpanSet) -> SpanSet {
        let bridged = plan.bridge(unasked, WORTH_A_RUN, |span, held| self.open_items(span, held));
        let settled = self.fetcher.settled_before(self.asked_at);
        let full = |span: &Span| {
            // A copy that ends with the tick of an inclusive `to` has it only if the upstream's bound is what the
            // configuration says. The query from that second on brings it in any case, so it is taken from there.
            let span = Span::new(span.start.floor_second(), span.end);
            // The rest of a last second is fetched along, so that whoever spells the same day otherwise does not pay a
            // call for less than a second. What is open is cut at now, and no second of it is rounded.
            Some(span.to_full_minute()).filter(|full| full.end <= settled).unwrap_or(span)
        };
        bridged.spans().iter().map(full).collect()
    }

    /// How many items of a copy lie in `span`, if they may be fetched again before they are due: what has settled may
    /// not, and what has just been fetched need not.
    fn open_items(&self, span: Span, held: &Held) -> Option<usize> {
        let fetched_at = held.chunk.fetched_at();
        let open = span.start >= self.fetcher.ladder.settled_before(fetched_at);
        (held.copy && open && fetched_at < self.fresh_since).then(|| held.chunk.rows_within(span).len())
    }
}
