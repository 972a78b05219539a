//! Coalescing of a batch: which runs bring what its requests need. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::cache::series::{PendingRequest, Waiter};
use crate::request::{Priority, Requester};
use crate::traces::Span;
use crate::window::{Interval, IntervalSet, PlannedRun};

/// A run that brings a part of a batch.
#[derive(Debug)]
pub(in crate::cache) struct BatchedRun {
    pub(in crate::cache) plan: PlannedRun,
    pub(in crate::cache) agentic: bool,
    pub(in crate::cache) owner: BatchOwner,
}

/// For whom a run is fetched.
#[derive(Debug)]
pub(in crate::cache) struct BatchOwner {
    /// The requester that is charged for the run.
    pub(in crate::cache) requester: Requester,
    /// The span of the request that is charged.
    pub(in crate::cache) span: Span,
    /// All requests that need a part of the run.
    pub(in crate::cache) waiters: Vec<Arc<Waiter>>,
    pub(in crate::cache) start: StartPolicy,
}

/// When a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum StartPolicy {
    /// At once: it brings what a request needs next.
    Now,
    /// At once if a call is spare, beside other runs of the same window.
    IfSpare,
    /// When a request needs it next.
    Later,
}

/// The runs that bring what `requests` need. Adjacent intervals are joined, except that different priorities are kept
/// apart, and each interval is divided as `divide` says, which also takes whether the beginning is to be sent early.
/// Requests that were cancelled are ignored.
///
/// `by_caller`: callers compete for the quota, and each gets runs of its own. If adjacent intervals of two callers
/// became one run, the caller that needs less would be served at the expense of the other, and again each time that
/// they get their answers together. An interval that both need is fetched for the first of them.
pub(in crate::cache) fn coalesce(
    requests: &[PendingRequest],
    by_caller: bool,
    mut divide: impl FnMut(Interval, bool) -> Vec<PlannedRun>,
) -> Vec<BatchedRun> {
    let requests: Vec<(Arc<Waiter>, &PendingRequest)> =
        requests.iter().filter_map(|request| Some((request.waiter.upgrade()?, request))).collect();
    let mut runs = Vec::new();
    for (interval, agentic, caller) in joined_intervals(&requests, by_caller) {
        let begins_here = |request: &PendingRequest| {
            request.next_need.is_some_and(|need| need.early && interval.contains(need.start))
        };
        let early = requests.iter().any(|(_, request)| begins_here(request));
        let with_owner = |plan: PlannedRun| {
            let owner = owner(&requests, plan.interval, agentic, caller)?;
            Some(BatchedRun { plan, agentic, owner })
        };
        runs.extend(divide(interval, early).into_iter().filter_map(with_owner));
    }
    runs
}

/// The needed intervals, each once, joined by priority, `agentic` and, if `by_caller`, by caller.
fn joined_intervals<'a>(
    requests: &'a [(Arc<Waiter>, &PendingRequest)],
    by_caller: bool,
) -> Vec<(Interval, bool, Option<&'a str>)> {
    let mut callers: Vec<Option<&str>> = Vec::new();
    for (waiter, _) in requests {
        let caller = by_caller.then_some(&*waiter.requester.caller);
        if !callers.contains(&caller) {
            callers.push(caller);
        }
    }
    let mut intervals: Vec<(Interval, bool, Option<&str>)> = Vec::new();
    for priority in [Priority::Interactive, Priority::Refresh, Priority::Background] {
        // Agentic data first: it serves the other requests as well.
        for agentic in [true, false] {
            for caller in &callers {
                let own = requests.iter().filter(|(waiter, request)| {
                    (waiter.requester.priority, request.agentic) == (priority, agentic) && is_of(waiter, *caller)
                });
                let mut left: IntervalSet =
                    own.flat_map(|(_, request)| request.intervals.intervals().iter().copied()).collect();
                intervals
                    .iter()
                    .filter(|(_, taken, _)| *taken || !agentic)
                    .for_each(|(interval, ..)| left.remove(*interval));
                intervals.extend(left.intervals().iter().map(|interval| (*interval, agentic, *caller)));
            }
        }
    }
    intervals
}

/// Whether a request is of this caller, or callers are not distinguished.
fn is_of(waiter: &Waiter, caller: Option<&str>) -> bool {
    caller.is_none_or(|caller| *waiter.requester.caller == *caller)
}

/// The requests that wait for a run. Of the most urgent ones, if possible of `caller`, the one that needs most of the
/// run is charged.
fn owner(
    requests: &[(Arc<Waiter>, &PendingRequest)],
    interval: Interval,
    agentic: bool,
    caller: Option<&str>,
) -> Option<BatchOwner> {
    let served = requests.iter().filter(|(_, request)| agentic || !request.agentic);
    let served = served
        .filter_map(|(waiter, request)| Some((waiter, request.agentic, needed_part(&request.intervals, interval)?)));
    let (charged, ..) = served.clone().min_by_key(|(waiter, asked_agentic, need)| {
        // An agentic run exists because a request asked for it.
        (!is_of(waiter, caller), waiter.requester.priority, *asked_agentic != agentic, Reverse(need.length()))
    })?;
    let waiters = served.map(|(waiter, ..)| waiter.clone()).collect();
    let needing = requests.iter().map(|(_, request)| request);
    let mut needing = needing.filter(|request| needed_part(&request.intervals, interval).is_some());
    let is_next = |request: &&&PendingRequest| request.next_need.is_some_and(|need| interval.contains(need.start));
    let start = if needing.clone().any(|request| is_next(&request)) {
        StartPolicy::Now
    } else if needing.any(|request| request.more_runs) {
        StartPolicy::IfSpare
    } else {
        StartPolicy::Later
    };
    Some(BatchOwner { requester: charged.requester.clone(), span: charged.span.clone(), waiters, start })
}

