use proptest::prelude::*;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn limit(requests: u32, seconds: u64) -> QuotaLimit {
    QuotaLimit { requests, per: Duration::from_secs(seconds) }
}

fn seconds(seconds: u64) -> MonotonicTime {
    Duration::from_secs(seconds)
}

fn caller(caller: &str) -> Arc<str> {
    caller.into()
}

/// A ledger whose calls ended at these seconds.
fn ledger_with(limits: Vec<QuotaLimit>, ends: &[u64]) -> Ledger {
    let mut ledger = Ledger::new(limits);
    for end in ends {
        ledger.begin();
        ledger.end(seconds(*end), &caller("a"));
    }
    ledger
}

#[test]
fn ledger_hour_spent_is_free_when_calls_leave() {
    let ledger = ledger_with(vec![limit(2, 60), limit(3, 3600)], &[0, 1, 100]);
    let free = |ahead| ledger.free_at(seconds(170), ahead, 0.0).saturating_sub(GUARD);
    assert_eq!([free(0), free(1), free(2)], [3600, 3601, 3700].map(seconds));
}

#[test]
fn ledger_with_reserve_leaves_it_free_except_one_call() {
    let ledger = ledger_with(vec![limit(10, 60)], &[0, 1, 2]);
    let clears = |reserve| ledger.free_at(seconds(3), 0, reserve).as_secs();
    assert_eq!([0.0, 0.6, 0.7, 0.8, 1.0].map(clears), [3, 3, 60, 61, 62]);
    assert_eq!(usable(60, 0.1), 54);
    assert_eq!(usable(10, 0.9), 1);
}

#[test]
fn ledger_refused_reduces_named_or_most_used_limit() {
    let kore = || ledger_with(vec![limit(1800, 3600), limit(60, 60)], &(0..31).collect::<Vec<_>>());
    let now = seconds(31);
    let reduced = |requests: u32, budget| {
        let per = if requests == 60 { 60 } else { 3600 };
        Some(ReducedLimit { limit: limit(requests, per), budget })
    };
    assert_eq!(kore().refused(now, now, SpentLimit::Minute), reduced(60, 42));
    assert_eq!(kore().refused(now, now, SpentLimit::Hour), reduced(1800, 1260));
    let mut ledger = kore();
    assert_eq!(ledger.refused(now, now, SpentLimit::Unnamed), reduced(60, 42));
    assert_eq!(ledger.refused(now, seconds(30), SpentLimit::Unnamed), None, "known");
    assert!(!ledger.is_exact(now));
    assert_eq!(
        ledger.limit_usage(now).map(|usage| (usage.budget, usage.remaining)).collect::<Vec<_>>(),
        [(1800, 1769), (42, 11)]
    );
    // Refusals reduce the budget of the minute down to one call; the next one must concern the hour.
    let mut now = seconds(31);
    let last = loop {
        now += seconds(60);
        let reduction = ledger.refused(now, now, SpentLimit::Unnamed).expect("news");
        if reduction.limit.requests == 1800 {
            break reduction;
        }
        ledger.end(now, &caller("a"));
    };
    assert_eq!(Some(last), reduced(1800, 1260));
}

#[test]
fn ledger_rate_limit_stated_sets_the_limit_it_names() {
    let mut ledger = ledger_with(vec![limit(1800, 3600), limit(60, 60)], &[0, 1, 2]);
    let rate_limit = |limit, remaining| RateLimitHeader { limit, remaining, reset: None };
    ledger.apply_rate_limit(seconds(3), &rate_limit(None, 20));
    ledger.apply_rate_limit(seconds(3), &rate_limit(Some(1800), 1000));
    assert_eq!(ledger.limit_usage(seconds(3)).map(|usage| usage.budget).collect::<Vec<_>>(), [1003, 23]);
    ledger.apply_rate_limit(seconds(3), &rate_limit(Some(7), 57));
    assert_eq!(ledger.limit_usage(seconds(3)).map(|usage| usage.budget).collect::<Vec<_>>(), [1003, 60]);
}

#[test]
fn ledger_counts_calls_by_caller_and_window() {
    let mut ledger = ledger_with(vec![limit(60, 60), limit(1800, 3600)], &[0, 1, 100]);
    ledger.begin();
    ledger.end(seconds(101), &caller("b"));
    ledger.begin();
    let counts = |caller| ledger.spent_by(seconds(110), caller).into_iter().map(|(_, spent)| spent).collect::<Vec<_>>();
    assert_eq!([counts("a"), counts("b"), counts("c")], [[1, 3], [1, 1], [0, 0]]);
    assert_eq!(ledger.in_flight(), 1);
}

