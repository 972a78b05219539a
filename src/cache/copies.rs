//! Which copies cover which time, and what is known of long stretches of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::chunk::Chunk;
use super::losses::{Lasting, Losses};
use super::memory::{ChunkId, Memory};
use super::tally::{Stretch, Tallies, Tally};
use crate::window::{Copied, Coverage, Ladder, Moment, Plan, Span};

/// A chunk that has been kept, and may have gone since.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) id: ChunkId,
    /// The whole span of the chunk; the copy may cover only a part of it.
    pub(super) chunk: Span,
    pub(super) fetched_at: Moment,
    /// See [`Chunk::with_epoch`].
    pub(super) epoch: u64,
    /// How many items the chunk holds.
    rows: usize,
    /// Whether they may still move out of it.
    may_move: bool,
    /// The chunk itself, for a look that is no use of it: memory tells no look from a use.
    kept: Weak<Chunk>,
}

impl Copy {
    /// Puts a chunk into memory.
    pub(super) fn keep(chunk: &Arc<Chunk>, memory: &Memory) -> Self {
        let rows = chunk.len();
        Self {
            id: memory.keep(chunk.clone()),
            chunk: chunk.span(),
            fetched_at: chunk.fetched_at(),
            epoch: chunk.epoch(),
            rows,
            may_move: !chunk.names(0..rows).is_empty(),
            kept: Arc::downgrade(chunk),
        }
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

/// The copies of a series. Whatever changes them goes through here, so that no tally outlives what it tells of.
#[derive(Debug, Default)]
pub(super) struct Copies {
    lie: ByRichness<Coverage<Copy>>,
    /// Of windows without the member and with it. The former are made of copies of both kinds.
    tallies: ByRichness<Tallies>,
    losses: Losses,
}

/// A copy that serves a part of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) copy: &'a Copy,
    /// Whether the member must be cut out of its items.
    pub(super) strip: bool,
}

impl Seen<'_> {
    /// How many of its items lie in `part` of it. `None` if that takes the chunk, and it has gone.
    pub(super) fn rows(&self, part: Span) -> Option<usize> {
        let Copy { chunk, rows, kept, .. } = self.copy;
        if part == *chunk { Some(*rows) } else { Some(kept.upgrade()?.rows_within(part).len()) }
    }

    /// Whether they may still move out of it.
    pub(super) fn may_move(&self) -> bool {
        self.copy.may_move
    }

    /// Whether time alone does not change what it serves `part` with.
    pub(super) fn stays(&self, part: Span, rules: Rules<'_>) -> bool {
        !self.may_move() && part.end <= rules.ladder.settled_before(self.copy.fetched_at)
    }
}

/// By which rules copies are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) ladder: &'a Ladder,
    pub(super) rich: bool,
    /// When the window was asked for.
    pub(super) asked_at: Moment,
    /// The width of the grid's cells.
    pub(super) cell: Duration,
}

impl Copies {
    /// Those of one kind.
    pub(super) fn of(&self, rich: bool) -> &Coverage<Copy> {
        if rich { &self.lie.rich } else { &self.lie.plain }
    }

    /// Of both kinds, each with the span that it covers.
    pub(super) fn all(&self) -> impl Iterator<Item = (Span, &Copy)> {
        self.lie.plain.within(Span::EVER).chain(self.lie.rich.within(Span::EVER))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lie.plain.is_empty() && self.lie.rich.is_empty()
    }

    /// Covers `span`, in place of whatever of this kind covered it before.
    pub(super) fn insert(&mut self, rich: bool, span: Span, copy: Copy) {
        // What may still move serves no answer that lasts. Those of the other kind may have served for this one.
        let replaces = |lie: &Coverage<Copy>| lie.within(span).any(|(_, old)| !old.may_move);
        if replaces(&self.lie.plain) || replaces(&self.lie.rich) {
            self.losses.add();
        }
        self.lie.of(rich).insert(span, copy);
        self.forget(span);
    }

