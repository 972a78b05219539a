//! Where the copies of a series lie, and what is on its way to them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::chunk::Chunk;
use super::fetch::InFlightFetch;
use super::fetch::NegativeCache;
use super::fetch::Waiter;
use super::store::Memory;
use super::store::{CacheEntry, EntryIndex};
use crate::window::{Density, Interval, IntervalSet, Timestamp};

/// How long it is remembered that a window cannot be cut.
const UNCUT: Duration = Duration::from_hours(1);
/// How long a span is not asked for again whose rows did not hold still, at first and at most.
const TORN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(10));

/// What is known of one series. Held for lookups and bookkeeping only, never across an await: whoever finds something
/// missing asks for it under the same lock, so nobody asks twice.
#[derive(Debug, Default)]
pub(super) struct SeriesState {
    pub(super) entries: EntryIndex,
    /// Windows of an account whose items cannot be cut by time, each with its whole answer.
    pub(super) exact: HashMap<(Interval, bool), CacheEntry>,
    pub(super) in_flight: Vec<Arc<InFlightFetch>>,
    pub(super) pending: Option<PendingBatch>,
    pub(super) sizing: RunLengthPolicy,
    /// Spans in which an item was found that cannot be placed: what overlaps them is asked for as a whole at once.
    uncut: NegativeCache,
    /// Spans whose rows did not hold still.
    torn: NegativeCache,
}

/// How long the runs of a series may be, by the order of the upstream's rows: where they come in none, a run that turns
/// out too large cannot be cut, so runs grow from small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RunLengthPolicy {
    /// As long as their expected items allow.
    #[default]
    ByDensity,
    /// No longer than this.
    Growing {
        /// The next run.
        next: Duration,
        /// Any run: one that was longer was too large.
        cap: Duration,
    },
}

impl RunLengthPolicy {
    /// A run is at most so many times as long as the one before it.
    const GROWTH: u32 = 8;

    /// The longest that the next run may be.
    pub(super) fn longest(self) -> Option<Duration> {
        match self {
            Self::ByDensity => None,
            Self::Growing { next, .. } => Some(next),
        }
    }

    /// A run of this length has landed, and its rows came in order or not.
    pub(super) fn landed(&mut self, length: Duration, unordered: bool) {
        *self = match *self {
            Self::ByDensity if unordered => Self::Growing { next: length * Self::GROWTH, cap: Duration::MAX },
            Self::Growing { next, cap } => Self::Growing { next: next.max(length * Self::GROWTH).min(cap), cap },
            Self::ByDensity => Self::ByDensity,
        };
    }

    /// A run of this length was too large, and could not be cut. `first` is the length to begin with if nothing was known
    /// of its density.
    pub(super) fn was_oversized(&mut self, length: Duration, planned: bool, first: Duration) {
        let half = (length / 2).max(Duration::from_secs(1));
        *self = if planned {
            Self::Growing { next: half, cap: half }
        } else {
            Self::Growing { next: first.min(half), cap: half }
        };
    }
}

/// Spans that are missing, gathered for a moment before they are fetched: what is asked for at the same instant, by
/// however many callers, becomes as few runs as can be.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) requests: Vec<PendingRequest>,
    /// Closed when the flights have begun.
    pub(super) begun: watch::Receiver<()>,
}

/// What one request wants of a gathering.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) intervals: IntervalSet,
    pub(super) agentic: bool,
    /// Who wants it, if still somebody does.
    pub(super) waiter: Weak<Waiter>,
    /// Copies fetched since then are good enough for it.
    pub(super) fresh_since: Timestamp,
    /// Whether the second tier was asked for it.
    pub(super) redis_checked: bool,
    /// What it needs next, if nothing that is in flight brings that.
    pub(super) next_need: Option<NextNeed>,
    /// Whether further runs may be begun for it beside that.
    pub(super) further: bool,
}

/// What a request needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextNeed {
    /// Its first moment.
    pub(super) at: Timestamp,
    /// Whether it is the beginning of an answer, which is to be sent early.
    pub(super) early: bool,
}

