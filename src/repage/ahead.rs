//! How far a walk may read ahead of itself. Pure.
//!
//! The upstream tells no total. So how many rows there are is estimated from where in time those lie that have come, also
//! on pages that the walk has not got to yet. A page beyond the last one is a call for nothing, and so is the last one if
//! it is asked for too early (`read_ahead.rs` says why); so the estimate is a cautious one, and the nearer the end comes,
//! the nearer to it lie the pages that it rests on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::upstream::PAGE_LIMIT;
use crate::window::{Moment, Span};

/// What lies further back than this says little of what is to come. A week has each day of the week in it.
const LOOKED_BACK: Duration = Duration::from_hours(7 * 24);
/// Where a stream is so dense that its last pages lie close together, no more of them are looked at.
const PAGES_LOOKED_BACK: usize = 512;
/// So long ago is now, when it is asked whether there is more to do now than as a rule.
const LATELY: Duration = Duration::from_hours(12);
/// What is much more than usual now may soon be over.
const MOST_ABOVE_USUAL: f64 = 1.2;
/// An hour of the day that was not seen yet is taken for so much of the mean: it may be night. So much less if no whole day
/// lies ahead, for then it is near the end. The next one is not, if only some hours were seen: what has just come goes on
/// for a while.
const UNSEEN_HOUR: f64 = 0.5;
const UNSEEN_LAST_HOUR: f64 = 0.1;
const NEXT: Duration = Duration::from_hours(1);
/// Off by this part may be what one page tells; what four tell, by half of it; but always by the least.
const DOUBT: f64 = 0.3;
const LEAST_DOUBT: f64 = 0.02;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// What is known of the rows of one query: where in time those lie that have come.
#[derive(Clone, Debug)]
pub(super) struct Course {
    /// Which time is asked for.
    span: Span,
    /// The times of the first and the last item of each full page that has come, by its offset.
    pages: BTreeMap<u64, (Moment, Moment)>,
    /// There are no more rows than this.
    at_most: u64,
    /// There are just so many.
    exactly: Option<u64>,
}

impl Course {
    /// Nothing has come yet.
    pub(super) fn new(span: Span) -> Self {
        Self { span, pages: BTreeMap::new(), at_most: u64::MAX, exactly: None }
    }

    /// A full page with more behind it; its first and its last item lie there.
    pub(super) fn came(&mut self, offset: u64, first: Moment, last: Moment) {
        self.pages.insert(offset, (first, last));
    }

    /// The page at this offset has so many items, and none follows.
    pub(super) fn ended(&mut self, offset: u64, items: usize) {
        self.at_most = self.at_most.min(offset + items as u64);
        if items > 0 {
            self.exactly = Some(offset + items as u64);
        }
    }

    /// From now on only a part of the span is asked for, which holds all that the walk has seen.
    pub(super) fn narrow(&mut self, span: Span) {
        (self.span, self.at_most, self.exactly) = (span, u64::MAX, None);
    }

    /// How many rows there are at the least, as far as can be told; nothing is told if the rows are in no plain order.
    pub(super) fn rows_at_least(&self) -> u64 {
        self.exactly.unwrap_or_else(|| self.estimate().unwrap_or_default().min(self.at_most))
    }

    fn estimate(&self) -> Option<u64> {
        let Seen { pieces, ahead, counted } = self.seen()?;
        let frontier = if pieces.last()?.0.end == ahead.start { ahead.start } else { ahead.end };
        let near = |within: Duration| Span::new(frontier - within, frontier + within);
        let (mut usual, mut lately) = (Hours::default(), Hours::default());
        for (span, items) in pieces {
            usual.add(span, items, near(LOOKED_BACK));
            lately.add(span, items, near(LATELY));
        }
        let next = ahead.intersection(near(NEXT));
        let (before, after) = (ahead.split_at(next.start).0, ahead.split_at(next.end).1);
        let of_unseen = if ahead.length().as_secs_f64() < DAY { UNSEEN_LAST_HOUR } else { UNSEEN_HOUR };
        let of_next = if usual.seconds.iter().sum::<f64>() < LATELY.as_secs_f64() { 1.0 } else { of_unseen };
        let further = usual.expected(if before.is_empty() { after } else { before }, of_unseen);
        let expected = usual.expected(next, of_next) + further;
        let expected = expected * usual.level_of(&lately).min(MOST_ABOVE_USUAL);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let doubt = (DOUBT / (self.pages.len() as f64).sqrt()).max(LEAST_DOUBT);
        let at_least = expected * (1.0 - doubt) - expected.sqrt();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
        let at_least = at_least as u64;
        Some(counted.saturating_add(at_least))
    }

