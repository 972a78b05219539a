//! From what many want to the runs that are fetched for it. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use super::seat::Seat;
use super::shelf::Want;
use crate::upstream::{Asker, Class};
use crate::window::{Span, SpanSet};

/// Why a run is fetched.
#[derive(Debug)]
pub(super) struct Cause {
    /// Who is charged for it.
    pub(super) asker: Asker,
    /// Those who wait for it, and what each needs of it.
    pub(super) seats: Vec<(Arc<Seat>, Span)>,
}

/// The runs that bring all that is wanted: adjacent spans as one, but what is urgent apart from what is not. Each is a
/// span, whether it is fetched rich, and why. What nobody wants any more is left out.
///
/// `by_caller`: callers compete for the quota, and each is to have runs of its own. Were neighbours one run, whoever asks
/// for less would be served with whoever asks for more, at the expense of one of them, and again each time that they get
/// their answers together. What they have in common is fetched for the first of them.
pub(super) fn gathered(wants: &[Want], by_caller: bool) -> Vec<(Span, bool, Cause)> {
    let wants: Vec<(Arc<Seat>, &Want)> = wants.iter().filter_map(|want| Some((want.seat.upgrade()?, want))).collect();
    let mut parties: Vec<Option<&str>> = Vec::new();
    for (seat, _) in &wants {
        let party = by_caller.then_some(&*seat.asker.caller);
        if !parties.contains(&party) {
            parties.push(party);
        }
    }
    let mut runs: Vec<(Span, bool, Option<&str>)> = Vec::new();
    for class in [Class::Interactive, Class::Refresh, Class::Background] {
        // First what is rich: it serves those who want none as well.
        for rich in [true, false] {
            for party in &parties {
                let of_this = wants
                    .iter()
                    .filter(|(seat, want)| (seat.asker.class, want.rich) == (class, rich) && belongs(seat, *party));
                let mut left: SpanSet = of_this.flat_map(|(_, want)| want.spans.spans().iter().copied()).collect();
                runs.iter().filter(|(_, taken, _)| *taken || !rich).for_each(|(span, ..)| left.remove(*span));
                runs.extend(left.spans().iter().map(|span| (*span, rich, *party)));
            }
        }
    }
    runs.into_iter().filter_map(|(span, rich, party)| Some((span, rich, cause(&wants, span, rich, party)?))).collect()
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
    let seats = served.map(|(seat, _, need)| (seat.clone(), need)).collect();
    Some(Cause { asker: cause.asker.clone(), seats })
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
        }
    }

    /// Each run with its cause and how many wait.
    fn told(wants: &[Want]) -> Vec<(Span, bool, String, usize)> {
        told_of(gathered(wants, false))
    }

    fn told_of(runs: Vec<(Span, bool, Cause)>) -> Vec<(Span, bool, String, usize)> {
        let runs = runs.into_iter();
        runs.map(|(span, rich, cause)| (span, rich, cause.asker.caller.to_string(), cause.seats.len())).collect()
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
        assert_eq!(told_of(gathered(&wants, true)), runs);
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
}