impl SeriesState {
    /// Remembers for an hour that windows which overlap `interval` cannot be cut.
    pub(super) fn mark_uncut(&mut self, interval: Interval) {
        self.uncut.add(interval, UNCUT, UNCUT);
    }

    /// Whether this window is known not to be cut.
    pub(super) fn is_uncut(&self, window: Interval) -> bool {
        self.uncut.overlap(window)
    }

    /// Remembers for a while that the rows of `interval` do not hold still.
    pub(super) fn mark_torn(&mut self, interval: Interval) {
        if !interval.is_empty() {
            self.torn.add(interval, TORN.0, TORN.1);
        }
    }

    /// Whether a part of `interval` did not hold still a moment ago: it is not worth its calls to ask for it again.
    pub(super) fn is_torn(&self, interval: Interval) -> bool {
        self.torn.lie_in(interval)
    }

    /// Puts a copy on the shelf in place of what it replaces, and lets go of chunks that nothing refers to any more.
    /// `false` if all that is there is newer.
    pub(super) fn put(&mut self, agentic: bool, copy: CacheEntry, memory: &Memory) -> bool {
        let (chunk, fetched_at) = (copy.chunk, copy.fetched_at);
        let old: Vec<(Interval, CacheEntry)> =
            self.entries.of(agentic).within(chunk).map(|(interval, old)| (interval, old.clone())).collect();
        let newer: Vec<_> = old.iter().filter(|(_, old)| old.fetched_at > fetched_at).cloned().collect();
        let mut left = IntervalSet::from(chunk);
        for (interval, _) in &newer {
            left.remove(*interval);
        }
        if left.is_empty() && !newer.is_empty() {
            return false;
        }
        self.entries.insert(agentic, chunk, copy);
        // What is newer stays where it lies, and the new one comes around it.
        for (interval, newer) in newer {
            self.entries.insert(agentic, interval, newer);
        }
        for (_, old) in old {
            if !self.entries.of(agentic).within(old.chunk).any(|(_, still)| still.id == old.id) {
                memory.remove(old.id);
            }
        }
        true
    }

    /// Forgets what was cut of the series: it is worth nothing.
    pub(super) fn clear_entries(&mut self, memory: &Memory) {
        let copies = std::mem::take(&mut self.entries);
        copies.all().for_each(|(_, copy)| memory.remove(copy.id));
    }

    /// Forgets the copies that `buried` says were purged, and closes the flights that bring such. How many chunks have
    /// gone from memory for it.
    pub(super) fn bury(&mut self, buried: impl Fn(Interval, u64) -> bool, memory: &Memory) -> usize {
        let mut gone = HashSet::new();
        let mut keep = |copy: &CacheEntry| {
            let is_buried = buried(copy.chunk, copy.epoch);
            // A chunk may have several copies, and memory may have let it go before.
            if is_buried && memory.holds(copy.id) {
                gone.insert(copy.id);
            }
            !is_buried
        };
        self.entries.retain(&mut keep);
        self.exact.retain(|_, copy| keep(copy));
        self.uncut.clear();
        self.torn.clear();
        for id in &gone {
            memory.remove(*id);
        }
        self.in_flight
            .iter()
            .filter(|flight| buried(flight.interval(), flight.spec.epoch))
            .for_each(|flight| flight.close());
        gone.len()
    }

    /// How dense the series is by what is cached of it; `open` gives the chunk of a copy, if it is still there.
    pub(super) fn density(&self, open: impl Fn(&CacheEntry) -> Option<Arc<Chunk>>) -> Density {
        let mut density = Density::default();
        for (interval, copy) in self.entries.all() {
            // That nothing lay ahead of a fetch tells nothing of what will lie there.
            let is_past = copy.chunk.start < copy.fetched_at;
            if let Some(chunk) = open(copy).filter(|_| is_past) {
                density.add(interval, |part| chunk.rows_within(part).len());
            }
        }
        for ((interval, _), copy) in &self.exact {
            // Its items cannot be placed: that is why it is kept whole.
            if let Some(chunk) = open(copy) {
                density.add_somewhere(interval.length(), chunk.len());
            }
        }
        density
    }

