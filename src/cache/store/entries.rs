//! Which copies cover which time, and what is known of long stretches of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::generation::{Generation, ValidityToken};
use super::memory::{ChunkId, Memory};
use super::range_stats::{RangeSegment, RangeStats, RangeStatsIndex};
use crate::cache::chunk::Chunk;
use crate::window::{FreshnessPolicy, Interval, IntervalMap, Plan, PlanEntry, Timestamp};

/// A chunk that has been kept, and may have gone since.
#[derive(Clone, Debug)]
pub(in crate::cache) struct CacheEntry {
    pub(in crate::cache) id: ChunkId,
    /// The whole span of the chunk; the copy may cover only a part of it.
    pub(in crate::cache) chunk: Interval,
    pub(in crate::cache) fetched_at: Timestamp,
    /// See [`Chunk::with_epoch`].
    pub(in crate::cache) epoch: u64,
    /// How many items the chunk holds.
    rows: usize,
    /// Whether they may still move out of it.
    may_move: bool,
    /// The chunk itself, for a look that is no use of it: memory tells no look from a use.
    kept: Weak<Chunk>,
}

impl CacheEntry {
    /// Puts a chunk into memory.
    pub(in crate::cache) fn keep(chunk: &Arc<Chunk>, memory: &Memory) -> Self {
        let rows = chunk.len();
        Self {
            id: memory.keep(chunk.clone()),
            chunk: chunk.interval(),
            fetched_at: chunk.fetched_at(),
            epoch: chunk.epoch(),
            rows,
            may_move: !chunk.id_hashes(0..rows).is_empty(),
            kept: Arc::downgrade(chunk),
        }
    }

    /// The chunk, if it is still there; it counts as used.
    pub(in crate::cache) fn use_chunk(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        memory.get(self.id)
    }

    /// The chunk, if it is still there; it does not count as used.
    pub(in crate::cache) fn peek(&self, memory: &Memory) -> Option<Arc<Chunk>> {
        self.kept.upgrade().filter(|_| memory.holds(self.id))
    }
}

impl PlanEntry for CacheEntry {
    fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }
}

/// One of two things for items with `agenticActivities` and for those without.
#[derive(Debug, Default)]
pub(in crate::cache) struct ByAgentic<T> {
    pub(in crate::cache) plain: T,
    pub(in crate::cache) agentic: T,
}

impl<T> ByAgentic<T> {
    pub(in crate::cache) fn of(&mut self, agentic: bool) -> &mut T {
        if agentic { &mut self.agentic } else { &mut self.plain }
    }
}

/// The copies of a series. Whatever changes them goes through here, so that no tally outlives what it tells of.
#[derive(Debug, Default)]
pub(in crate::cache) struct EntryIndex {
    lie: ByAgentic<IntervalMap<CacheEntry>>,
    /// Of windows without the member and with it. The former are made of copies of both kinds.
    tallies: ByAgentic<RangeStatsIndex>,
    losses: Generation,
}

/// A copy that serves a part of a window.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct UsableEntry<'a> {
    pub(in crate::cache) copy: &'a CacheEntry,
    /// Whether the member must be cut out of its items.
    pub(in crate::cache) strip: bool,
}

impl UsableEntry<'_> {
    /// How many of its items lie in `part` of it. `None` if that takes the chunk, and it has gone.
    pub(in crate::cache) fn rows(&self, part: Interval) -> Option<usize> {
        let CacheEntry { chunk, rows, kept, .. } = self.copy;
        if part == *chunk { Some(*rows) } else { Some(kept.upgrade()?.rows_within(part).len()) }
    }

    /// Whether they may still move out of it.
    pub(in crate::cache) fn may_move(&self) -> bool {
        self.copy.may_move
    }

    /// Whether time alone does not change what it serves `part` with.
    pub(in crate::cache) fn stays(&self, part: Interval, rules: LookupRules<'_>) -> bool {
        !self.may_move() && part.end <= rules.freshness_policy.settled_before(self.copy.fetched_at)
    }
}

/// By which rules copies are looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct LookupRules<'a> {
    pub(in crate::cache) freshness_policy: &'a FreshnessPolicy,
    pub(in crate::cache) agentic: bool,
    /// When the window was asked for.
    pub(in crate::cache) asked_at: Timestamp,
    /// The width of the grid's cells.
    pub(in crate::cache) cell: Duration,
}

impl EntryIndex {
    /// Those of one kind.
    pub(in crate::cache) fn of(&self, agentic: bool) -> &IntervalMap<CacheEntry> {
        if agentic { &self.lie.agentic } else { &self.lie.plain }
    }

    /// Of both kinds, each with the span that it covers.
    pub(in crate::cache) fn all(&self) -> impl Iterator<Item = (Interval, &CacheEntry)> {
        self.lie.plain.within(Interval::EVER).chain(self.lie.agentic.within(Interval::EVER))
    }

    pub(in crate::cache) fn is_empty(&self) -> bool {
        self.lie.plain.is_empty() && self.lie.agentic.is_empty()
    }

