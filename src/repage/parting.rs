//! When a run is parted: somebody waits for a small part of a long one. Pure.
//!
//! A run is fetched by one walk, because that costs the least calls. But while the quota holds it up, whoever needs one
//! day of a year would wait for the year. So between two pages the walk looks at what those who wait need of it. It can
//! be cut at any place without losing what it has seen: what was counted in front of the cut stays counted, and the
//! pages to come ask for what is in front of it only. Each cut costs a call at the most.

use std::time::Duration;

use super::walk::Order;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Moment, Span};

/// A cut costs about a call, so it must spare so many pages of waiting to be worth it.
const WORTH_A_CUT: f64 = 12.0;
/// For somebody more urgent than the run itself, fewer will do.
const WORTH_A_CUT_TO_THE_URGENT: f64 = 5.0;
/// Where the pages come quickly, there is nothing to spare.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a walk has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// What it walks.
    pub(super) span: Span,
    /// In which order.
    pub(super) order: Order,
    /// Where the last item lies that it has seen.
    pub(super) at: Moment,
    /// How many items it has seen.
    pub(super) seen: usize,
    /// How long its last call waited for the quota.
    pub(super) last_wait: Duration,
    /// How long its last page took, with that wait.
    pub(super) last_page: Duration,
}

/// What somebody needs of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) span: Span,
    /// Whether that is more urgent than the run itself would be.
    pub(super) urgent: bool,
}

/// What to do about those who need only a part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// What they need has been seen: prove it, and hand it over.
    HandOver,
    /// Go on with `kept` only. The rest is for other runs: `wanted` first.
    GiveUp {
        /// What the walk goes on with.
        kept: Span,
        /// What somebody needs of the rest; empty if what is needed is kept.
        wanted: Span,
    },
}

impl Position {
    /// The side of the walk that lies ahead of it. The second of the last item may hold more of them, so it is ahead.
    fn ahead(&self) -> Option<Span> {
        let second = self.at.floor_second();
        match self.order {
            Order::Ascending => Some(self.span.split_at(second).1),
            Order::Descending => Some(self.span.split_at(second + Duration::from_secs(1)).0),
            Order::Unknown | Order::Other => None,
        }
    }

    /// Whether the walk should be parted for one of `needs`; for one that has been seen only if it may be handed over.
    pub(super) fn part(&self, needs: &[Need], may_hand_over: bool) -> Option<Parting> {
        let ahead = self.ahead()?;
        let walked = self.span.length().saturating_sub(ahead.length());
        if walked.is_zero() {
            return None;
        }
        // As dense as it was so far, it will be.
        let pages_in = |length: Duration| {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let pages = self.seen as f64 / f64::from(PAGE_LIMIT);
            pages * length.as_secs_f64() / walked.as_secs_f64()
        };
        let spared = |need: Span, urgent: bool| {
            let pages = pages_in(ahead.length().saturating_sub(need.intersection(ahead).length()));
            // Among equals only the quota counts: a slow upstream is slow for all, and least calls are worth the wait.
            let (worth, page) = if urgent {
                (WORTH_A_CUT_TO_THE_URGENT, self.last_page.max(self.last_wait))
            } else {
                (WORTH_A_CUT, self.last_wait)
            };
            (pages >= worth && page.as_secs_f64() * pages >= PATIENCE.as_secs_f64()).then_some(pages)
        };
        // Who has most to gain; a need that is no longer in this walk is somebody else's.
        let needs = needs.iter().map(|need| (whole_seconds(need.span.intersection(self.span)), need.urgent));
        let needs = needs.filter(|(need, _)| !need.is_empty() && (may_hand_over || need.overlaps(ahead)));
        let gains = needs.filter_map(|(need, urgent)| Some((spared(need, urgent)?, need)));
        let (_, need) = gains.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        Some(self.part_for(need, ahead))
    }