#[test]
fn forecast_calls_matches_their_begin_times() {
    let mut ledger = ledger_with(vec![limit(2, 60), limit(5, 3600)], &[0, 1]);
    ledger.begin();
    let forecast = |calls| ledger.forecast(seconds(2), calls, 0.0, |_| Duration::ZERO).as_secs();
    assert_eq!([0, 1, 2, 3].map(forecast), [0, 59, 60, 3598]);
    let paced = ledger.forecast(seconds(2), 2, 0.0, |call| seconds(100) * call);
    assert_eq!(paced, seconds(100));
    let kore = Ledger::new(vec![limit(60, 60), limit(1800, 3600)]);
    let hours = kore.forecast(MonotonicTime::ZERO, 1_800_000, 0.0, |_| Duration::ZERO).as_secs_f64() / 3600.0;
    assert!((999.0..1001.0).contains(&hours), "{hours}");
    kore.forecast(MonotonicTime::ZERO, u32::MAX, 0.0, |_| Duration::ZERO);
}

/// Arrival process of calls.
#[derive(Clone, Copy, Debug)]
enum Arrivals {
    Poisson,
    Bursts,
    /// At the full tens of seconds of a clock that all callers share.
    Synchronised,
    /// Each call begins at the time at which a window has room, and counts when it begins or when it ends.
    Adversarial,
}

#[derive(Clone, Debug)]
struct Call {
    dice: f64,
    travel: u64,
    counts_after: prop::sample::Index,
    outcome: CallOutcome,
    caller: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CallOutcome {
    Answered,
    /// The call never reached the upstream.
    NotSent,
    Refused,
    /// Answered, with the number of remaining calls.
    RateLimitStated(u32),
    /// The process ends as soon as the call has begun, and another process continues.
    Killed,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let outcome = prop_oneof![
        16 => Just(CallOutcome::Answered),
        2 => Just(CallOutcome::NotSent),
        1 => Just(CallOutcome::Refused),
        1 => (0u32..30).prop_map(CallOutcome::RateLimitStated),
        1 => Just(CallOutcome::Killed),
    ];
    let call = (0.0..1.0, 0u64..9000, any::<prop::sample::Index>(), outcome, 0usize..3)
        .prop_map(|(dice, travel, counts_after, outcome, caller)| Call { dice, travel, counts_after, outcome, caller });
    prop::collection::vec(call, 1..160)
}

impl Arrivals {
    fn after(self, now: MonotonicTime, dice: f64) -> MonotonicTime {
        match self {
            Self::Poisson => now + Duration::from_millis(1500).mul_f64(-(1.0 - dice).ln()),
            Self::Bursts if dice < 0.1 => now + seconds(30).mul_f64(dice * 10.0),
            Self::Synchronised if dice < 0.1 => seconds((now.as_secs() / 10 + 1) * 10),
            Self::Bursts | Self::Synchronised | Self::Adversarial => now,
        }
    }

    fn counts_after(self, call: &Call) -> Duration {
        let any = call.counts_after.index(usize::try_from(call.travel).unwrap() + 1) as u64;
        Duration::from_millis(match self {
            Self::Adversarial if call.dice < 0.5 => 0,
            Self::Adversarial => call.travel,
            _ => any,
        })
    }
}

struct CallInFlight {
    began: MonotonicTime,
    counts: MonotonicTime,
    ends: MonotonicTime,
    outcome: CallOutcome,
    caller: Arc<str>,
}

/// A process that makes calls, and the upstream that counts them.
struct Simulation {
    limits: Vec<QuotaLimit>,
    ledger: Ledger,
    in_flight: Vec<CallInFlight>,
    /// Ended calls, for the process after a restart.
    recorded: Vec<(MonotonicTime, Arc<str>)>,
    counted: Vec<MonotonicTime>,
}

impl Simulation {
    fn end_all_until(&mut self, now: MonotonicTime) {
        self.in_flight.sort_by_key(|call| call.ends);
        for call in self.in_flight.extract_if(.., |call| call.ends <= now) {
            if call.outcome == CallOutcome::NotSent {
                self.ledger.refund();
                continue;
            }
            self.counted.push(call.counts);
            self.ledger.end(call.ends, &call.caller);
            self.recorded.push((call.ends, call.caller));
            match call.outcome {
                CallOutcome::Refused => drop(self.ledger.refused(call.ends, call.began, SpentLimit::Unnamed)),
                CallOutcome::RateLimitStated(remaining) => {
                    self.ledger.apply_rate_limit(call.ends, &RateLimitHeader { limit: None, remaining, reset: None });
                }
                _ => {}
            }
        }
    }

