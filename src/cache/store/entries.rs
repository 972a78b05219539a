//! The cache entries of one series: which chunk covers which interval, whether it is in memory, on disk or in both, and
//! statistics of long ranges of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::generation::{Generation, ValidityToken};
use super::memory::{ChunkId, Memory};
use super::range_stats::{RangeSegment, RangeStats, RangeStatsIndex};
use crate::cache::chunk::Chunk;
use crate::segment_log::Slot;
use crate::window::{Interval, IntervalMap, Plan, PlanEntry, RequestFreshness, Timestamp};

/// The facts of a chunk that are known without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cache) struct ChunkFacts {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) fetched_at: Timestamp,
    /// See [`Chunk::with_epoch`].
    pub(in crate::cache) epoch: u64,
    /// Number of items.
    pub(in crate::cache) rows: u32,
    /// Whether the items may still move to another chunk.
    pub(in crate::cache) may_move: bool,
}

impl ChunkFacts {
    pub(in crate::cache) fn of(chunk: &Chunk) -> Self {
        let rows = chunk.len();
        Self {
            interval: chunk.interval(),
            fetched_at: chunk.fetched_at(),
            epoch: chunk.epoch(),
            // A chunk's codec counts them in as many bits.
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            may_move: !chunk.id_hashes(0..rows).is_empty(),
        }
    }
}

/// Reference to a chunk that was inserted into memory, which may have evicted it since, or that lies on disk, or both.
#[derive(Clone, Debug)]
pub(in crate::cache) struct CacheEntry {
    /// [`ChunkId::NONE`] as long as the chunk was not read from disk.
    pub(in crate::cache) id: ChunkId,
    /// The interval of the chunk; the entry may cover only a part of it.
    pub(in crate::cache) chunk: Interval,
    pub(in crate::cache) fetched_at: Timestamp,
    /// See [`Chunk::with_epoch`].
    pub(in crate::cache) epoch: u64,
    /// Number of items of the chunk.
    rows: u32,
    /// Whether the items may still move to another chunk.
    may_move: bool,
    /// Where the chunk lies on disk, as far as is known.
    pub(in crate::cache) slot: Option<Slot>,
    /// Reference that does not count as a use, as a lookup in memory does.
    weak: Weak<Chunk>,
}

impl CacheEntry {
    /// Inserts a chunk into memory.
    pub(in crate::cache) fn insert(chunk: &Arc<Chunk>, memory: &Memory) -> Self {
        let entry = Self::on_disk(ChunkFacts::of(chunk), None);
        Self { id: memory.insert(chunk.clone()), weak: Arc::downgrade(chunk), ..entry }
    }

    /// The entry of a chunk that is not in memory.
    pub(in crate::cache) fn on_disk(facts: ChunkFacts, slot: Option<Slot>) -> Self {
        let ChunkFacts { interval, fetched_at, epoch, rows, may_move } = facts;
        Self { id: ChunkId::NONE, chunk: interval, fetched_at, epoch, rows, may_move, slot, weak: Weak::new() }
    }

    /// See [`ChunkFacts`].
    pub(in crate::cache) fn facts(&self) -> ChunkFacts {
        let Self { chunk, fetched_at, epoch, rows, may_move, .. } = self;
        ChunkFacts { interval: *chunk, fetched_at: *fetched_at, epoch: *epoch, rows: *rows, may_move: *may_move }
    }

    /// The number of items in `part` of the chunk, if they are evenly distributed.
    pub(in crate::cache) fn expected_rows(&self, part: Interval) -> u64 {
        let length = self.chunk.length().as_nanos().max(1);
        let rows = u128::from(self.rows) * part.intersection(self.chunk).length().as_nanos() / length;
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    /// The chunk, unless it was evicted; counts as a use.
    pub(in crate::cache) fn use_chunk(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        memory.get(self.id)
    }

    /// The chunk, unless it was evicted; does not count as a use.
    pub(in crate::cache) fn peek(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        self.weak.upgrade().filter(|_| memory.contains(self.id))
    }
}

impl PlanEntry for CacheEntry {
    fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }
}

