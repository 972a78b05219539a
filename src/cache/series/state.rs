//! State of one series, and its lock.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::batch::PendingBatch;
use super::in_flight::InFlightFetch;
use super::negative_cache::NegativeCache;
use super::run_length::RunLengthPolicy;
use crate::cache::chunk::Chunk;
use crate::cache::store::{CacheEntry, EntryIndex, Memory};
use crate::request::IdFilter;
use crate::sync::{Mutex, MutexGuard};
use crate::window::{Density, Interval, IntervalSet, Timestamp};

/// How long an interval is remembered whose windows must be fetched exactly.
const EXACT_LIFETIME: Duration = Duration::from_hours(1);
/// How long a torn interval is not fetched again, at first.
const FIRST_TORN_LIFETIME: Duration = Duration::from_secs(30);
/// How long a torn interval is not fetched again, at most.
const MAX_TORN_LIFETIME: Duration = Duration::from_mins(10);

/// State of one series. Locked for lookups and bookkeeping only, never across an await.
#[derive(Debug, Default)]
pub(in crate::cache) struct SeriesState {
    pub(in crate::cache) entries: EntryIndex,
    /// Answers to windows that are fetched exactly, by interval and `agentic`.
    pub(in crate::cache) exact: HashMap<(Interval, bool), CacheEntry>,
    pub(in crate::cache) in_flight: Vec<Arc<InFlightFetch>>,
    pub(in crate::cache) pending: Option<PendingBatch>,
    pub(in crate::cache) run_length: RunLengthPolicy,
    /// Intervals with an item that lies outside of them, or has no timestamp: windows that overlap them are fetched
    /// exactly.
    exact_only: NegativeCache,
    /// Intervals whose rows moved during each scan.
    torn: NegativeCache,
}

impl SeriesState {
    /// Remembers for an hour that windows that overlap `interval` must be fetched exactly.
    pub(in crate::cache) fn mark_exact(&mut self, interval: Interval) {
        self.exact_only.insert(interval, EXACT_LIFETIME, EXACT_LIFETIME);
    }

    /// Whether this window must be fetched exactly, as far as is known.
    pub(in crate::cache) fn must_fetch_exactly(&self, window: Interval) -> bool {
        self.exact_only.any_overlapping(window)
    }

    /// Remembers for a while that the rows of `interval` move.
    pub(in crate::cache) fn mark_torn(&mut self, interval: Interval) {
        if !interval.is_empty() {
            self.torn.insert(interval, FIRST_TORN_LIFETIME, MAX_TORN_LIFETIME);
        }
    }

    /// Whether a part of `interval` was torn a short time ago, so that fetching it is not worth the calls.
    pub(in crate::cache) fn is_torn(&self, interval: Interval) -> bool {
        self.torn.any_within(interval)
    }

    /// Inserts an entry in place of older ones, and removes chunks from memory that no entry refers to any more.
    /// `false` if all of its interval is covered by later fetches.
    pub(in crate::cache) fn insert(&mut self, agentic: bool, entry: CacheEntry, memory: &Memory) -> bool {
        let (chunk, fetched_at) = (entry.chunk, entry.fetched_at);
        let overlapped = self.entries.by_agentic(agentic).within(chunk);
        let old: Vec<(Interval, CacheEntry)> = overlapped.map(|(interval, old)| (interval, old.clone())).collect();
        let newer: Vec<_> = old.iter().filter(|(_, old)| old.fetched_at > fetched_at).cloned().collect();
        let mut left = IntervalSet::from(chunk);
        for (interval, _) in &newer {
            left.remove(*interval);
        }
        if left.is_empty() && !newer.is_empty() {
            return false;
        }
        self.entries.insert(agentic, chunk, entry);
        // Newer entries keep their intervals, and the new one fills the rest.
        for (interval, newer) in newer {
            self.entries.insert(agentic, interval, newer);
        }
        for (_, old) in old {
            if !self.entries.by_agentic(agentic).within(old.chunk).any(|(_, kept)| kept.id == old.id) {
                memory.remove(old.id);
            }
        }
        true
    }

    /// Removes all chunk entries and their chunks.
    pub(in crate::cache) fn clear_entries(&mut self, memory: &Memory) {
        let entries = std::mem::take(&mut self.entries);
        entries.all().for_each(|(_, entry)| memory.remove(entry.id));
    }

