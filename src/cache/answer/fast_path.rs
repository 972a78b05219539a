//! Answers from memory, or from memory and a few chunks on disk, at the cost of what is sent.
//!
//! For a page deep in a long window, only the chunks that it is cut from are opened. Of all others, the tree of item
//! counts says that they are fresh and how many items they hold, whether memory still has the chunks or not. If
//! anything is missing, stale or in doubt, there is no fast path, and a session assembles the window from each of its
//! chunks.

use std::sync::Arc;

use super::lookup::ItemConversion;
use super::segments::moved_segments;
use super::tier_read::read_into_memory;
use crate::blocking::spawn_work;
use crate::cache::chunk::{Chunk, Damaged, ItemSlice, Slice};
use crate::cache::disk::DiskHit;
use crate::cache::fetch::{Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::store::{EntryIndex, LookupRules, Memory, RangeSegment, RangeStats, UsableEntry};
use crate::cache::types::{WindowAnswer, WindowQuery};
use crate::window::{FreshnessDemand, Interval, RequestFreshness, Timestamp};

/// Most bytes of chunks that are read from disk for one answer. For more, a session reads them piece by piece.
const MAX_BYTES_FROM_DISK: u64 = 4 << 20;
/// How often chunks are read from disk for one answer: first those that tell which page it is, then those of the page.
const MAX_READS_FROM_DISK: usize = 3;

/// An answer from memory, of which some items may still have to be converted.
pub(in crate::cache) struct FastPath {
    answer: WindowAnswer,
    /// The indices of the slices from whose items `agenticActivities` is to be removed.
    agentic_slices: Vec<usize>,
}

/// Why memory has no answer.
pub(in crate::cache) enum NotFound {
    /// Memory has all but these chunks, which are on disk.
    OnDisk(Vec<DiskHit>),
    /// Something is missing or stale.
    Incomplete,
}

impl FastPath {
    /// The answer to `query`, if memory has all of it.
    ///
    /// # Errors
    /// [`NotFound`] if it has not.
    pub(in crate::cache) fn at(fetcher: &Fetcher, query: &WindowQuery) -> Result<Self, NotFound> {
        let WindowQuery { series, interval, asked_at, options, .. } = query;
        let settings = fetcher.settings.of(series);
        let is_refetch = options.freshness == FreshnessDemand::Refetch;
        if interval.is_empty() || is_refetch || fetcher.window_fields.is_wrong(series, &settings) {
            return Err(NotFound::Incomplete);
        }
        let series_state = fetcher.series_map.find(series).ok_or(NotFound::Incomplete)?;
        let cell = fetcher.settings.grid.cell(interval.start).length();
        let rules = LookupRules {
            freshness: RequestFreshness::new(&settings.freshness_policy, options.freshness),
            agentic: series.agentic,
            asked_at: *asked_at,
            cell,
        };
        find(&mut series_state.lock().entries, &fetcher.memory, rules, query)
    }

    /// The answer to `query` after the chunks on disk that `missing` names have been read; `None` if they are too large,
    /// or one of them cannot be read.
    pub(in crate::cache) async fn from_disk(
        fetcher: &Arc<Fetcher>,
        query: &WindowQuery,
        missing: NotFound,
    ) -> Option<Self> {
        let disk = fetcher.disk.as_ref()?;
        let limit = MAX_BYTES_FROM_DISK.min(fetcher.memory.capacity() / 8);
        // Memory might evict them at once.
        let mut held = Vec::new();
        let mut found = Err(missing);
        for _ in 0..MAX_READS_FROM_DISK {
            let Err(NotFound::OnDisk(hits)) = &found else { break };
            let bytes: u64 = hits.iter().map(|hit| u64::from(hit.slot.len)).sum();
            if bytes > limit {
                return None;
            }
            for agentic in [false, true] {
                let own: Vec<_> = hits.iter().filter(|hit| hit.agentic == agentic).copied().collect();
                if !own.is_empty() {
                    held.extend(read_into_memory(fetcher, disk, &query.series.with_agentic(agentic), &own).await);
                }
            }
            found = Self::at(fetcher, query);
        }
        found.ok()
    }

    /// Whether no item has to be converted.
    pub(in crate::cache) fn is_ready(&self) -> bool {
        self.agentic_slices.is_empty()
    }

    /// The answer, as it is.
    pub(in crate::cache) fn answer(self) -> WindowAnswer {
        self.answer
    }

    /// The answer with all items converted.
    ///
    /// # Errors
    /// [`Damaged`] if a chunk does not inflate.
    pub(in crate::cache) async fn stripped(mut self) -> Result<WindowAnswer, Damaged> {
        if self.is_ready() {
            return Ok(self.answer);
        }
        // A conversion parses items, which would hold up other tasks of this thread.
        let stripped = spawn_work(move || {
            for index in self.agentic_slices {
                let slice = &mut self.answer.items.slices[index];
                slice.chunk = strip(&slice.chunk)?;
            }
            Ok(self.answer)
        });
        stripped.await.unwrap_or(Err(Damaged))
    }
}

/// The same chunk, row by row, without `agenticActivities`.
fn strip(chunk: &Chunk) -> Result<Arc<Chunk>, Damaged> {
    let conversion = ItemConversion { strips_agentic: true, filter: None };
    chunk.derive(|item| conversion.apply(item)).map(Arc::new)
}

fn find(
    entries: &mut EntryIndex,
    memory: &Memory,
    rules: LookupRules<'_>,
    query: &WindowQuery,
) -> Result<FastPath, NotFound> {
    let mut window = Vec::new();
    let mut total = RangeStats::NOTHING;
    let mut scan = EntryScan::default();
    for RangeSegment { interval, stats } in entries.segments(query.interval, rules) {
        let (stats, level) = match stats {
            Some((stats, level)) => (stats, Some(level)),
            None => (scan.add(entries, memory, rules, interval).ok_or(NotFound::Incomplete)?, None),
        };
        window.push((interval, stats.rows, level));
        total = total.merge(stats);
    }
    if !scan.on_disk.is_empty() {
        return Err(NotFound::OnDisk(scan.on_disk));
    }
    if !moved_segments(&scan.movable).is_empty() {
        return Err(NotFound::Incomplete);
    }
    let (start, end) = query.page_range.bounds(total.rows);
    let mut cutter = PageCutter { entries, memory, rules, start, end, before: 0, page: PageSlices::default() };
    for (interval, rows, level) in window {
        cutter.cut(interval, rows, level).ok_or(NotFound::Incomplete)?;
    }
    let PageSlices { slices, agentic_slices, on_disk } = cutter.page;
    if !on_disk.is_empty() {
        return Err(NotFound::OnDisk(on_disk));
    }
    let is_repeatable = agentic_slices.is_empty() && !scan.may_change;
    let answer = WindowAnswer {
        items: ItemSlice { slices, count: end - start, has_more: end < total.rows },
        rest: None,
        settled: query.interval.end <= rules.freshness.settled_before(query.asked_at),
        validity: is_repeatable.then(|| entries.validity_token()),
        oldest_entry: Some(total.oldest),
        fresh_until: scan.fresh_until,
        outcome: Outcome::Hit,
        chunks: total.chunks,
        hits: total.chunks,
        calls: 0,
    };
    Ok(FastPath { answer, agentic_slices })
}

/// Where the chunk of an entry is that memory does not have; `None` if it is not on disk either.
fn disk_hit(usable: UsableEntry<'_>, rules: LookupRules<'_>) -> Option<DiskHit> {
    let agentic = rules.agentic || usable.strip;
    Some(DiskHit { slot: usable.entry.slot?, facts: usable.entry.facts(), agentic, is_unfiltered: false })
}

/// A scan of entries in intervals that have no item count, because time changes them, or because they are too short.
#[derive(Default)]
struct EntryScan {
    /// Segments out of which items may still move.
    movable: Vec<Segment>,
    /// Whether an entry becomes stale, or settles, by time alone.
    may_change: bool,
    /// The time up to which all entries are fresh; `None` if they stay fresh. What has an item count does.
    fresh_until: Option<Timestamp>,
    /// The chunks that must be read from disk before the items can be counted.
    on_disk: Vec<DiskHit>,
}

impl EntryScan {
    /// Scans one interval. `None` if something of it is missing or stale.
    fn add(
        &mut self,
        entries: &EntryIndex,
        memory: &Memory,
        rules: LookupRules<'_>,
        interval: Interval,
    ) -> Option<RangeStats> {
        let mut total = RangeStats::NOTHING;
        for (part, usable) in entries.covering(interval, rules)? {
            let fetched_at = usable.entry.fetched_at;
            self.may_change |= !usable.is_stable(part, rules);
            let fresh_until = rules.freshness.fresh_until(part, fetched_at);
            self.fresh_until = self.fresh_until.into_iter().chain(fresh_until).min();
            let movable = if usable.may_move() { Some(usable.entry.peek(memory)) } else { None };
            let (Some(rows), None | Some(Some(_))) = (usable.rows(part), &movable) else {
                self.on_disk.push(disk_hit(usable, rules)?);
                continue;
            };
            total = total.merge(RangeStats { rows: rows as u64, chunks: 1, oldest: fetched_at });
            if let Some(chunk) = movable.flatten() {
                let slice = Slice { rows: chunk.rows_within(part), chunk };
                self.movable.push(Segment { interval: part, slice, fetched_at, is_cached: true, is_derived: false });
            }
        }
        Some(total)
    }
}

/// The slices of a page.
#[derive(Default)]
struct PageSlices {
    slices: Vec<Slice>,
    agentic_slices: Vec<usize>,
    /// The chunks of slices that must be read from disk.
    on_disk: Vec<DiskHit>,
}

/// Cuts a page range out of a window, one interval of the window after the other.
struct PageCutter<'a> {
    entries: &'a mut EntryIndex,
    memory: &'a Memory,
    rules: LookupRules<'a>,
    /// The index of the first requested item.
    start: u64,
    /// The index behind the last requested item.
    end: u64,
    /// The number of items before the next interval.
    before: u64,
    page: PageSlices,
}