/// A pair of values: for items with `agenticActivities`, and for items without.
#[derive(Debug, Default)]
pub(in crate::cache) struct ByAgentic<T> {
    pub(in crate::cache) non_agentic: T,
    pub(in crate::cache) agentic: T,
}

impl<T> ByAgentic<T> {
    pub(in crate::cache) fn get_mut(&mut self, agentic: bool) -> &mut T {
        if agentic { &mut self.agentic } else { &mut self.non_agentic }
    }
}

/// The cache entries of a series. All changes pass through this type, so that statistics and validity tokens never
/// outlive the entries that they describe.
#[derive(Debug, Default)]
pub(in crate::cache) struct EntryIndex {
    entries: ByAgentic<IntervalMap<CacheEntry>>,
    /// Statistics of windows without and with `agenticActivities`. The former may be served from entries of both kinds.
    stats: ByAgentic<RangeStatsIndex>,
    generation: Generation,
}

/// Entry that serves a part of a window.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct UsableEntry<'a> {
    pub(in crate::cache) entry: &'a CacheEntry,
    /// Whether `agenticActivities` must be removed from the items.
    pub(in crate::cache) strip: bool,
}

impl UsableEntry<'_> {
    /// Number of items in `part` of the entry; `None` if only the chunk can tell, and it was dropped.
    pub(in crate::cache) fn rows(&self, part: Interval) -> Option<usize> {
        let CacheEntry { chunk, rows, weak, .. } = self.entry;
        let is_known = part == *chunk || *rows == 0;
        if is_known { Some(*rows as usize) } else { Some(weak.upgrade()?.rows_within(part).len()) }
    }

    /// Whether the items may still move to another chunk.
    pub(in crate::cache) fn may_move(&self) -> bool {
        self.entry.may_move
    }

    /// Whether the passing of time alone does not change what serves `part`.
    pub(in crate::cache) fn is_stable(&self, part: Interval, rules: LookupRules<'_>) -> bool {
        !self.may_move() && part.end <= rules.freshness.settled_before(self.entry.fetched_at)
    }
}

/// Rules of a lookup: which entries may serve.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct LookupRules<'a> {
    pub(in crate::cache) freshness: RequestFreshness<'a>,
    pub(in crate::cache) agentic: bool,
    /// When the window was requested.
    pub(in crate::cache) asked_at: Timestamp,
    /// Width of the cells of the grid.
    pub(in crate::cache) cell: Duration,
}

impl EntryIndex {
    /// The entries of one kind.
    pub(in crate::cache) fn by_agentic(&self, agentic: bool) -> &IntervalMap<CacheEntry> {
        if agentic { &self.entries.agentic } else { &self.entries.non_agentic }
    }

    /// The entries of both kinds, each with the interval that it covers.
    pub(in crate::cache) fn all(&self) -> impl Iterator<Item = (Interval, &CacheEntry)> {
        self.entries.non_agentic.within(Interval::EVER).chain(self.entries.agentic.within(Interval::EVER))
    }

    /// The entries of both kinds that cover a part of `window`, each with that part.
    pub(in crate::cache) fn within(&self, window: Interval) -> impl Iterator<Item = (Interval, &CacheEntry)> {
        self.entries.non_agentic.within(window).chain(self.entries.agentic.within(window))
    }

    pub(in crate::cache) fn is_empty(&self) -> bool {
        self.entries.non_agentic.is_empty() && self.entries.agentic.is_empty()
    }

    /// Covers `interval` with `entry`, which replaces entries of the same kind.
    pub(in crate::cache) fn insert(&mut self, agentic: bool, interval: Interval, entry: CacheEntry) {
        // No token is issued for items that may move. Entries of the other kind may have served in place of this one.
        let replaces = |map: &IntervalMap<CacheEntry>| map.within(interval).any(|(_, old)| !old.may_move);
        if replaces(&self.entries.non_agentic) || replaces(&self.entries.agentic) {
            self.generation.increment();
        }
        self.entries.get_mut(agentic).insert(interval, entry);
        self.invalidate_stats(interval);
    }

    /// Invalidates all answers that were made of entries.
    pub(in crate::cache) fn invalidate_answers(&self) {
        self.generation.increment();
    }

