//! Answers what the shelf can answer as it is, at the cost of what is sent.
//!
//! Of a page far into a long window, only the chunks that it is cut from are opened. Of all others it must be known that
//! they are not due, and how many items they hold, which the shelf's tallies tell; whether memory still has them does not
//! matter. Wherever something is missing, too old or in doubt, there is no such answer, and the window is put together
//! from each of its chunks.

use std::sync::Arc;

use super::lookup::ItemConversion;
use super::segments::{Segment, twice};
use crate::cache::chunk::ItemSlice;
use crate::cache::chunk::{Chunk, Damaged, Slice};
use crate::cache::fetch::Fetcher;
use crate::cache::store::Memory;
use crate::cache::store::{EntryIndex, LookupRules, UsableEntry};
use crate::cache::store::{RangeSegment, RangeStats};
use crate::cache::{Outcome, WindowAnswer, WindowQuery};
use crate::window::Interval;

/// The answer, but for what must still be done to its items.
pub(in crate::cache) struct FastPath {
    answer: WindowAnswer,
    /// Which of its slices are of chunks whose items have a member too many.
    strip: Vec<usize>,
}

impl FastPath {
    /// What is wanted, if nothing need be asked or waited for.
    pub(in crate::cache) fn at(fetcher: &Fetcher, query: &WindowQuery) -> Option<Self> {
        let WindowQuery { series, interval, asked_at, .. } = query;
        if interval.is_empty() || fetcher.window_fields.is_wrong(series) {
            return None;
        }
        let shelf = fetcher.series_map.find(series)?;
        let cell = fetcher.grid.cell(interval.start).length();
        let rules = LookupRules {
            freshness_policy: &fetcher.freshness_policy,
            agentic: series.agentic,
            asked_at: *asked_at,
            cell,
        };
        look(&mut shelf.lock().entries, &fetcher.memory, rules, query)
    }

    /// Whether there is nothing to be done to its items.
    pub(in crate::cache) fn is_ready(&self) -> bool {
        self.strip.is_empty()
    }

    /// The answer, which is ready.
    pub(in crate::cache) fn answer(self) -> WindowAnswer {
        self.answer
    }

    /// Makes it ready.
    pub(in crate::cache) async fn stripped(mut self) -> Result<WindowAnswer, Damaged> {
        // It takes long enough to hold up others of this thread.
        let stripped = tokio::task::spawn_blocking(move || {
            for place in self.strip {
                let slice = &mut self.answer.items.slices[place];
                slice.chunk = strip(&slice.chunk)?;
            }
            Ok(self.answer)
        });
        stripped.await.unwrap_or(Err(Damaged))
    }
}

/// The same chunk, row by row, without the member.
fn strip(chunk: &Chunk) -> Result<Arc<Chunk>, Damaged> {
    let change = ItemConversion { strip: true, filter: None };
    chunk.derive(|item| change.apply(item)).map(Arc::new)
}

fn look(copies: &mut EntryIndex, memory: &Memory, rules: LookupRules<'_>, query: &WindowQuery) -> Option<FastPath> {
    let mut window = Vec::new();
    let mut sum = RangeStats::NOTHING;
    let mut closely = Closely::default();
    for RangeSegment { interval, tally } in copies.cut(query.interval, rules) {
        let (tally, level) = match tally {
            Some((tally, level)) => (tally, Some(level)),
            None => (look_closely(copies, memory, rules, interval, &mut closely)?, None),
        };
        window.push((interval, tally.rows, level));
        sum = sum.plus(tally);
    }
    if !twice(&closely.may_move).is_empty() {
        return None;
    }
    let (start, end) = query.page_range.bounds(sum.rows);
    let mut cutter = Cutter { copies, memory, rules, start, end, before: 0, slices: Vec::new(), strip: Vec::new() };
    for (interval, rows, level) in window {
        cutter.cut(interval, rows, level)?;
    }
    let Cutter { slices, strip, .. } = cutter;
    let lasts = strip.is_empty() && !closely.may_change;
    let answer = WindowAnswer {
        items: ItemSlice { slices, count: end - start, has_more: end < sum.rows },
        rest: None,
        settled: query.interval.end <= rules.freshness_policy.settled_before(query.asked_at),
        validity: lasts.then(|| copies.validity_token()),
        oldest_entry: Some(sum.oldest),
        outcome: Outcome::Hit,
        chunks: sum.chunks,
        hits: sum.chunks,
        calls: 0,
    };
    Some(FastPath { answer, strip })
}

