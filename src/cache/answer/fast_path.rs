//! Answers from memory alone, at the cost of what is sent.
//!
//! For a page deep in a long window, only the chunks that it is cut from are opened. Of all others, the tree of item
//! counts says that they are fresh and how many items they hold, whether memory still has the chunks or not. If
//! anything is missing, stale or in doubt, there is no fast path, and a session assembles the window from each of its
//! chunks.

use std::sync::Arc;

use super::lookup::ItemConversion;
use super::segments::moved_segments;
use crate::blocking::spawn_work;
use crate::cache::chunk::{Chunk, Damaged, ItemSlice, Slice};
use crate::cache::fetch::{Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::store::{EntryIndex, LookupRules, Memory, RangeSegment, RangeStats, UsableEntry};
use crate::cache::types::{WindowAnswer, WindowQuery};
use crate::window::Interval;

/// An answer from memory, of which some items may still have to be converted.
pub(in crate::cache) struct FastPath {
    answer: WindowAnswer,
    /// The indices of the slices from whose items `agenticActivities` is to be removed.
    agentic_slices: Vec<usize>,
}

impl FastPath {
    /// The answer to `query`, if memory has all of it.
    pub(in crate::cache) fn at(fetcher: &Fetcher, query: &WindowQuery) -> Option<Self> {
        let WindowQuery { series, interval, asked_at, .. } = query;
        let settings = fetcher.settings.of(series);
        if interval.is_empty() || fetcher.window_fields.is_wrong(series, settings) {
            return None;
        }
        let series_state = fetcher.series_map.find(series)?;
        let cell = fetcher.settings.grid.cell(interval.start).length();
        let rules = LookupRules {
            freshness_policy: &settings.freshness_policy,
            agentic: series.agentic,
            asked_at: *asked_at,
            cell,
        };
        find(&mut series_state.lock().entries, &fetcher.memory, rules, query)
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

fn find(entries: &mut EntryIndex, memory: &Memory, rules: LookupRules<'_>, query: &WindowQuery) -> Option<FastPath> {
    let mut window = Vec::new();
    let mut total = RangeStats::NOTHING;
    let mut scan = EntryScan::default();
    for RangeSegment { interval, stats } in entries.segments(query.interval, rules) {
        let (stats, level) = match stats {
            Some((stats, level)) => (stats, Some(level)),
            None => (scan.add(entries, memory, rules, interval)?, None),
        };
        window.push((interval, stats.rows, level));
        total = total.merge(stats);
    }
    if !moved_segments(&scan.movable).is_empty() {
        return None;
    }
    let (start, end) = query.page_range.bounds(total.rows);
    let mut cutter =
        PageCutter { entries, memory, rules, start, end, before: 0, slices: Vec::new(), agentic_slices: Vec::new() };
    for (interval, rows, level) in window {
        cutter.cut(interval, rows, level)?;
    }
    let PageCutter { slices, agentic_slices, .. } = cutter;
    let is_repeatable = agentic_slices.is_empty() && !scan.may_change;
    let answer = WindowAnswer {
        items: ItemSlice { slices, count: end - start, has_more: end < total.rows },
        rest: None,
        settled: query.interval.end <= rules.freshness_policy.settled_before(query.asked_at),
        validity: is_repeatable.then(|| entries.validity_token()),
        oldest_entry: Some(total.oldest),
        outcome: Outcome::Hit,
        chunks: total.chunks,
        hits: total.chunks,
        calls: 0,
    };
    Some(FastPath { answer, agentic_slices })
}

/// A scan of entries in intervals that have no item count, because time changes them, or because they are too short.
#[derive(Default)]
struct EntryScan {
    /// Segments out of which items may still move.
    movable: Vec<Segment>,
    /// Whether an entry becomes stale, or settles, by time alone.
    may_change: bool,
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
            total = total.merge(RangeStats { rows: usable.rows(part)? as u64, chunks: 1, oldest: fetched_at });
            self.may_change |= !usable.is_stable(part, rules);
            if usable.may_move() {
                let chunk = usable.entry.peek(memory)?;
                let slice = Slice { rows: chunk.rows_within(part), chunk };
                self.movable.push(Segment { interval: part, slice, fetched_at, is_cached: true, is_derived: false });
            }
        }
        Some(total)
    }
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
    slices: Vec<Slice>,
    agentic_slices: Vec<usize>,
}

impl PageCutter<'_> {
    /// Cuts the next interval, of so many items. `None` if a chunk that is needed has been evicted.
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
                let (chunk, first) = Self::open(self.memory, usable, part)?;
                let row = |item: u64| usize::try_from(item - self.before).ok().map(|row| first + row);
                let rows = row(wanted.start)?..row(wanted.end)?;
                if usable.strip {
                    self.agentic_slices.push(self.slices.len());
                }
                self.slices.push(Slice { chunk, rows });
            }
            self.before += rows;
        }
        Some(())
    }

    /// The chunk of an entry, which counts as used, and its first row in `part`.
    fn open(memory: &Memory, usable: UsableEntry<'_>, part: Interval) -> Option<(Arc<Chunk>, usize)> {
        let chunk = usable.entry.use_chunk(memory)?;
        let first = chunk.rows_within(part).start;
        Some((chunk, first))
    }
}

#[cfg(test)]
mod tests;