    /// Removes what covers `interval`.
    pub(in crate::cache) fn remove(&mut self, interval: Interval) {
        self.generation.increment();
        self.entries.non_agentic.remove(interval);
        self.entries.agentic.remove(interval);
        self.invalidate_stats(interval);
    }

    /// Frees what evicted chunks still take beside their entries.
    pub(in crate::cache) fn release_evicted(&mut self, memory: &Memory) {
        for entries in [&mut self.entries.non_agentic, &mut self.entries.agentic] {
            for entry in entries.values_mut(Interval::EVER).filter(|entry| !memory.contains(entry.id)) {
                (entry.id, entry.weak) = (ChunkId::NONE, Weak::new());
            }
        }
    }

    /// Removes the entries for which `keep` returns false.
    pub(in crate::cache) fn retain(&mut self, mut keep: impl FnMut(&CacheEntry) -> bool) {
        let count = |maps: &ByAgentic<IntervalMap<CacheEntry>>| maps.non_agentic.len() + maps.agentic.len();
        let before = count(&self.entries);
        self.entries.non_agentic.retain(|_, entry| keep(entry));
        self.entries.agentic.retain(|_, entry| keep(entry));
        if count(&self.entries) != before {
            self.generation.increment();
            self.stats.non_agentic.clear();
            self.stats.agentic.clear();
        }
    }

    /// Sets where a chunk lies on disk that has this id in memory. `false` if no entry refers to it any more.
    pub(in crate::cache) fn set_slot(&mut self, agentic: bool, chunk: Interval, id: ChunkId, slot: Slot) -> bool {
        let own = self.entries.get_mut(agentic).values_mut(chunk).filter(|entry| entry.id == id);
        own.map(|entry| entry.slot = Some(slot)).count() > 0
    }

    /// Sets where a chunk lies on disk that lay elsewhere.
    pub(in crate::cache) fn move_slot(&mut self, agentic: bool, chunk: Interval, from: Slot, to: Slot) {
        let own = self.entries.get_mut(agentic).values_mut(chunk).filter(|entry| entry.slot == Some(from));
        own.for_each(|entry| entry.slot = Some(to));
    }

    /// Inserts a chunk into memory that was read from `slot`, unless no entry refers to it any more.
    pub(in crate::cache) fn attach(&mut self, agentic: bool, slot: Slot, chunk: &Arc<Chunk>, memory: &Memory) -> bool {
        let entries = self.entries.get_mut(agentic).values_mut(chunk.interval());
        let own: Vec<_> = entries.filter(|entry| entry.slot == Some(slot)).collect();
        let is_needed = own.iter().any(|entry| !memory.contains(entry.id));
        if is_needed {
            let id = memory.insert(chunk.clone());
            for entry in own {
                (entry.id, entry.weak) = (id, Arc::downgrade(chunk));
            }
        }
        is_needed
    }

    /// Forgets that a chunk lies at `slot`, because it cannot be read there.
    pub(in crate::cache) fn detach(&mut self, agentic: bool, chunk: Interval, slot: Slot) {
        let own = self.entries.get_mut(agentic).values_mut(chunk).filter(|entry| entry.slot == Some(slot));
        own.for_each(|entry| entry.slot = None);
    }

    /// Removes the entries of chunks that end at `timestamp` or before. Returns the keys of these chunks, some of them
    /// more than once. Costs nothing where there are none.
    pub(in crate::cache) fn remove_before(&mut self, timestamp: Timestamp) -> Vec<ChunkId> {
        let before = Interval::new(Timestamp::MIN, timestamp);
        let kinds = [&self.entries.non_agentic, &self.entries.agentic];
        let found = kinds.into_iter().flat_map(|entries| entries.within(before));
        let old: Vec<_> = found
            .filter(|(_, entry)| entry.chunk.end <= timestamp)
            .map(|(interval, entry)| (interval, entry.id))
            .collect();
        for (interval, _) in &old {
            self.remove(*interval);
        }
        old.into_iter().map(|(_, id)| id).collect()
    }

