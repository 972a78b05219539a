//! Where the copies of a series lie, and what is on its way to them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::chunk::Chunk;
use super::flight::Flight;
use super::memory::{ChunkId, Memory};
use super::seat::Seat;
use crate::upstream::Series;
use crate::window::{Copied, Coverage, Moment, Span, SpanSet};

/// A chunk that has been kept, and may have gone since.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) id: ChunkId,
    /// The whole span of the chunk; the copy may cover only a part of it.
    pub(super) chunk: Span,
    pub(super) fetched_at: Moment,
    /// See [`Chunk::with_epoch`].
    epoch: u64,
    /// The chunk itself, for a look that is no use of it: memory tells no look from a use.
    kept: Weak<Chunk>,
}

impl Copy {
    /// Puts a chunk into memory.
    pub(super) fn keep(chunk: &Arc<Chunk>, memory: &Memory) -> Self {
        let (span, fetched_at) = (chunk.span(), chunk.fetched_at());
        let epoch = chunk.epoch();
        Self { id: memory.keep(chunk.clone()), chunk: span, fetched_at, epoch, kept: Arc::downgrade(chunk) }
    }

    /// The chunk, if it is still there; it counts as used.
    pub(super) fn use_chunk(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        memory.get(self.id)
    }

    /// The chunk, if it is still there; it does not count as used.
    pub(super) fn peek(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        self.kept.upgrade().filter(|_| memory.holds(self.id))
    }
}

impl Copied for Copy {
    fn fetched_at(&self) -> Moment {
        self.fetched_at
    }
}

/// One of two things for items with `agenticActivities` and for those without.
#[derive(Debug, Default)]
pub(super) struct ByRichness<T> {
    pub(super) plain: T,
    pub(super) rich: T,
}

impl<T> ByRichness<T> {
    pub(super) fn of(&mut self, rich: bool) -> &mut T {
        if rich { &mut self.rich } else { &mut self.plain }
    }
}

/// What is known of one series. Held for lookups and bookkeeping only, never across an await: whoever finds something
/// missing asks for it under the same lock, so nobody asks twice.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) copies: ByRichness<Coverage<Copy>>,
    /// Windows of an account whose items cannot be cut by time, each with its whole answer.
    pub(super) exact: HashMap<(Span, bool), Copy>,
    pub(super) flights: Vec<Arc<Flight>>,
    pub(super) gathering: Option<Gathering>,
}

/// Spans that are missing, gathered for a moment before they are fetched: what is asked for at the same instant, by
/// however many callers, becomes as few runs as can be.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) wants: Vec<Want>,
    /// Closed when the flights have begun.
    pub(super) begun: watch::Receiver<()>,
}

/// What one request wants of a gathering.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) spans: SpanSet,
    pub(super) rich: bool,
    /// Who wants it, if still somebody does.
    pub(super) seat: Weak<Seat>,
    /// Copies fetched since then are good enough for it.
    pub(super) fresh_since: Moment,
    /// Whether the second tier was asked for it.
    pub(super) looked_up: bool,
}

impl Shelf {
    /// Puts a copy on the shelf in place of what it replaces, and lets go of chunks that nothing refers to any more.
    /// `false` if all that is there is newer.
    pub(super) fn put(&mut self, rich: bool, copy: Copy, memory: &Memory) -> bool {
        let copies = self.copies.of(rich);
        let (chunk, fetched_at) = (copy.chunk, copy.fetched_at);
        let old: Vec<(Span, Copy)> = copies.within(chunk).map(|(span, old)| (span, old.clone())).collect();
        let newer: Vec<_> = old.iter().filter(|(_, old)| old.fetched_at > fetched_at).cloned().collect();
        let mut left = SpanSet::from(chunk);
        for (span, _) in &newer {
            left.remove(*span);
        }
        if left.is_empty() && !newer.is_empty() {
            return false;
        }
        copies.insert(chunk, copy);
        // What is newer stays where it lies, and the new one comes around it.
        for (span, newer) in newer {
            copies.insert(span, newer);
        }
        for (_, old) in old {
            if !copies.within(old.chunk).any(|(_, still)| still.id == old.id) {
                memory.drop_chunk(old.id);
            }
        }
        true
    }

    /// Forgets the copies that `buried` says were purged, and closes the flights that bring such. How many chunks have
    /// gone from memory for it.
    pub(super) fn bury(&mut self, buried: impl Fn(Span, u64) -> bool, memory: &Memory) -> usize {
        let mut gone = HashSet::new();
        let mut keep = |copy: &Copy| {
            let is_buried = buried(copy.chunk, copy.epoch);
            // A chunk may have several copies, and memory may have let it go before.
            if is_buried && memory.holds(copy.id) {
                gone.insert(copy.id);
            }
            !is_buried
        };
        for rich in [false, true] {
            self.copies.of(rich).retain(|_, copy| keep(copy));
        }
        self.exact.retain(|_, copy| keep(copy));
        for id in &gone {
            memory.drop_chunk(*id);
        }
        self.flights.iter().filter(|flight| buried(flight.span(), flight.epoch)).for_each(|flight| flight.close());
        gone.len()
    }

