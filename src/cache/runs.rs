//! From what many want to the runs that are fetched for it. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use super::seat::Seat;
use super::shelf::Want;
use crate::upstream::{Asker, Class};
use crate::window::{PlannedRun, Span, SpanSet};

/// A run that brings something of what was gathered.
#[derive(Debug)]
pub(super) struct GatheredRun {
    pub(super) plan: PlannedRun,
    pub(super) rich: bool,
    pub(super) cause: Cause,
}

/// Why a run is fetched.
#[derive(Debug)]
pub(super) struct Cause {
    /// Who is charged for it.
    pub(super) asker: Asker,
    /// Those who wait for it.
    pub(super) seats: Vec<Arc<Seat>>,
    /// When it begins.
    pub(super) begins: Begins,
}

/// When a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// At once: it brings what somebody needs next.
    Now,
    /// If a call can be had at once, beside others of the same window.
    IfSpare,
    /// When somebody needs it next.
    Later,
}

/// The runs that bring all that is wanted: adjacent spans together, but what is urgent apart from what is not, and each
/// divided as `divide` says, which is told whether the beginning of a span is to be sent early. What nobody wants any more
/// is left out.
///
/// `by_caller`: callers compete for the quota, and each is to have runs of its own. Were neighbours one run, whoever asks
/// for less would be served with whoever asks for more, at the expense of one of them, and again each time that they get
/// their answers together. What they have in common is fetched for the first of them.
pub(super) fn gathered(
    wants: &[Want],
    by_caller: bool,
    mut divide: impl FnMut(Span, bool) -> Vec<PlannedRun>,
) -> Vec<GatheredRun> {
    let wants: Vec<(Arc<Seat>, &Want)> = wants.iter().filter_map(|want| Some((want.seat.upgrade()?, want))).collect();
    let mut parties: Vec<Option<&str>> = Vec::new();
    for (seat, _) in &wants {
        let party = by_caller.then_some(&*seat.asker.caller);
        if !parties.contains(&party) {
            parties.push(party);
        }
    }
    let mut spans: Vec<(Span, bool, Option<&str>)> = Vec::new();
    for class in [Class::Interactive, Class::Refresh, Class::Background] {
        // First what is rich: it serves those who want none as well.
        for rich in [true, false] {
            for party in &parties {
                let of_this = wants
                    .iter()
                    .filter(|(seat, want)| (seat.asker.class, want.rich) == (class, rich) && belongs(seat, *party));
                let mut left: SpanSet = of_this.flat_map(|(_, want)| want.spans.spans().iter().copied()).collect();
                spans.iter().filter(|(_, taken, _)| *taken || !rich).for_each(|(span, ..)| left.remove(*span));
                spans.extend(left.spans().iter().map(|span| (*span, rich, *party)));
            }
        }
    }
    let mut runs = Vec::new();
    for (span, rich, party) in spans {
        let early = wants.iter().any(|(_, want)| want.lead.is_some_and(|lead| lead.early && span.contains(lead.at)));
        let with_cause = |plan: PlannedRun| {
            let cause = cause(&wants, plan.span, rich, party)?;
            Some(GatheredRun { plan, rich, cause })
        };
        runs.extend(divide(span, early).into_iter().filter_map(with_cause));
    }
    runs
}

fn belongs(seat: &Seat, party: Option<&str>) -> bool {
    party.is_none_or(|caller| *seat.asker.caller == *caller)
}

/// Those who wait for a run; of the most urgent of its party, the one who needs most of it is its cause.
fn cause(wants: &[(Arc<Seat>, &Want)], span: Span, rich: bool, party: Option<&str>) -> Option<Cause> {
    let served = wants.iter().filter(|(_, want)| rich || !want.rich);
    let served = served.filter_map(|(seat, want)| Some((seat, want.rich, need(&want.spans, span)?)));
    let (cause, ..) = served.clone().min_by_key(|(seat, asked_rich, need)| {
        // What is rich is there because somebody asked for it.
        (!belongs(seat, party), seat.asker.class, *asked_rich != rich, Reverse(need.length()))
    })?;
    let seats = served.map(|(seat, ..)| seat.clone()).collect();
    let wants = || wants.iter().map(|(_, want)| want).filter(|want| need(&want.spans, span).is_some());
    let begins = if wants().any(|want| want.lead.is_some_and(|lead| span.contains(lead.at))) {
        Begins::Now
    } else if wants().any(|want| want.further) {
        Begins::IfSpare
    } else {
        Begins::Later
    };
    Some(Cause { asker: cause.asker.clone(), seats, begins })
}