    /// A token that is valid until an entry is removed or replaced that time alone would not have changed.
    pub(in crate::cache) fn validity_token(&self) -> ValidityToken {
        self.generation.token()
    }

    fn invalidate_stats(&mut self, interval: Interval) {
        self.stats.non_agentic.invalidate(interval);
        self.stats.agentic.invalidate(interval);
    }

    /// The entries that serve `interval`, ascending; `None` if a part is missing or stale. The result is that of
    /// [`Plan`], except that evicted chunks are not noticed.
    pub(in crate::cache) fn covering(
        &self,
        interval: Interval,
        rules: LookupRules<'_>,
    ) -> Option<Vec<(Interval, UsableEntry<'_>)>> {
        covering(&self.entries, interval, rules)
    }

    /// Divides `window` into segments of which the statistics are known, and others.
    pub(in crate::cache) fn segments(&mut self, window: Interval, rules: LookupRules<'_>) -> Vec<RangeSegment> {
        let Self { entries, stats, .. } = self;
        let measure = &mut |interval| range_stats(entries, interval, rules);
        let stats = stats.get_mut(rules.agentic);
        stats.measure_with(rules.freshness.settle_after());
        stats.segments(window, rules.cell, measure)
    }

    /// Divides a segment of this level of the tree further.
    pub(in crate::cache) fn subsegments(
        &mut self,
        interval: Interval,
        level: usize,
        rules: LookupRules<'_>,
    ) -> Vec<RangeSegment> {
        let Self { entries, stats, .. } = self;
        let measure = &mut |interval| range_stats(entries, interval, rules);
        stats.get_mut(rules.agentic).subsegments(interval, level, measure)
    }
}

fn covering<'a>(
    entries: &'a ByAgentic<IntervalMap<CacheEntry>>,
    interval: Interval,
    rules: LookupRules<'_>,
) -> Option<Vec<(Interval, UsableEntry<'a>)>> {
    let LookupRules { freshness, agentic, asked_at, .. } = rules;
    // Usually, entries of one kind serve all of it.
    let own_kind = if agentic { &entries.agentic } else { &entries.non_agentic };
    if let Some(found) = covering_with_one_kind(own_kind, interval, rules) {
        return Some(found);
    }
    let mut plan = Plan::new(interval);
    if !agentic {
        let usable = |entry| Some(UsableEntry { entry, strip: false });
        plan.take(&entries.non_agentic, freshness, asked_at, asked_at, usable);
    }
    let usable = |entry| Some(UsableEntry { entry, strip: !agentic });
    plan.take(&entries.agentic, freshness, asked_at, asked_at, usable);
    plan.hits.sort_unstable_by_key(|(interval, _)| interval.start);
    plan.missing.is_empty().then_some(plan.hits)
}

/// The entries of one kind that serve `interval`; `None` if a part is missing or stale.
fn covering_with_one_kind<'a>(
    entries: &'a IntervalMap<CacheEntry>,
    interval: Interval,
    rules: LookupRules<'_>,
) -> Option<Vec<(Interval, UsableEntry<'a>)>> {
    let mut found = Vec::new();
    let mut end = interval.start;
    for (part, entry) in entries.within(interval) {
        let fetched_at = entry.fetched_at;
        let is_stale = || rules.freshness.stale(part, fetched_at, rules.asked_at).next().is_some();
        if part.start != end || (fetched_at < rules.asked_at && is_stale()) {
            return None;
        }
        end = part.end;
        found.push((part, UsableEntry { entry, strip: false }));
    }
    (end == interval.end).then_some(found)
}

/// The statistics of `interval`, if time alone does not change what serves it.
fn range_stats(
    entries: &ByAgentic<IntervalMap<CacheEntry>>,
    interval: Interval,
    rules: LookupRules<'_>,
) -> Option<RangeStats> {
    covering(entries, interval, rules)?.into_iter().try_fold(RangeStats::NOTHING, |stats, (part, usable)| {
        let rows = usable.rows(part).filter(|_| usable.is_stable(part, rules))?;
        Some(stats.merge(RangeStats { rows: rows as u64, chunks: 1, oldest: usable.entry.fetched_at }))
    })
}