    /// Uncovers `span`.
    pub(super) fn remove(&mut self, span: Span) {
        self.losses.add();
        self.lie.plain.remove(span);
        self.lie.rich.remove(span);
        self.forget(span);
    }

    /// Keeps only those that `keep` wants.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Copy) -> bool) {
        let count = |lie: &ByRichness<Coverage<Copy>>| lie.plain.len() + lie.rich.len();
        let before = count(&self.lie);
        self.lie.plain.retain(|_, copy| keep(copy));
        self.lie.rich.retain(|_, copy| keep(copy));
        if count(&self.lie) != before {
            self.losses.add();
            self.tallies.plain.clear();
            self.tallies.rich.clear();
        }
    }

    /// Holds until something is taken away, or replaced, that time alone would not have changed.
    pub(super) fn none_lost_since_now(&self) -> Lasting {
        self.losses.none_since_now()
    }

    fn forget(&mut self, span: Span) {
        self.tallies.plain.forget(span);
        self.tallies.rich.forget(span);
    }

    /// What serves `span`, ascending; `None` if something of it is missing, or too old. As [`Plan`] finds it, but
    /// without asking whether the chunks are still in memory.
    pub(super) fn see(&self, span: Span, rules: Rules<'_>) -> Option<Vec<(Span, Seen<'_>)>> {
        see(&self.lie, span, rules)
    }

    /// Cuts `window` into stretches of which the number of items is known, and others.
    pub(super) fn cut(&mut self, window: Span, rules: Rules<'_>) -> Vec<Stretch> {
        let Self { lie, tallies, .. } = self;
        tallies.of(rules.rich).cut(window, rules.cell, &mut |span| tally(lie, span, rules))
    }

    /// The same for a known stretch that is to be seen in more detail.
    pub(super) fn open(&mut self, span: Span, level: usize, rules: Rules<'_>) -> Vec<Stretch> {
        let Self { lie, tallies, .. } = self;
        tallies.of(rules.rich).open(span, level, &mut |span| tally(lie, span, rules))
    }
}

fn see<'a>(lie: &'a ByRichness<Coverage<Copy>>, span: Span, rules: Rules<'_>) -> Option<Vec<(Span, Seen<'a>)>> {
    let Rules { ladder, rich, asked_at, .. } = rules;
    // As a rule, one kind serves all of it.
    if let Some(seen) = see_whole(if rich { &lie.rich } else { &lie.plain }, span, rules) {
        return Some(seen);
    }
    let mut plan = Plan::new(span);
    if !rich {
        plan.take(&lie.plain, ladder, asked_at, asked_at, |copy| Some(Seen { copy, strip: false }));
    }
    plan.take(&lie.rich, ladder, asked_at, asked_at, |copy| Some(Seen { copy, strip: !rich }));
    plan.hits.sort_unstable_by_key(|(span, _)| span.start);
    plan.missing.is_empty().then_some(plan.hits)
}

/// What serves `span`, if these copies are enough, and none of them is due.
fn see_whole<'a>(lie: &'a Coverage<Copy>, span: Span, rules: Rules<'_>) -> Option<Vec<(Span, Seen<'a>)>> {
    let mut seen = Vec::new();
    let mut end = span.start;
    for (part, copy) in lie.within(span) {
        let fetched_at = copy.fetched_at;
        let is_due = || rules.ladder.due(part, fetched_at, rules.asked_at).next().is_some();
        if part.start != end || (fetched_at < rules.asked_at && is_due()) {
            return None;
        }
        end = part.end;
        seen.push((part, Seen { copy, strip: false }));
    }
    (end == span.end).then_some(seen)
}

/// The tally of `span`, if time alone does not change what serves it.
fn tally(lie: &ByRichness<Coverage<Copy>>, span: Span, rules: Rules<'_>) -> Option<Tally> {
    see(lie, span, rules)?.into_iter().try_fold(Tally::NOTHING, |tally, (part, seen)| {
        let rows = seen.rows(part).filter(|_| seen.stays(part, rules))?;
        Some(tally.plus(Tally { rows: rows as u64, chunks: 1, oldest: seen.copy.fetched_at }))
    })
}