    /// Removes the entries that are purged, and closes fetches that may bring purged data. `purged_by` takes the
    /// interval, the epoch and the ids of a chunk, and returns the purge. Returns the purges of the chunks that were
    /// removed from memory, one for each chunk.
    pub(in crate::cache) fn apply_purge(
        &mut self,
        purged_by: impl Fn(Interval, u64, &IdFilter) -> Option<u64>,
        memory: &Memory,
    ) -> Vec<u64> {
        let (mut purged, nothing, mut is_any_doubtful) = (HashMap::new(), IdFilter::default(), false);
        let mut keep = |entry: &CacheEntry| {
            // Which ids an evicted chunk held is not known any more. What is on disk is looked through by itself.
            let evicted = if entry.slot.is_some() { &nothing } else { &IdFilter::Any };
            let chunk = entry.peek(memory);
            let ids = chunk.as_ref().map_or(evicted, |chunk| chunk.ids());
            is_any_doubtful |= chunk.is_none() && purged_by(entry.chunk, entry.epoch, &IdFilter::Any).is_some();
            let purge = purged_by(entry.chunk, entry.epoch, ids);
            // A chunk may have several entries, and may have been evicted before.
            if let Some(purge) = purge
                && memory.contains(entry.id)
            {
                purged.insert(entry.id, purge);
            }
            purge.is_none()
        };
        self.entries.retain(&mut keep);
        self.exact.retain(|_, entry| keep(entry));
        if is_any_doubtful {
            // An answer that was made of an evicted chunk may hold what is erased.
            self.entries.invalidate_answers();
        }
        self.exact_only.clear();
        self.torn.clear();
        for id in purged.keys() {
            memory.remove(*id);
        }
        let may_be_purged =
            |fetch: &InFlightFetch| purged_by(fetch.interval(), fetch.spec.epoch, &IdFilter::Any).is_some();
        self.in_flight.iter().filter(|fetch| may_be_purged(fetch)).for_each(|fetch| fetch.close());
        purged.into_values().collect()
    }

    /// Removes the chunks that end at `timestamp` or before. Returns how many were in memory.
    pub(in crate::cache) fn remove_before(&mut self, timestamp: Timestamp, memory: &Memory) -> usize {
        let mut removed: HashSet<_> = self.entries.remove_before(timestamp).into_iter().collect();
        let old = self.exact.extract_if(|(interval, _), _| interval.end <= timestamp);
        removed.extend(old.map(|(_, entry)| entry.id));
        // A chunk may have been evicted before.
        removed.retain(|id| memory.contains(*id));
        for id in &removed {
            memory.remove(*id);
        }
        removed.len()
    }

    /// Density of the cached items; `open` returns the chunk of an entry, unless it is not in memory. The items of a
    /// chunk on disk count as evenly distributed.
    pub(in crate::cache) fn density(&self, open: impl Fn(&CacheEntry) -> Option<Arc<Chunk>>) -> Density {
        let mut density = Density::default();
        for (interval, entry) in self.entries.all() {
            // An entry that begins in the future of its fetch says nothing about the items that will come.
            let is_past = entry.chunk.start < entry.fetched_at;
            match open(entry) {
                Some(chunk) if is_past => density.add(interval, |part| chunk.rows_within(part).len()),
                None if is_past && entry.slot.is_some() => density.add_evenly(interval, entry.expected_rows(interval)),
                _ => {}
            }
        }
        for ((interval, _), entry) in &self.exact {
            // Its items cannot be placed in time: that is why the answer is cached as a whole.
            if let Some(chunk) = open(entry) {
                density.add_somewhere(interval.length(), chunk.len());
            }
        }
        density
    }

    /// Removes the entries of chunks that are in no tier any more, and expired failures.
    pub(in crate::cache) fn sweep(&mut self, memory: &Memory, is_on_disk: impl Fn(&CacheEntry) -> bool) {
        self.entries.retain(|entry| memory.contains(entry.id) || is_on_disk(entry));
        self.entries.release_evicted(memory);
        self.exact.retain(|_, entry| memory.contains(entry.id));
        self.exact_only.remove_expired();
        self.torn.remove_expired();
    }

    /// Whether the state is empty.
    pub(in crate::cache) fn is_idle(&self) -> bool {
        let has_no_entries = self.entries.is_empty() && self.exact.is_empty();
        let has_no_failures = self.exact_only.is_empty() && self.torn.is_empty();
        has_no_entries && has_no_failures && self.in_flight.is_empty() && self.pending.is_none()
    }
}

/// The locked state of a series. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub(in crate::cache) struct SharedSeriesState(Arc<Mutex<SeriesState>>);

impl SharedSeriesState {
    /// Whether both are the state of the same series.
    pub(in crate::cache) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Number of references, that of the map included.
    pub(in crate::cache) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(in crate::cache) fn lock(&self) -> MutexGuard<'_, SeriesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::chunk::Settled;
    use crate::segment_log::Slot;