    /// Covers `interval`, in place of whatever of this kind covered it before.
    pub(in crate::cache) fn insert(&mut self, agentic: bool, interval: Interval, copy: CacheEntry) {
        // What may still move serves no answer that lasts. Those of the other kind may have served for this one.
        let replaces = |lie: &IntervalMap<CacheEntry>| lie.within(interval).any(|(_, old)| !old.may_move);
        if replaces(&self.lie.plain) || replaces(&self.lie.agentic) {
            self.losses.add();
        }
        self.lie.of(agentic).insert(interval, copy);
        self.forget(interval);
    }

    /// Uncovers `interval`.
    pub(in crate::cache) fn remove(&mut self, interval: Interval) {
        self.losses.add();
        self.lie.plain.remove(interval);
        self.lie.agentic.remove(interval);
        self.forget(interval);
    }

    /// Keeps only those that `keep` wants.
    pub(in crate::cache) fn retain(&mut self, mut keep: impl FnMut(&CacheEntry) -> bool) {
        let count = |lie: &ByAgentic<IntervalMap<CacheEntry>>| lie.plain.len() + lie.agentic.len();
        let before = count(&self.lie);
        self.lie.plain.retain(|_, copy| keep(copy));
        self.lie.agentic.retain(|_, copy| keep(copy));
        if count(&self.lie) != before {
            self.losses.add();
            self.tallies.plain.clear();
            self.tallies.agentic.clear();
        }
    }

    /// Holds until something is taken away, or replaced, that time alone would not have changed.
    pub(in crate::cache) fn validity_token(&self) -> ValidityToken {
        self.losses.none_since_now()
    }

    fn forget(&mut self, interval: Interval) {
        self.tallies.plain.forget(interval);
        self.tallies.agentic.forget(interval);
    }

    /// What serves `interval`, ascending; `None` if something of it is missing, or too old. As [`Plan`] finds it, but
    /// without asking whether the chunks are still in memory.
    pub(in crate::cache) fn see(
        &self,
        interval: Interval,
        rules: LookupRules<'_>,
    ) -> Option<Vec<(Interval, UsableEntry<'_>)>> {
        see(&self.lie, interval, rules)
    }

    /// Cuts `window` into stretches of which the number of items is known, and others.
    pub(in crate::cache) fn cut(&mut self, window: Interval, rules: LookupRules<'_>) -> Vec<RangeSegment> {
        let Self { lie, tallies, .. } = self;
        tallies.of(rules.agentic).cut(window, rules.cell, &mut |interval| tally(lie, interval, rules))
    }

    /// The same for a known stretch that is to be seen in more detail.
    pub(in crate::cache) fn open(
        &mut self,
        interval: Interval,
        level: usize,
        rules: LookupRules<'_>,
    ) -> Vec<RangeSegment> {
        let Self { lie, tallies, .. } = self;
        tallies.of(rules.agentic).open(interval, level, &mut |interval| tally(lie, interval, rules))
    }
}

fn see<'a>(
    lie: &'a ByAgentic<IntervalMap<CacheEntry>>,
    interval: Interval,
    rules: LookupRules<'_>,
) -> Option<Vec<(Interval, UsableEntry<'a>)>> {
    let LookupRules { freshness_policy, agentic, asked_at, .. } = rules;
    // As a rule, one kind serves all of it.
    if let Some(seen) = see_whole(if agentic { &lie.agentic } else { &lie.plain }, interval, rules) {
        return Some(seen);
    }
    let mut plan = Plan::new(interval);
    if !agentic {
        plan.take(&lie.plain, freshness_policy, asked_at, asked_at, |copy| Some(UsableEntry { copy, strip: false }));
    }
    plan.take(&lie.agentic, freshness_policy, asked_at, asked_at, |copy| Some(UsableEntry { copy, strip: !agentic }));
    plan.hits.sort_unstable_by_key(|(interval, _)| interval.start);
    plan.missing.is_empty().then_some(plan.hits)
}

/// What serves `interval`, if these copies are enough, and none of them is due.
fn see_whole<'a>(
    lie: &'a IntervalMap<CacheEntry>,
    interval: Interval,
    rules: LookupRules<'_>,
) -> Option<Vec<(Interval, UsableEntry<'a>)>> {
    let mut seen = Vec::new();
    let mut end = interval.start;
    for (part, copy) in lie.within(interval) {
        let fetched_at = copy.fetched_at;
        let is_due = || rules.freshness_policy.stale(part, fetched_at, rules.asked_at).next().is_some();
        if part.start != end || (fetched_at < rules.asked_at && is_due()) {
            return None;
        }
        end = part.end;
        seen.push((part, UsableEntry { copy, strip: false }));
    }
    (end == interval.end).then_some(seen)
}

/// The tally of `interval`, if time alone does not change what serves it.
fn tally(lie: &ByAgentic<IntervalMap<CacheEntry>>, interval: Interval, rules: LookupRules<'_>) -> Option<RangeStats> {
    see(lie, interval, rules)?.into_iter().try_fold(RangeStats::NOTHING, |tally, (part, seen)| {
        let rows = seen.rows(part).filter(|_| seen.stays(part, rules))?;
        Some(tally.plus(RangeStats { rows: rows as u64, chunks: 1, oldest: seen.copy.fetched_at }))
    })
}
