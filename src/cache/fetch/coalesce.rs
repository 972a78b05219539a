//! From what many want to the runs that are fetched for it. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use super::waiter::Waiter;
use crate::cache::series::PendingRequest;
use crate::request::{Priority, Requester};
use crate::window::{Interval, IntervalSet, PlannedRun};

/// A run that brings something of what was gathered.
#[derive(Debug)]
pub(in crate::cache) struct BatchedRun {
    pub(in crate::cache) plan: PlannedRun,
    pub(in crate::cache) agentic: bool,
    pub(in crate::cache) cause: BatchOwner,
}

/// Why a run is fetched.
#[derive(Debug)]
pub(in crate::cache) struct BatchOwner {
    /// Who is charged for it.
    pub(in crate::cache) asker: Requester,
    /// Those who wait for it.
    pub(in crate::cache) seats: Vec<Arc<Waiter>>,
    /// When it begins.
    pub(in crate::cache) begins: StartPolicy,
}

/// When a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum StartPolicy {
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
pub(in crate::cache) fn coalesce(
    wants: &[PendingRequest],
    by_caller: bool,
    mut divide: impl FnMut(Interval, bool) -> Vec<PlannedRun>,
) -> Vec<BatchedRun> {
    let wants: Vec<(Arc<Waiter>, &PendingRequest)> =
        wants.iter().filter_map(|want| Some((want.waiter.upgrade()?, want))).collect();
    let mut parties: Vec<Option<&str>> = Vec::new();
    for (seat, _) in &wants {
        let party = by_caller.then_some(&*seat.asker.caller);
        if !parties.contains(&party) {
            parties.push(party);
        }
    }
    let mut intervals: Vec<(Interval, bool, Option<&str>)> = Vec::new();
    for class in [Priority::Interactive, Priority::Refresh, Priority::Background] {
        // First what is rich: it serves those who want none as well.
        for agentic in [true, false] {
            for party in &parties {
                let of_this = wants.iter().filter(|(seat, want)| {
                    (seat.asker.class, want.agentic) == (class, agentic) && belongs(seat, *party)
                });
                let mut left: IntervalSet =
                    of_this.flat_map(|(_, want)| want.intervals.intervals().iter().copied()).collect();
                intervals
                    .iter()
                    .filter(|(_, taken, _)| *taken || !agentic)
                    .for_each(|(interval, ..)| left.remove(*interval));
                intervals.extend(left.intervals().iter().map(|interval| (*interval, agentic, *party)));
            }
        }
    }
    let mut runs = Vec::new();
    for (interval, agentic, party) in intervals {
        let early =
            wants.iter().any(|(_, want)| want.next_need.is_some_and(|lead| lead.early && interval.contains(lead.at)));
        let with_cause = |plan: PlannedRun| {
            let cause = cause(&wants, plan.interval, agentic, party)?;
            Some(BatchedRun { plan, agentic, cause })
        };
        runs.extend(divide(interval, early).into_iter().filter_map(with_cause));
    }
    runs
}

fn belongs(seat: &Waiter, party: Option<&str>) -> bool {
    party.is_none_or(|caller| *seat.asker.caller == *caller)
}

/// Those who wait for a run; of the most urgent of its party, the one who needs most of it is its cause.
fn cause(
    wants: &[(Arc<Waiter>, &PendingRequest)],
    interval: Interval,
    agentic: bool,
    party: Option<&str>,
) -> Option<BatchOwner> {
    let served = wants.iter().filter(|(_, want)| agentic || !want.agentic);
    let served = served.filter_map(|(seat, want)| Some((seat, want.agentic, needed_part(&want.intervals, interval)?)));
    let (cause, ..) = served.clone().min_by_key(|(seat, asked_rich, need)| {
        // What is rich is there because somebody asked for it.
        (!belongs(seat, party), seat.asker.class, *asked_rich != agentic, Reverse(need.length()))
    })?;
    let seats = served.map(|(seat, ..)| seat.clone()).collect();
    let wants = || wants.iter().map(|(_, want)| want).filter(|want| needed_part(&want.intervals, interval).is_some());
    let begins = if wants().any(|want| want.next_need.is_some_and(|lead| interval.contains(lead.at))) {
        StartPolicy::Now
    } else if wants().any(|want| want.further) {
        StartPolicy::IfSpare
    } else {
        StartPolicy::Later
    };
    Some(BatchOwner { asker: cause.asker.clone(), seats, begins })
}