    fn empty_chunk() -> Arc<Chunk> {
        Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]))
    }

    #[test]
    fn peek_does_not_count_as_a_use() {
        let survives = |open: fn(&CacheEntry, &Memory) -> Option<Arc<Chunk>>| {
            let memory = Memory::new(10_000);
            let first = CacheEntry::insert(&empty_chunk(), &memory);
            for _ in 0..100 {
                assert!(memory.bytes() <= 10_000);
                drop(open(&first, &memory));
                CacheEntry::insert(&empty_chunk(), &memory);
            }
            memory.bytes();
            first.use_chunk(&memory).is_some()
        };
        assert!(survives(CacheEntry::use_chunk));
        assert!(!survives(CacheEntry::peek));
    }

    #[test]
    fn older_entry_covers_the_rest_around_a_newer_one() {
        let memory = Memory::new(100_000);
        let at = Timestamp::from_seconds;
        let insert = |from, to, fetched| {
            let interval = Interval::new(at(from), at(to));
            CacheEntry::insert(&Arc::new(Chunk::new(interval, at(fetched), Settled::Yes, &[])), &memory)
        };
        let mut state = SeriesState::default();
        let (newer, older) = (insert(3, 5, 100), insert(0, 10, 50));
        assert!(state.insert(false, newer.clone(), &memory));
        assert!(state.insert(false, older.clone(), &memory), "a part of it is not covered yet");
        let covered = state.entries.by_agentic(false).within(Interval::EVER);
        let covered: Vec<_> = covered.map(|(interval, entry)| (interval.start, interval.end, entry.id)).collect();
        assert_eq!(covered, [(at(0), at(3), older.id), (at(3), at(5), newer.id), (at(5), at(10), older.id)]);
        assert!(!state.insert(false, insert(3, 5, 60), &memory), "all of it is covered by a newer one");
        assert!(memory.contains(newer.id) && memory.contains(older.id));
    }

    #[test]
    fn chunk_is_removed_when_all_of_it_is_too_old() {
        let memory = Memory::new(100_000);
        let at = Timestamp::from_seconds;
        let insert = |state: &mut SeriesState, agentic, from, to, fetched| {
            let interval = Interval::new(at(from), at(to));
            let entry = CacheEntry::insert(&Arc::new(Chunk::new(interval, at(fetched), Settled::Yes, &[])), &memory);
            assert!(state.insert(agentic, entry.clone(), &memory));
            entry
        };
        let mut state = SeriesState::default();
        let wide = insert(&mut state, false, 0, 10, 50);
        let (within, other) = (insert(&mut state, false, 3, 5, 60), insert(&mut state, true, 2, 12, 50));
        let exact = insert(&mut SeriesState::default(), false, 1, 6, 50);
        state.exact.insert((exact.chunk, false), exact.clone());
        let token = state.entries.validity_token();
        let kept = |entries: [&CacheEntry; 4]| entries.map(|entry| memory.contains(entry.id));
        assert_eq!(state.remove_before(at(4), &memory), 0);
        assert!(token.is_valid(), "nothing was removed");
        assert_eq!(
            (state.remove_before(at(6), &memory), kept([&wide, &within, &other, &exact])),
            (2, [true, false, true, false])
        );
        assert!(!token.is_valid() && state.exact.is_empty());
        let interval_after = |entries: &EntryIndex| entries.by_agentic(false).within(Interval::EVER).count();
        assert_eq!(interval_after(&state.entries), 2, "the chunk around it is not too old");
        assert_eq!((state.remove_before(at(12), &memory), kept([&wide, &within, &other, &exact])), (2, [false; 4]));
        assert!(state.entries.is_empty());
    }

    #[test]
    fn erasure_invalidates_answers_made_of_evicted_chunks() {
        let memory = Memory::new(100_000);
        let insert = |state: &mut SeriesState, slot| {
            let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(10));
            let chunk = Arc::new(Chunk::new(interval, interval.end, Settled::Yes, &[]));
            let mut entry = CacheEntry::insert(&chunk, &memory);
            entry.slot = slot;
            assert!(state.insert(false, entry.clone(), &memory));
            memory.remove(entry.id);
            state.entries.validity_token()
        };
        // An erasure of ids that no chunk at hand is known to hold.
        let erasure = |_: Interval, _: u64, ids: &IdFilter| matches!(ids, IdFilter::Any).then_some(1);
        let slot = Slot { segment: 1, offset: 0, len: 1 };
        for (slot, kept) in [(None, 0), (Some(slot), 1)] {
            let mut state = SeriesState::default();
            let answer = insert(&mut state, slot);
            assert_eq!(state.apply_purge(erasure, &memory), [0; 0]);
            assert!(!answer.is_valid(), "{slot:?}");
            assert_eq!(state.entries.all().count(), kept, "{slot:?}");
        }
    }

    #[test]
    fn evicted_chunk_is_gone_though_an_answer_holds_it() {
        let memory = Memory::new(10_000);
        let held = empty_chunk();
        let entry = CacheEntry::insert(&held, &memory);
        assert!(entry.peek(&memory).is_some());
        memory.remove(entry.id);
        assert!(entry.peek(&memory).is_none());
    }
}