impl PageCutter<'_> {
    /// Cuts the next interval, of so many items. `None` if a chunk that is needed is in no tier of this process.
    fn cut(&mut self, interval: Interval, rows: u64, level: Option<usize>) -> Option<()> {
        let behind = self.before + rows;
        if self.start == self.end || behind <= self.start || self.end <= self.before {
            self.before = behind;
            return Some(());
        }
        let Some(level) = level else { return self.cut_entries(interval) };
        for RangeSegment { interval, stats } in self.entries.subsegments(interval, level, self.rules) {
            match stats {
                Some((stats, level)) => self.cut(interval, stats.rows, Some(level))?,
                None => self.cut_entries(interval)?,
            }
        }
        Some(())
    }

    fn cut_entries(&mut self, interval: Interval) -> Option<()> {
        for (part, usable) in self.entries.covering(interval, self.rules)? {
            let rows = usable.rows(part)? as u64;
            let wanted = self.start.max(self.before)..self.end.min(self.before + rows);
            if wanted.start < wanted.end {
                match usable.entry.use_chunk(self.memory) {
                    Some(chunk) => {
                        let first = chunk.rows_within(part).start;
                        let row = |item: u64| usize::try_from(item - self.before).ok().map(|row| first + row);
                        let rows = row(wanted.start)?..row(wanted.end)?;
                        if usable.strip {
                            self.page.agentic_slices.push(self.page.slices.len());
                        }
                        self.page.slices.push(Slice { chunk, rows });
                    }
                    None => self.page.on_disk.push(disk_hit(usable, self.rules)?),
                }
            }
            self.before += rows;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