/// From the first to the last timestamp of `interval` that is in `needed`.
pub(in crate::cache) fn needed_part(needed: &IntervalSet, interval: Interval) -> Option<Interval> {
    let parts = needed.intervals().iter().map(|needed| needed.intersection(interval)).filter(|part| !part.is_empty());
    parts.reduce(|first, next| Interval::new(first.start, next.end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::series::NextNeed;
    use crate::request::QueueTimeout;
    use crate::window::{FreshnessDemand, Timestamp};

    fn interval(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    fn waiter(caller: &str, priority: Priority) -> Arc<Waiter> {
        Waiter::new(
            Requester { caller: caller.into(), weight: 1, priority },
            Span::NONE,
            Arc::new(QueueTimeout::new(Duration::ZERO)),
        )
    }

    fn request(waiter: &Arc<Waiter>, start: i64, end: i64, agentic: bool) -> PendingRequest {
        PendingRequest {
            intervals: interval(start, end).into(),
            agentic,
            waiter: Arc::downgrade(waiter),
            fresh_since: Timestamp::MIN,
            freshness: FreshnessDemand::POLICY,
            redis_checked: false,
            next_need: Some(NextNeed { start: interval(start, end).start, early: false }),
            more_runs: false,
        }
    }

    fn undivided(interval: Interval, _: bool) -> Vec<PlannedRun> {
        vec![PlannedRun { interval, items: None }]
    }

    /// Interval, `agentic`, charged caller and number of waiters of a run.
    type Summary = (Interval, bool, String, usize);

    fn summary(requests: &[PendingRequest], by_caller: bool) -> Vec<Summary> {
        let of_run = |BatchedRun { plan, agentic, owner }| {
            let BatchOwner { requester, waiters, .. } = owner;
            (plan.interval, agentic, requester.caller.to_string(), waiters.len())
        };
        coalesce(requests, by_caller, undivided).into_iter().map(of_run).collect()
    }

    fn run(start: i64, end: i64, caller: &str, waiters: usize) -> Summary {
        (interval(start, end), false, caller.to_owned(), waiters)
    }

    #[test]
    fn adjacent_requests_one_run_charged_to_the_larger() {
        let (a, b) = (waiter("a", Priority::Interactive), waiter("b", Priority::Interactive));
        let requests = [request(&a, 0, 10, false), request(&b, 10, 40, false)];
        assert_eq!(summary(&requests, false), [run(0, 40, "b", 2)]);
        drop(b);
        assert_eq!(summary(&requests, false), [run(0, 10, "a", 1)], "a cancelled request is ignored");
    }

    #[test]
    fn competing_callers_have_separate_runs() {
        let (a, b) = (waiter("a", Priority::Interactive), waiter("b", Priority::Interactive));
        let requests = [
            request(&a, 0, 10, false),
            request(&b, 5, 40, false),
            request(&a, 40, 50, false),
            request(&a, 10, 12, false),
        ];
        assert_eq!(summary(&requests, true), [run(0, 12, "a", 3), run(40, 50, "a", 1), run(12, 40, "b", 1)]);
    }

    #[test]
    fn urgent_part_of_a_background_request_is_a_separate_run() {
        let (urgent, backfill) = (waiter("a", Priority::Interactive), waiter("b", Priority::Background));
        let requests = [request(&backfill, 0, 100, false), request(&urgent, 40, 50, false)];
        assert_eq!(summary(&requests, false), [run(40, 50, "a", 2), run(0, 40, "b", 1), run(50, 100, "b", 1)]);
    }

    #[test]
    fn agentic_run_serves_requests_of_both_kinds() {
        let (a, b) = (waiter("a", Priority::Interactive), waiter("b", Priority::Interactive));
        let requests = [request(&a, 0, 30, false), request(&b, 10, 20, true)];
        let runs = summary(&requests, false);
        assert_eq!(runs[0], (interval(10, 20), true, "b".to_owned(), 2));
        let others: Vec<_> = runs[1..].iter().map(|run| (run.0, run.1)).collect();
        assert_eq!(others, [(interval(0, 10), false), (interval(20, 30), false)]);
    }

    #[test]
    fn divided_interval_starts_with_what_is_needed_next() {
        let (long, short) = (waiter("a", Priority::Interactive), waiter("b", Priority::Interactive));
        let mut requests = [request(&long, 0, 100, false), request(&short, 70, 80, false)];
        let tens = |interval: Interval, early: bool| {
            assert!(!early);
            let ten = |n: i64| PlannedRun { interval: self::interval(10 * n, 10 * n + 10), items: Some(1.0) };
            (interval.start.as_seconds() / 10..interval.end.as_seconds() / 10).map(ten).collect::<Vec<_>>()
        };
        let start_now = |requests: &[PendingRequest]| -> Vec<i64> {
            let is_now = |run: &&BatchedRun| run.owner.start == StartPolicy::Now;
            let runs = coalesce(requests, false, tens);
            assert_eq!(runs.len(), 10);
            runs.iter().filter(is_now).map(|run| run.plan.interval.start.as_seconds()).collect()
        };
        assert_eq!(start_now(&requests), [0, 70]);
        requests[0].next_need = None;
        requests[0].more_runs = true;
        assert_eq!(start_now(&requests), [70]);
        let is_spare = |run: &BatchedRun| run.owner.start == StartPolicy::IfSpare;
        assert_eq!(coalesce(&requests, false, tens).into_iter().filter(is_spare).count(), 9);
    }
}