    /// Forgets the copies of chunks that have gone from memory.
    fn sweep(&mut self, memory: &Memory) {
        for rich in [false, true] {
            self.copies.of(rich).retain(|_, copy| memory.holds(copy.id));
        }
        self.exact.retain(|_, copy| memory.holds(copy.id));
    }

    fn is_idle(&self) -> bool {
        let ByRichness { plain, rich } = &self.copies;
        plain.is_empty()
            && rich.is_empty()
            && self.exact.is_empty()
            && self.flights.is_empty()
            && self.gathering.is_none()
    }
}

/// The shelf of each series. The two kinds of richness share one, so `Series::rich` is always false in its key.
/// Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelves(Arc<Mutex<HashMap<Series, SharedShelf>>>);

/// A shelf that many hold.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedShelf(Arc<Mutex<Shelf>>);

impl SharedShelf {
    /// Whether it is this very shelf.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    /// The shelf of a series, made if it is new.
    pub(super) fn of(&self, series: &Series) -> SharedShelf {
        let key = Series { rich: false, ..series.clone() };
        self.lock().entry(key).or_default().clone()
    }

    /// The shelf of a series, if there is one.
    pub(super) fn find(&self, series: &Series) -> Option<SharedShelf> {
        let key = Series { rich: false, ..series.clone() };
        self.lock().get(&key).cloned()
    }

    /// Takes the shelf of a series down if nothing lies on it and nobody but the caller, who holds it, uses it: series
    /// that only ever fail leave nothing behind.
    pub(super) fn tidy(&self, series: &Series, held: &SharedShelf) {
        let mut shelves = self.lock();
        if Arc::strong_count(&held.0) == 2 && held.lock().is_idle() {
            shelves.remove(&Series { rich: false, ..series.clone() });
        }
    }

    /// Forgets all that was kept for an account.
    pub(super) fn clear(&self, account: &str, memory: &Memory) {
        for (_, shelf) in self.of_account(account) {
            let copies = std::mem::take(&mut shelf.lock().copies);
            for coverage in [copies.plain, copies.rich] {
                coverage.within(Span::EVER).for_each(|(_, copy)| memory.drop_chunk(copy.id));
            }
        }
    }

    /// The shelves of an account, each with its stream.
    pub(super) fn of_account(&self, account: &str) -> Vec<(Arc<str>, SharedShelf)> {
        let shelves = self.lock();
        let own = shelves.iter().filter(|(series, _)| *series.account == *account);
        own.map(|(series, shelf)| (series.stream.clone(), shelf.clone())).collect()
    }

    /// Forgets what has gone from memory, and shelves that hold nothing and that nobody uses.
    pub(super) fn sweep(&self, memory: &Memory) {
        self.lock().retain(|_, shelf| {
            shelf.lock().sweep(memory);
            Arc::strong_count(&shelf.0) > 1 || !shelf.lock().is_idle()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Series, SharedShelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Settled;

    #[test]
    fn a_look_does_not_keep_a_chunk_from_being_the_next_to_go() {
        let chunk = || Arc::new(Chunk::new(Span::default(), Moment::from_nanos(0), Settled::Yes, &[]));
        let survives = |open: fn(&Copy, &Memory) -> Option<Arc<Chunk>>| {
            let memory = Memory::new(10_000);
            let first = Copy::keep(&chunk(), &memory);
            for _ in 0..100 {
                assert!(memory.bytes() <= 10_000);
                drop(open(&first, &memory));
                Copy::keep(&chunk(), &memory);
            }
            memory.bytes();
            first.use_chunk(&memory).is_some()
        };
        assert!(survives(Copy::use_chunk));
        assert!(!survives(Copy::peek));
    }

    #[test]
    fn what_is_older_comes_around_what_is_newer() {
        let memory = Memory::new(100_000);
        let at = |seconds| Moment::from_seconds(seconds);
        let keep = |from, to, fetched| {
            let span = Span::new(at(from), at(to));
            Copy::keep(&Arc::new(Chunk::new(span, at(fetched), Settled::Yes, &[])), &memory)
        };
        let mut shelf = Shelf::default();
        let (newer, older) = (keep(3, 5, 100), keep(0, 10, 50));
        assert!(shelf.put(false, newer.clone(), &memory));
        assert!(shelf.put(false, older.clone(), &memory), "a part of it is news");
        let lies = |shelf: &Shelf| -> Vec<_> {
            shelf.copies.plain.within(Span::EVER).map(|(span, copy)| (span.start, span.end, copy.id)).collect()
        };
        assert_eq!(lies(&shelf), [(at(0), at(3), older.id), (at(3), at(5), newer.id), (at(5), at(10), older.id)]);
        assert!(!shelf.put(false, keep(3, 5, 60), &memory), "all that is there is newer");
        assert!(memory.holds(newer.id) && memory.holds(older.id));
    }

    #[test]
    fn what_has_gone_from_memory_is_gone_though_an_answer_still_holds_it() {
        let memory = Memory::new(10_000);
        let held = Arc::new(Chunk::new(Span::default(), Moment::from_nanos(0), Settled::Yes, &[]));
        let copy = Copy::keep(&held, &memory);
        assert!(copy.peek(&memory).is_some());
        memory.drop_chunk(copy.id);
        assert!(copy.peek(&memory).is_none());
    }
}