    fn part_for(&self, need: Span, ahead: Span) -> Parting {
        let wanted = need.intersection(ahead);
        if wanted.is_empty() {
            return Parting::HandOver;
        }
        let ascending = self.order == Order::Ascending;
        let next_to_walk = if ascending { wanted.start == ahead.start } else { wanted.end == ahead.end };
        match (next_to_walk, ascending) {
            // The walk is in the middle of it: it goes on to its end.
            (true, true) => Parting::GiveUp { kept: self.span.split_at(wanted.end).0, wanted: Span::default() },
            (true, false) => Parting::GiveUp { kept: self.span.split_at(wanted.start).1, wanted: Span::default() },
            // It lies further on: the walk goes on to where it begins.
            (false, true) => Parting::GiveUp { kept: self.span.split_at(wanted.start).0, wanted },
            (false, false) => Parting::GiveUp { kept: self.span.split_at(wanted.end).1, wanted },
        }
    }
}

/// Queries begin on whole seconds.
fn whole_seconds(span: Span) -> Span {
    let end = span.end.floor_second();
    let end = if end < span.end { end + Duration::from_secs(1) } else { end };
    Span::new(span.start.floor_second(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn days(start: i64, end: i64) -> Span {
        Span::new(Moment::from_seconds(start * DAY), Moment::from_seconds(end * DAY))
    }

    /// A walk over 100 days of ten pages each, which has come to day `at`.
    fn at(day: i64, order: Order) -> Position {
        let walked = if order == Order::Ascending { day } else { 100 - day };
        Position {
            span: days(0, 100),
            order,
            at: Moment::from_seconds(day * DAY),
            seen: usize::try_from(walked * 1000).unwrap(),
            last_wait: Duration::from_secs(1),
            last_page: Duration::from_secs(1),
        }
    }

    fn needs<const N: usize>(spans: [Span; N]) -> [Need; N] {
        spans.map(|span| Need { span, urgent: false })
    }

    #[test]
    fn what_lies_further_on_is_left_to_another_run() {
        let wanted = days(60, 61);
        let kept = Some(Parting::GiveUp { kept: days(0, 60), wanted });
        assert_eq!(at(10, Order::Ascending).part(&needs([days(0, 100), wanted]), true), kept);
        let kept = Some(Parting::GiveUp { kept: days(61, 100), wanted });
        assert_eq!(at(90, Order::Descending).part(&needs([wanted]), true), kept);
    }

    #[test]
    fn a_walk_in_the_middle_of_what_is_wanted_goes_on_to_its_end() {
        let kept = |kept| Some(Parting::GiveUp { kept, wanted: Span::default() });
        assert_eq!(at(10, Order::Ascending).part(&needs([days(5, 15)]), true), kept(days(0, 15)));
        assert_eq!(at(90, Order::Descending).part(&needs([days(85, 95)]), true), kept(days(85, 100)));
    }

    #[test]
    fn what_has_been_walked_is_handed_over() {
        assert_eq!(at(10, Order::Ascending).part(&needs([days(2, 3)]), true), Some(Parting::HandOver));
        assert_eq!(at(90, Order::Descending).part(&needs([days(95, 96)]), true), Some(Parting::HandOver));
        assert_eq!(at(10, Order::Ascending).part(&needs([days(2, 3)]), false), None, "no proof");
    }

    #[test]
    fn what_spares_little_is_not_worth_a_cut() {
        assert_eq!(at(10, Order::Ascending).part(&needs([days(0, 100)]), true), None, "all of it is needed");
        assert_eq!(at(99, Order::Ascending).part(&needs([days(2, 3)]), true), None, "it has nearly ended");
        assert_eq!(at(10, Order::Other).part(&needs([days(2, 3)]), true), None, "nobody knows what lies ahead");
        let quick = Position { last_wait: Duration::from_millis(1), ..at(10, Order::Ascending) };
        assert_eq!(quick.part(&needs([days(2, 3)]), true), None, "the quota does not hold it up");
        assert_eq!(at(10, Order::Ascending).part(&needs([days(200, 201)]), true), None, "it is in another run by now");
    }

    #[test]
    fn for_somebody_urgent_a_slow_upstream_counts_too() {
        let slow = Position { last_wait: Duration::ZERO, ..at(99, Order::Ascending) };
        let need = |urgent| [Need { span: days(2, 3), urgent }];
        assert_eq!(slow.part(&need(false), true), None);
        assert_eq!(slow.part(&need(true), true), Some(Parting::HandOver));
    }
}