    fn seen(&self) -> Option<Seen> {
        let looked_at = self.pages.iter().rev().take(PAGES_LOOKED_BACK);
        let mut steps: Vec<(Moment, u64)> = looked_at
            .flat_map(|(offset, (first, last))| [(*last, offset + u64::from(PAGE_LIMIT)), (*first, *offset)])
            .collect();
        let ((furthest, counted), (nearest, skipped)) = (*steps.first()?, *steps.last()?);
        let ascending = match nearest.cmp(&furthest) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => return None,
        };
        if skipped == 0 {
            // Nothing lies between the beginning and the first item, which tells something too.
            steps.push((if ascending { self.span.start.min(nearest) } else { self.span.end.max(nearest) }, 0));
        }
        steps.reverse();
        let between = |pair: &[(Moment, u64)]| {
            let ((from, before), (to, after)) = (pair[0], pair[1]);
            let span = if ascending { Span::new(from, to) } else { Span::new(to, from) };
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let items = after.saturating_sub(before) as f64;
            (span.start <= span.end).then_some((span, items))
        };
        let pieces = steps.windows(2).map(between).collect::<Option<_>>()?;
        let (before, after) = self.span.split_at(furthest);
        Some(Seen { pieces, ahead: if ascending { after } else { before }, counted })
    }
}

/// What was seen of a query's rows.
struct Seen {
    /// Spans that adjoin each other, the furthest last, and how many items lie in each. What lies between two pages is
    /// not known but for how many items it holds.
    pieces: Vec<(Span, f64)>,
    /// The span that lies ahead of them.
    ahead: Span,
    /// How many items there are up to it.
    counted: u64,
}

/// How much time was seen of each hour of the UTC day, and how many items in it: conversations follow working hours.
#[derive(Clone, Debug, Default)]
struct Hours {
    seconds: [f64; 24],
    items: [f64; 24],
}

impl Hours {
    /// So many items lie in this span, of which only what lies within another counts.
    fn add(&mut self, span: Span, items: f64, within: Span) {
        // All of them may share a moment.
        let span = Span::new(span.start, span.end.max(span.start.next_tick()));
        let per_second = items / span.length().as_secs_f64();
        for (hour, part) in span.intersection(within).by_hour() {
            let seconds = part.length().as_secs_f64();
            self.seconds[hour] += seconds;
            self.items[hour] += seconds * per_second;
        }
    }

    /// How many items a span will hold, if an hour that was not seen yet holds so much of the mean.
    fn expected(&self, span: Span, of_the_mean: f64) -> f64 {
        let mean = self.items.iter().sum::<f64>() / self.seconds.iter().sum::<f64>().max(1.0);
        let per_second = |hour: usize| {
            let unseen = (HOUR - self.seconds[hour]).max(0.0);
            (self.items[hour] + unseen * mean * of_the_mean) / (self.seconds[hour] + unseen)
        };
        let days = (span.length().as_secs_f64() / DAY).floor();
        let rest = Span::new(span.start + Duration::from_secs_f64(days * DAY), span.end);
        let of_a_day = (0..24).map(per_second).sum::<f64>() * HOUR;
        let of_the_rest = rest.by_hour().map(|(hour, part)| per_second(hour) * part.length().as_secs_f64());
        days * of_a_day + of_the_rest.sum::<f64>()
    }

    /// How many items there were lately for each that is usual in these hours: a day may have more or less than others.
    fn level_of(&self, lately: &Self) -> f64 {
        let usual = |hour: usize| match self.seconds[hour] {
            0.0 => 0.0,
            seen => lately.seconds[hour] * self.items[hour] / seen,
        };
        let usual = (0..24).map(usual).sum::<f64>();
        if usual > 0.0 { lately.items.iter().sum::<f64>() / usual } else { 1.0 }
    }
}

#[cfg(test)]
mod tests;