    /// Waits until a call may begin and fewer than `max_concurrency` are in flight.
    fn wait(&mut self, mut now: MonotonicTime, max_concurrency: usize) -> MonotonicTime {
        loop {
            self.end_all_until(now);
            let free = self.ledger.free_at(now, 0, 0.0);
            if free <= now && self.in_flight.len() < max_concurrency {
                return now;
            }
            let next_end = self.in_flight.iter().map(|call| call.ends).min().unwrap_or(MonotonicTime::MAX);
            now = if free > now { free.min(next_end) } else { next_end };
        }
    }

    fn restart(&mut self, now: MonotonicTime) {
        for call in self.in_flight.drain(..) {
            self.counted.extend((call.outcome != CallOutcome::NotSent).then_some(call.counts.min(now)));
            self.recorded.push((now, call.caller));
        }
        self.ledger = Ledger::new(self.limits.clone());
        // Not in the order of time.
        self.recorded.sort_by_key(|(at, caller)| (caller.clone(), at.subsec_nanos()));
        self.recorded.iter().for_each(|(at, caller)| self.ledger.restore(*at, caller));
    }
}

proptest! {
    /// The model is the list of times at which the upstream counted; every window that ends at one of them is checked.
    #[test]
    fn ledger_any_calls_keep_every_rolling_window(
        arrivals in prop::sample::select(vec![
            Arrivals::Poisson, Arrivals::Bursts, Arrivals::Synchronised, Arrivals::Adversarial,
        ]),
        calls in calls(), few in 1u32..6, many in 4u32..20, max_concurrency in 1usize..9,
    ) {
        let limits = vec![limit(few, 10), limit(many, 60)];
        let ledger = Ledger::new(limits.clone());
        let (in_flight, recorded, counted) = (Vec::new(), Vec::new(), Vec::new());
        let mut simulation = Simulation { ledger, limits: limits.clone(), in_flight, recorded, counted };
        let callers = ["a", "b", "c"].map(caller);
        let mut now = MonotonicTime::ZERO;
        for call in calls {
            now = simulation.wait(arrivals.after(now, call.dice), max_concurrency);
            simulation.ledger.begin();
            prop_assert!(simulation.ledger.limit_usage(now).all(|usage| usage.budget <= usage.limit.requests));
            let (counts, ends) = (now + arrivals.counts_after(&call), now + Duration::from_millis(call.travel));
            let caller = callers[call.caller].clone();
            simulation.in_flight.push(CallInFlight { began: now, counts, ends, outcome: call.outcome, caller });
            if call.outcome == CallOutcome::Killed {
                simulation.restart(now);
            }
        }
        simulation.end_all_until(MonotonicTime::MAX);
        let mut counted = simulation.counted;
        counted.sort();
        for limit in limits {
            for end in &counted {
                let calls = counted.iter().filter(|at| **at <= *end && **at + limit.per > *end).count();
                prop_assert!(calls <= limit.requests as usize, "{} in {:?}", calls, limit);
            }
        }
    }

    /// With standing demand and quick answers, at least 95 % of the tightest limit is used.
    #[test]
    fn ledger_standing_demand_uses_the_quota(requests in 1u32..80, travel in 0u64..400, unsent in 2u32..9) {
        let mut ledger = Ledger::new(vec![limit(requests, 60)]);
        let callers = ["a", "b", "c"].map(caller);
        let (mut now, mut calls) = (Duration::ZERO, 0u32);
        let horizon = Duration::from_mins(20);
        while now < horizon {
            now = ledger.free_at(now, 0, 0.0);
            ledger.begin();
            now += Duration::from_millis(travel).min(Duration::from_mins(1) / requests / 2);
            calls += 1;
            ledger.end(now, &callers[calls as usize % callers.len()]);
            if calls.is_multiple_of(unsent) {
                ledger.begin();
                ledger.refund();
            }
        }
        prop_assert!(f64::from(calls) >= 0.95 * 20.0 * f64::from(requests), "{} calls", calls);
    }

    /// The model looks at every half second.
    #[test]
    fn ledger_free_at_is_the_first_time_with_room(
        ends in prop::collection::vec(0u64..50, 0..12), in_flight in 0u32..3, ahead in 0u32..3,
        refusals in prop::collection::vec(50u64..60, 0..6), reserve in prop::sample::select(vec![0.0, 0.1, 0.5, 1.0]),
        requests in 1u32..14,
    ) {
        // A limit whose budget grows within a few windows.
        let mut ledger = Ledger::new(vec![limit(requests, 60)]);
        for end in ends {
            ledger.restore(seconds(end), &caller("a"));
        }
        for refusal in &refusals {
            ledger.refused(seconds(*refusal), seconds(*refusal), SpentLimit::Unnamed);
        }
        (0..in_flight).for_each(|_| ledger.begin());
        let now = seconds(60);
        let has_room = |at: MonotonicTime| {
            let counted = ledger.own(&ledger.budgets[0], at);
            counted + in_flight + ahead < usable(ledger.budgets[0].at(at), reserve)
        };
        let free = ledger.free_at(now, ahead, reserve);
        let bound = now + seconds(60) + GUARD;
        prop_assert!(free <= bound, "{:?}", free);
        prop_assert!(has_room(free) || free == bound);
        let steps = u32::try_from(free.saturating_sub(now).as_millis()).unwrap();
        for before in (0..steps).step_by(500).chain(steps.checked_sub(1)) {
            prop_assert!(!has_room(now + MILLI * before), "{:?} is before {:?}", now + MILLI * before, free);
        }
    }

    /// The model looks at every half second.
    #[test]
    fn ledger_more_in_is_the_first_time_with_another_call(
        ends in prop::collection::vec(0u64..60, 0..14), refusals in prop::collection::vec(50u64..60, 0..4),
        requests in 1u32..14,
    ) {
        let mut ledger = Ledger::new(vec![limit(requests, 60)]);
        for end in ends {
            ledger.restore(seconds(end), &caller("a"));
        }
        for refusal in &refusals {
            ledger.refused(seconds(*refusal), seconds(*refusal), SpentLimit::Unnamed);
        }
        let (now, bound) = (seconds(60), seconds(60) + GUARD);
        let usage = |at: MonotonicTime| ledger.limit_usage(at).next().unwrap();
        let LimitUsage { remaining, more_in, .. } = usage(now);
        prop_assert_eq!(more_in.is_none(), remaining == requests);
        let more_in = more_in.unwrap_or_default();
        prop_assert!(remaining == requests || more_in == bound || usage(now + more_in).remaining > remaining);
        let steps = u32::try_from(more_in.as_millis()).unwrap();
        for before in (0..steps).step_by(500).chain(steps.checked_sub(1)) {
            prop_assert!(usage(now + MILLI * before).remaining <= remaining, "{} ms before {:?}", before, more_in);
        }
    }
}

proptest! {
    /// Against a ledger that had the new limits from the start.
    #[test]
    fn ledger_with_other_limits_counts_the_calls_from_before(
        before in 1u32..6, after in 1u32..6, ends in prop::collection::vec(0u64..90, 0..8), now in 90u64..200,
    ) {
        let mut ends = ends;
        ends.sort_unstable();
        let mut changed = ledger_with(vec![limit(before, 60), limit(20, 100)], &ends);
        prop_assert_eq!(changed.set_limits(&[limit(after, 60), limit(20, 100)]), before != after);
        let fresh = ledger_with(vec![limit(after, 60), limit(20, 100)], &ends);
        prop_assert_eq!(changed.free_at(seconds(now), 0, 0.0), fresh.free_at(seconds(now), 0, 0.0));
        let usage = |ledger: &Ledger| ledger.limit_usage(seconds(now)).collect::<Vec<_>>();
        prop_assert_eq!(usage(&changed), usage(&fresh));
    }
}

#[test]
fn limit_that_stays_keeps_its_reduced_budget() {
    let mut ledger = ledger_with(vec![limit(10, 60), limit(100, 3600)], &[0, 1, 2, 3]);
    ledger.refused(seconds(4), seconds(3), SpentLimit::Minute);
    let budget = |ledger: &Ledger| ledger.limit_usage(seconds(4)).next().map(|usage| usage.budget);
    let reduced = budget(&ledger);
    assert!(reduced < Some(10));
    ledger.set_limits(&[limit(10, 60), limit(50, 3600)]);
    assert_eq!(budget(&ledger), reduced);
    ledger.set_limits(&[limit(20, 60)]);
    assert_eq!(budget(&ledger), Some(20));
}