    /// Forgets the copies of chunks that have gone from memory.
    pub(super) fn sweep(&mut self, memory: &Memory) {
        self.entries.retain(|copy| memory.holds(copy.id));
        self.exact.retain(|_, copy| memory.holds(copy.id));
        self.uncut.expire();
        self.torn.expire();
    }

    pub(super) fn is_idle(&self) -> bool {
        let holds_nothing = self.entries.is_empty() && self.exact.is_empty();
        let remembers_nothing = self.uncut.is_empty() && self.torn.is_empty();
        holds_nothing && remembers_nothing && self.in_flight.is_empty() && self.pending.is_none()
    }
}

/// A shelf that many hold.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedSeriesState(Arc<Mutex<SeriesState>>);

impl SharedSeriesState {
    /// Whether it is this very shelf.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many hold it, the map of all shelves included.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SeriesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Settled;

    #[test]
    fn a_look_does_not_keep_a_chunk_from_being_the_next_to_go() {
        let chunk = || Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]));
        let survives = |open: fn(&CacheEntry, &Memory) -> Option<Arc<Chunk>>| {
            let memory = Memory::new(10_000);
            let first = CacheEntry::keep(&chunk(), &memory);
            for _ in 0..100 {
                assert!(memory.bytes() <= 10_000);
                drop(open(&first, &memory));
                CacheEntry::keep(&chunk(), &memory);
            }
            memory.bytes();
            first.use_chunk(&memory).is_some()
        };
        assert!(survives(CacheEntry::use_chunk));
        assert!(!survives(CacheEntry::peek));
    }

    #[test]
    fn what_is_older_comes_around_what_is_newer() {
        let memory = Memory::new(100_000);
        let at = |seconds| Timestamp::from_seconds(seconds);
        let keep = |from, to, fetched| {
            let interval = Interval::new(at(from), at(to));
            CacheEntry::keep(&Arc::new(Chunk::new(interval, at(fetched), Settled::Yes, &[])), &memory)
        };
        let mut shelf = SeriesState::default();
        let (newer, older) = (keep(3, 5, 100), keep(0, 10, 50));
        assert!(shelf.put(false, newer.clone(), &memory));
        assert!(shelf.put(false, older.clone(), &memory), "a part of it is news");
        let lies = |shelf: &SeriesState| -> Vec<_> {
            shelf
                .entries
                .of(false)
                .within(Interval::EVER)
                .map(|(interval, copy)| (interval.start, interval.end, copy.id))
                .collect()
        };
        assert_eq!(lies(&shelf), [(at(0), at(3), older.id), (at(3), at(5), newer.id), (at(5), at(10), older.id)]);
        assert!(!shelf.put(false, keep(3, 5, 60), &memory), "all that is there is newer");
        assert!(memory.holds(newer.id) && memory.holds(older.id));
    }

    #[test]
    fn what_has_gone_from_memory_is_gone_though_an_answer_still_holds_it() {
        let memory = Memory::new(10_000);
        let held = Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]));
        let copy = CacheEntry::keep(&held, &memory);
        assert!(copy.peek(&memory).is_some());
        memory.remove(copy.id);
        assert!(copy.peek(&memory).is_none());
    }

    #[test]
    fn unordered_runs_grow_up_to_what_was_too_large() {
        let hours = Duration::from_hours;
        let mut sizing = RunLengthPolicy::default();
        sizing.landed(hours(24), false);
        assert_eq!(sizing.longest(), None);
        sizing.was_oversized(hours(7 * 24), false, hours(1));
        assert_eq!(sizing.longest(), Some(hours(1)));
        sizing.landed(hours(1), true);
        sizing.landed(hours(8), true);
        assert_eq!(sizing.longest(), Some(hours(64)));
        sizing.landed(hours(2), true);
        assert_eq!(sizing.longest(), Some(hours(64)), "a short window says nothing");
        sizing.was_oversized(hours(64), true, hours(1));
        sizing.landed(hours(32), true);
        assert_eq!(sizing.longest(), Some(hours(32)));
    }
}
