//! Answers what the shelf can answer as it is, at the cost of what is sent.
//!
//! Of a page far into a long window, only the chunks that it is cut from are opened. Of all others it must be known that
//! they are not due, and how many items they hold, which the shelf's tallies tell; whether memory still has them does not
//! matter. Wherever something is missing, too old or in doubt, there is no such answer, and the window is put together
//! from each of its chunks.

use std::sync::Arc;

use super::chunk::{Chunk, Damaged, Slice};
use super::copies::{Copies, Rules, Seen};
use super::excerpt::Excerpted;
use super::fetch::Fetcher;
use super::look::Change;
use super::memory::Memory;
use super::parts::{Part, twice};
use super::tally::{Stretch, Tally};
use super::{Outcome, WindowAnswer, WindowQuery};
use crate::window::Span;

/// The answer, but for what must still be done to its items.
pub(super) struct Glance {
    answer: WindowAnswer,
    /// Which of its slices are of chunks whose items have a member too many.
    strip: Vec<usize>,
}

impl Glance {
    /// What is wanted, if nothing need be asked or waited for.
    pub(super) fn at(fetcher: &Fetcher, query: &WindowQuery) -> Option<Self> {
        let WindowQuery { series, span, asked_at, .. } = query;
        if span.is_empty() || fetcher.fields.is_wrong(series) {
            return None;
        }
        let shelf = fetcher.shelves.find(series)?;
        let cell = fetcher.grid.cell(span.start).length();
        let rules = Rules { ladder: &fetcher.ladder, rich: series.rich, asked_at: *asked_at, cell };
        look(&mut shelf.lock().copies, &fetcher.memory, rules, query)
    }

    /// Whether there is nothing to be done to its items.
    pub(super) fn is_ready(&self) -> bool {
        self.strip.is_empty()
    }

    /// The answer, which is ready.
    pub(super) fn answer(self) -> WindowAnswer {
        self.answer
    }

    /// Makes it ready.
    pub(super) async fn stripped(mut self) -> Result<WindowAnswer, Damaged> {
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
    let change = Change { strip: true, filter: None };
    chunk.derive(|item| change.apply(item)).map(Arc::new)
}

fn look(copies: &mut Copies, memory: &Memory, rules: Rules<'_>, query: &WindowQuery) -> Option<Glance> {
    let mut window = Vec::new();
    let mut sum = Tally::NOTHING;
    let mut closely = Closely::default();
    for Stretch { span, tally } in copies.cut(query.span, rules) {
        let (tally, level) = match tally {
            Some((tally, level)) => (tally, Some(level)),
            None => (look_closely(copies, memory, rules, span, &mut closely)?, None),
        };
        window.push((span, tally.rows, level));
        sum = sum.plus(tally);
    }
    if !twice(&closely.may_move).is_empty() {
        return None;
    }
    let (start, end) = query.excerpt.bounds(sum.rows);
    let mut cutter = Cutter { copies, memory, rules, start, end, before: 0, slices: Vec::new(), strip: Vec::new() };
    for (span, rows, level) in window {
        cutter.cut(span, rows, level)?;
    }
    let Cutter { slices, strip, .. } = cutter;
    let lasts = strip.is_empty() && !closely.may_change;
    let answer = WindowAnswer {
        items: Excerpted { slices, count: end - start, has_more: end < sum.rows },
        rest: None,
        settled: query.span.end <= rules.ladder.settled_before(query.asked_at),
        lasting: lasts.then(|| copies.none_lost_since_now()),
        oldest_copy: Some(sum.oldest),
        outcome: Outcome::Hit,
        chunks: sum.chunks,
        hits: sum.chunks,
        calls: 0,
    };
    Some(Glance { answer, strip })
}

/// What a close look has found, beside the tally.
#[derive(Default)]
struct Closely {
    /// What may still move out of where it lies.
    may_move: Vec<Part>,
    /// Whether time alone will change something.
    may_change: bool,
}

/// The tally of a stretch that has none because time changes it, or because it is too short.
fn look_closely(
    copies: &Copies,
    memory: &Memory,
    rules: Rules<'_>,
    span: Span,
    closely: &mut Closely,
) -> Option<Tally> {
    let mut sum = Tally::NOTHING;
    for (part, seen) in copies.see(span, rules)? {
        let fetched_at = seen.copy.fetched_at;
        sum = sum.plus(Tally { rows: seen.rows(part)? as u64, chunks: 1, oldest: fetched_at });
        closely.may_change |= !seen.stays(part, rules);
        if seen.may_move() {
            let chunk = seen.copy.peek(memory)?;
            let slice = Slice { rows: chunk.rows_within(part), chunk };
            closely.may_move.push(Part { span: part, slice, fetched_at, copy: true, derived: false });
        }
    }
    Some(sum)
}

/// Cuts an excerpt out of a window, one piece of the window after the other.
struct Cutter<'a> {
    copies: &'a mut Copies,
    memory: &'a Memory,
    rules: Rules<'a>,
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
    fn cut(&mut self, span: Span, rows: u64, level: Option<usize>) -> Option<()> {
        let behind = self.before + rows;
        if self.start == self.end || behind <= self.start || self.end <= self.before {
            self.before = behind;
            return Some(());
        }
        let Some(level) = level else { return self.cut_closely(span) };
        for Stretch { span, tally } in self.copies.open(span, level, self.rules) {
            match tally {
                Some((tally, level)) => self.cut(span, tally.rows, Some(level))?,
                None => self.cut_closely(span)?,
            }
        }
        Some(())
    }

    fn cut_closely(&mut self, span: Span) -> Option<()> {
        for (part, seen) in self.copies.see(span, self.rules)? {
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
    fn open(memory: &Memory, seen: Seen<'_>, part: Span) -> Option<(Arc<Chunk>, usize)> {
        let chunk = seen.copy.use_chunk(memory)?;
        let first = chunk.rows_within(part).start;
        Some((chunk, first))
    }
}

#[cfg(test)]
mod tests;