/// What a close look has found, beside the tally.
#[derive(Default)]
struct Closely {
    /// What may still move out of where it lies.
    may_move: Vec<Segment>,
    /// Whether time alone will change something.
    may_change: bool,
}

/// The tally of a stretch that has none because time changes it, or because it is too short.
fn look_closely(
    copies: &EntryIndex,
    memory: &Memory,
    rules: LookupRules<'_>,
    interval: Interval,
    closely: &mut Closely,
) -> Option<RangeStats> {
    let mut sum = RangeStats::NOTHING;
    for (part, seen) in copies.see(interval, rules)? {
        let fetched_at = seen.copy.fetched_at;
        sum = sum.plus(RangeStats { rows: seen.rows(part)? as u64, chunks: 1, oldest: fetched_at });
        closely.may_change |= !seen.stays(part, rules);
        if seen.may_move() {
            let chunk = seen.copy.peek(memory)?;
            let slice = Slice { rows: chunk.rows_within(part), chunk };
            closely.may_move.push(Segment { interval: part, slice, fetched_at, copy: true, derived: false });
        }
    }
    Some(sum)
}

/// Cuts an page_range out of a window, one piece of the window after the other.
struct Cutter<'a> {
    copies: &'a mut EntryIndex,
    memory: &'a Memory,
    rules: LookupRules<'a>,
    /// The first item that is wanted, and the one behind the last.
    start: u64,
    end: u64,
    /// How many items lie before the next piece.
    before: u64,
    slices: Vec<Slice>,
    strip: Vec<usize>,
}

impl Cutter<'_> {
    /// Cuts the next piece, of so many items. `None` if a chunk that is needed has gone.
    fn cut(&mut self, interval: Interval, rows: u64, level: Option<usize>) -> Option<()> {
        let behind = self.before + rows;
        if self.start == self.end || behind <= self.start || self.end <= self.before {
            self.before = behind;
            return Some(());
        }
        let Some(level) = level else { return self.cut_closely(interval) };
        for RangeSegment { interval, tally } in self.copies.open(interval, level, self.rules) {
            match tally {
                Some((tally, level)) => self.cut(interval, tally.rows, Some(level))?,
                None => self.cut_closely(interval)?,
            }
        }
        Some(())
    }

    fn cut_closely(&mut self, interval: Interval) -> Option<()> {
        for (part, seen) in self.copies.see(interval, self.rules)? {
            let rows = seen.rows(part)? as u64;
            let wanted = self.start.max(self.before)..self.end.min(self.before + rows);
            if wanted.start < wanted.end {
                let (chunk, first) = Self::open(self.memory, seen, part)?;
                let row = |item: u64| usize::try_from(item - self.before).ok().map(|row| first + row);
                let rows = row(wanted.start)?..row(wanted.end)?;
                if seen.strip {
                    self.strip.push(self.slices.len());
                }
                self.slices.push(Slice { chunk, rows });
            }
            self.before += rows;
        }
        Some(())
    }

    /// The chunk, which counts as used, and its first row in `part`.
    fn open(memory: &Memory, seen: UsableEntry<'_>, part: Interval) -> Option<(Arc<Chunk>, usize)> {
        let chunk = seen.copy.use_chunk(memory)?;
        let first = chunk.rows_within(part).start;
        Some((chunk, first))
    }
}

#[cfg(test)]
mod tests;