/// From the first to the last moment of `span` that is among `wanted`.
pub(super) fn need(wanted: &SpanSet, span: Span) -> Option<Span> {
    let parts = wanted.spans().iter().map(|wanted| wanted.intersection(span)).filter(|part| !part.is_empty());
    parts.reduce(|one, next| Span::new(one.start, next.end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::shelf::Lead;
    use crate::upstream::Patience;
    use crate::window::Moment;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Moment::from_seconds(start), Moment::from_seconds(end))
    }

    fn seat(caller: &str, class: Class) -> Arc<Seat> {
        Seat::new(Asker { caller: caller.into(), weight: 1, class }, Arc::new(Patience::new(Duration::ZERO)))
    }

    fn want(seat: &Arc<Seat>, start: i64, end: i64, rich: bool) -> Want {
        Want {
            spans: span(start, end).into(),
            rich,
            seat: Arc::downgrade(seat),
            fresh_since: Moment::MIN,
            looked_up: false,
            lead: Some(Lead { at: span(start, end).start, early: false }),
            further: false,
        }
    }

    fn undivided(span: Span, _: bool) -> Vec<PlannedRun> {
        vec![PlannedRun { span, items: None }]
    }

    /// Each run with its cause and how many wait.
    fn told(wants: &[Want]) -> Vec<(Span, bool, String, usize)> {
        told_of(gathered(wants, false, undivided))
    }

    fn told_of(runs: Vec<GatheredRun>) -> Vec<(Span, bool, String, usize)> {
        let told = |GatheredRun { plan, rich, cause }| {
            let Cause { asker, seats, .. } = cause;
            (plan.span, rich, asker.caller.to_string(), seats.len())
        };
        runs.into_iter().map(told).collect()
    }

    #[test]
    fn neighbours_are_one_run_charged_to_who_needs_most() {
        let (a, b) = (seat("a", Class::Interactive), seat("b", Class::Interactive));
        let wants = [want(&a, 0, 10, false), want(&b, 10, 40, false)];
        assert_eq!(told(&wants), [(span(0, 40), false, "b".to_owned(), 2)]);
        drop(b);
        assert_eq!(told(&wants), [(span(0, 10), false, "a".to_owned(), 1)], "nobody wants the rest any more");
    }

    #[test]
    fn callers_that_compete_have_runs_of_their_own() {
        let (a, b) = (seat("a", Class::Interactive), seat("b", Class::Interactive));
        let wants = [want(&a, 0, 10, false), want(&b, 5, 40, false), want(&a, 40, 50, false), want(&a, 10, 12, false)];
        let runs = [(0, 12, "a", 3), (40, 50, "a", 1), (12, 40, "b", 1)];
        let runs = runs.map(|(start, end, who, wait)| (span(start, end), false, who.to_owned(), wait));
        assert_eq!(told_of(gathered(&wants, true, undivided)), runs);
    }

    #[test]
    fn what_is_urgent_does_not_wait_for_what_is_not() {
        let (urgent, backfill) = (seat("a", Class::Interactive), seat("b", Class::Background));
        let wants = [want(&backfill, 0, 100, false), want(&urgent, 40, 50, false)];
        let runs = [(40, 50, "a", 2), (0, 40, "b", 1), (50, 100, "b", 1)];
        assert_eq!(told(&wants), runs.map(|(start, end, who, wait)| (span(start, end), false, who.to_owned(), wait)));
    }

    #[test]
    fn what_is_rich_serves_those_who_want_none() {
        let (a, b) = (seat("a", Class::Interactive), seat("b", Class::Interactive));
        let wants = [want(&a, 0, 30, false), want(&b, 10, 20, true)];
        let runs = told(&wants);
        assert_eq!(runs[0], (span(10, 20), true, "b".to_owned(), 2));
        assert_eq!(
            runs[1..].iter().map(|run| (run.0, run.1)).collect::<Vec<_>>(),
            [(span(0, 10), false), (span(20, 30), false)]
        );
    }

    #[test]
    fn divided_span_begins_with_what_somebody_needs_next() {
        let (long, short) = (seat("a", Class::Interactive), seat("b", Class::Interactive));
        let mut wants = [want(&long, 0, 100, false), want(&short, 70, 80, false)];
        let tens = |span: Span, early: bool| {
            assert!(!early);
            let ten = |n: i64| PlannedRun { span: self::span(10 * n, 10 * n + 10), items: Some(1.0) };
            (span.start.as_seconds() / 10..span.end.as_seconds() / 10).map(ten).collect::<Vec<_>>()
        };
        let begins = |wants: &[Want]| -> Vec<i64> {
            let now = |run: &GatheredRun| run.cause.begins == Begins::Now;
            let runs = gathered(wants, false, tens);
            assert_eq!(runs.len(), 10);
            runs.iter().filter(|run| now(run)).map(|run| run.plan.span.start.as_seconds()).collect()
        };
        assert_eq!(begins(&wants), [0, 70]);
        wants[0].lead = None;
        wants[0].further = true;
        assert_eq!(begins(&wants), [70]);
        let spare = gathered(&wants, false, tens).into_iter().filter(|run| run.cause.begins == Begins::IfSpare).count();
        assert_eq!(spare, 9);
    }
}