/// From the first to the last moment of `interval` that is among `wanted`.
pub(in crate::cache) fn needed_part(wanted: &IntervalSet, interval: Interval) -> Option<Interval> {
    let parts = wanted.intervals().iter().map(|wanted| wanted.intersection(interval)).filter(|part| !part.is_empty());
    parts.reduce(|one, next| Interval::new(one.start, next.end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::series::NextNeed;
    use crate::request::QueueTimeout;
    use crate::window::Timestamp;

    fn interval(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    fn seat(caller: &str, class: Priority) -> Arc<Waiter> {
        Waiter::new(Requester { caller: caller.into(), weight: 1, class }, Arc::new(QueueTimeout::new(Duration::ZERO)))
    }

    fn want(seat: &Arc<Waiter>, start: i64, end: i64, agentic: bool) -> PendingRequest {
        PendingRequest {
            intervals: interval(start, end).into(),
            agentic,
            waiter: Arc::downgrade(seat),
            fresh_since: Timestamp::MIN,
            redis_checked: false,
            next_need: Some(NextNeed { at: interval(start, end).start, early: false }),
            further: false,
        }
    }

    fn undivided(interval: Interval, _: bool) -> Vec<PlannedRun> {
        vec![PlannedRun { interval, items: None }]
    }

    /// Each run with its cause and how many wait.
    fn told(wants: &[PendingRequest]) -> Vec<(Interval, bool, String, usize)> {
        told_of(coalesce(wants, false, undivided))
    }

    fn told_of(runs: Vec<BatchedRun>) -> Vec<(Interval, bool, String, usize)> {
        let told = |BatchedRun { plan, agentic, cause }| {
            let BatchOwner { asker, seats, .. } = cause;
            (plan.interval, agentic, asker.caller.to_string(), seats.len())
        };
        runs.into_iter().map(told).collect()
    }

    #[test]
    fn neighbours_are_one_run_charged_to_who_needs_most() {
        let (a, b) = (seat("a", Priority::Interactive), seat("b", Priority::Interactive));
        let wants = [want(&a, 0, 10, false), want(&b, 10, 40, false)];
        assert_eq!(told(&wants), [(interval(0, 40), false, "b".to_owned(), 2)]);
        drop(b);
        assert_eq!(told(&wants), [(interval(0, 10), false, "a".to_owned(), 1)], "nobody wants the rest any more");
    }

    #[test]
    fn callers_that_compete_have_runs_of_their_own() {
        let (a, b) = (seat("a", Priority::Interactive), seat("b", Priority::Interactive));
        let wants = [want(&a, 0, 10, false), want(&b, 5, 40, false), want(&a, 40, 50, false), want(&a, 10, 12, false)];
        let runs = [(0, 12, "a", 3), (40, 50, "a", 1), (12, 40, "b", 1)];
        let runs = runs.map(|(start, end, who, wait)| (interval(start, end), false, who.to_owned(), wait));
        assert_eq!(told_of(coalesce(&wants, true, undivided)), runs);
    }

    #[test]
    fn what_is_urgent_does_not_wait_for_what_is_not() {
        let (urgent, backfill) = (seat("a", Priority::Interactive), seat("b", Priority::Background));
        let wants = [want(&backfill, 0, 100, false), want(&urgent, 40, 50, false)];
        let runs = [(40, 50, "a", 2), (0, 40, "b", 1), (50, 100, "b", 1)];
        assert_eq!(
            told(&wants),
            runs.map(|(start, end, who, wait)| (interval(start, end), false, who.to_owned(), wait))
        );
    }

    #[test]
    fn what_is_rich_serves_those_who_want_none() {
        let (a, b) = (seat("a", Priority::Interactive), seat("b", Priority::Interactive));
        let wants = [want(&a, 0, 30, false), want(&b, 10, 20, true)];
        let runs = told(&wants);
        assert_eq!(runs[0], (interval(10, 20), true, "b".to_owned(), 2));
        assert_eq!(
            runs[1..].iter().map(|run| (run.0, run.1)).collect::<Vec<_>>(),
            [(interval(0, 10), false), (interval(20, 30), false)]
        );
    }

    #[test]
    fn divided_span_begins_with_what_somebody_needs_next() {
        let (long, short) = (seat("a", Priority::Interactive), seat("b", Priority::Interactive));
        let mut wants = [want(&long, 0, 100, false), want(&short, 70, 80, false)];
        let tens = |interval: Interval, early: bool| {
            assert!(!early);
            let ten = |n: i64| PlannedRun { interval: self::interval(10 * n, 10 * n + 10), items: Some(1.0) };
            (interval.start.as_seconds() / 10..interval.end.as_seconds() / 10).map(ten).collect::<Vec<_>>()
        };
        let begins = |wants: &[PendingRequest]| -> Vec<i64> {
            let now = |run: &BatchedRun| run.cause.begins == StartPolicy::Now;
            let runs = coalesce(wants, false, tens);
            assert_eq!(runs.len(), 10);
            runs.iter().filter(|run| now(run)).map(|run| run.plan.interval.start.as_seconds()).collect()
        };
        assert_eq!(begins(&wants), [0, 70]);
        wants[0].next_need = None;
        wants[0].further = true;
        assert_eq!(begins(&wants), [70]);
        let spare =
            coalesce(&wants, false, tens).into_iter().filter(|run| run.cause.begins == StartPolicy::IfSpare).count();
        assert_eq!(spare, 9);
    }
}
