use proptest::prelude::*;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn limit(requests: u32, seconds: u64) -> QuotaLimit {
    QuotaLimit { requests, per: Duration::from_secs(seconds) }
}

fn seconds(seconds: u64) -> MonotonicTime {
    Duration::from_secs(seconds)
}

fn by(caller: &str) -> Arc<str> {
    caller.into()
}

/// A ledger whose calls ended at these seconds.
fn spent(limits: Vec<QuotaLimit>, ends: &[u64]) -> Ledger {
    let mut ledger = Ledger::new(limits);
    for end in ends {
        ledger.begin();
        ledger.end(seconds(*end), &by("a"));
    }
    ledger
}

#[test]
fn an_hour_that_is_spent_says_when_it_clears() {
    let ledger = spent(vec![limit(2, 60), limit(3, 3600)], &[0, 1, 100]);
    let free = |ahead| ledger.free_at(seconds(170), ahead, 0.0).saturating_sub(GUARD);
    assert_eq!([free(0), free(1), free(2)], [3600, 3601, 3700].map(seconds));
}

#[test]
fn background_work_leaves_the_reserve_alone_but_is_never_shut_out() {
    let ledger = spent(vec![limit(10, 60)], &[0, 1, 2]);
    let clears = |reserve| ledger.free_at(seconds(3), 0, reserve).as_secs();
    assert_eq!([0.0, 0.6, 0.7, 0.8, 1.0].map(clears), [3, 3, 60, 61, 62]);
    assert_eq!(usable(60, 0.1), 54);
    assert_eq!(usable(10, 0.9), 1);
}

#[test]
fn a_refusal_shrinks_the_limit_it_names_or_the_one_most_used() {
    let kore = || spent(vec![limit(1800, 3600), limit(60, 60)], &(0..31).collect::<Vec<_>>());
    let now = seconds(31);
    let shrunk = |requests: u32, budget| {
        let per = if requests == 60 { 60 } else { 3600 };
        Some(ReducedLimit { limit: limit(requests, per), budget })
    };
    assert_eq!(kore().refused(now, now, SpentLimit::Minute), shrunk(60, 42));
    assert_eq!(kore().refused(now, now, SpentLimit::Hour), shrunk(1800, 1260));
    let mut ledger = kore();
    assert_eq!(ledger.refused(now, now, SpentLimit::Unnamed), shrunk(60, 42));
    assert_eq!(ledger.refused(now, seconds(30), SpentLimit::Unnamed), None, "the same wall");
    assert!(!ledger.is_exact(now));
    assert_eq!(ledger.remaining(now).map(|of| (of.budget, of.remaining)).collect::<Vec<_>>(), [(1800, 1769), (42, 11)]);
    // With the minute's window all but empty it goes down to one call, and then the hour must be what is spent.
    let mut now = seconds(31);
    let last = loop {
        now += seconds(60);
        let told = ledger.refused(now, now, SpentLimit::Unnamed).expect("news");
        if told.limit.requests == 1800 {
            break told;
        }
        ledger.end(now, &by("a"));
    };
    assert_eq!(Some(last), shrunk(1800, 1260));
}

#[test]
fn what_the_upstream_tells_goes_to_the_limit_that_it_means() {
    let mut ledger = spent(vec![limit(1800, 3600), limit(60, 60)], &[0, 1, 2]);
    let told = |limit, remaining| RateLimitHeader { limit, remaining, reset: None };
    ledger.told(seconds(3), &told(None, 20));
    ledger.told(seconds(3), &told(Some(1800), 1000));
    assert_eq!(ledger.remaining(seconds(3)).map(|of| of.budget).collect::<Vec<_>>(), [1003, 23]);
    ledger.told(seconds(3), &told(Some(7), 57));
    assert_eq!(ledger.remaining(seconds(3)).map(|of| of.budget).collect::<Vec<_>>(), [1003, 60]);
}

#[test]
fn each_caller_s_calls_are_counted_in_each_window() {
    let mut ledger = spent(vec![limit(60, 60), limit(1800, 3600)], &[0, 1, 100]);
    ledger.begin();
    ledger.end(seconds(101), &by("b"));
    ledger.begin();
    let counts = |caller| ledger.spent_by(seconds(110), caller).into_iter().map(|(_, spent)| spent).collect::<Vec<_>>();
    assert_eq!([counts("a"), counts("b"), counts("c")], [[1, 3], [1, 1], [0, 0]]);
    assert_eq!(ledger.under_way(), 1);
}

#[test]
fn a_forecast_is_what_the_calls_would_meet() {
    let mut ledger = spent(vec![limit(2, 60), limit(5, 3600)], &[0, 1]);
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

/// When calls come.
#[derive(Clone, Copy, Debug)]
enum Arrivals {
    Poisson,
    Bursts,
    /// By a clock that all callers share.
    Synchronised,
    /// Each waits for the very moment at which a window clears, and counts at its very begin or its very end.
    Adversarial,
}

#[derive(Clone, Debug)]
struct Call {
    dice: f64,
    travel: u64,
    counts_after: prop::sample::Index,
    event: Event,
    by: usize,
}

/// What happens with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Answered,
    /// It never reached the upstream.
    NotSent,
    Refused,
    Told(u32),
    /// The process ends as soon as it has begun, and another one goes on.
    Killed,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let event = prop_oneof![
        16 => Just(Event::Answered),
        2 => Just(Event::NotSent),
        1 => Just(Event::Refused),
        1 => (0u32..30).prop_map(Event::Told),
        1 => Just(Event::Killed),
    ];
    let call = (0.0..1.0, 0u64..9000, any::<prop::sample::Index>(), event, 0usize..3)
        .prop_map(|(dice, travel, counts_after, event, by)| Call { dice, travel, counts_after, event, by });
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

struct UnderWay {
    began: MonotonicTime,
    counts: MonotonicTime,
    ends: MonotonicTime,
    event: Event,
    by: Arc<str>,
}

/// A process that makes calls, and the upstream that counts them.
struct Player {
    limits: Vec<QuotaLimit>,
    ledger: Ledger,
    under_way: Vec<UnderWay>,
    /// What has ended, for the process that comes after.
    journal: Vec<(MonotonicTime, Arc<str>)>,
    counted: Vec<MonotonicTime>,
}

impl Player {
    fn end_all_until(&mut self, now: MonotonicTime) {
        self.under_way.sort_by_key(|call| call.ends);
        for call in self.under_way.extract_if(.., |call| call.ends <= now) {
            if call.event == Event::NotSent {
                self.ledger.refund();
                continue;
            }
            self.counted.push(call.counts);
            self.ledger.end(call.ends, &call.by);
            self.journal.push((call.ends, call.by));
            match call.event {
                Event::Refused => drop(self.ledger.refused(call.ends, call.began, SpentLimit::Unnamed)),
                Event::Told(remaining) => {
                    self.ledger.told(call.ends, &RateLimitHeader { limit: None, remaining, reset: None });
                }
                _ => {}
            }
        }
    }

    /// Waits until one of `lanes` is free and a call may begin.
    fn wait(&mut self, mut now: MonotonicTime, lanes: usize) -> MonotonicTime {
        loop {
            self.end_all_until(now);
            let free = self.ledger.free_at(now, 0, 0.0);
            if free <= now && self.under_way.len() < lanes {
                return now;
            }
            let next_end = self.under_way.iter().map(|call| call.ends).min().unwrap_or(MonotonicTime::MAX);
            now = if free > now { free.min(next_end) } else { next_end };
        }
    }

    fn restart(&mut self, now: MonotonicTime) {
        for call in self.under_way.drain(..) {
            self.counted.extend((call.event != Event::NotSent).then_some(call.counts.min(now)));
            self.journal.push((now, call.by));
        }
        self.ledger = Ledger::new(self.limits.clone());
        // In no order of time.
        self.journal.sort_by_key(|(at, by)| (by.clone(), at.subsec_nanos()));
        self.journal.iter().for_each(|(at, by)| self.ledger.restore(*at, by));
    }
}

proptest! {
    /// The naive model is the list of times at which the upstream counted; every window that ends at one is checked.
    #[test]
    fn no_rolling_window_is_ever_passed(
        arrivals in prop::sample::select(vec![
            Arrivals::Poisson, Arrivals::Bursts, Arrivals::Synchronised, Arrivals::Adversarial,
        ]),
        calls in calls(), few in 1u32..6, many in 4u32..20, lanes in 1usize..9,
    ) {
        let limits = vec![limit(few, 10), limit(many, 60)];
        let ledger = Ledger::new(limits.clone());
        let mut player =
            Player { ledger, limits: limits.clone(), under_way: Vec::new(), journal: Vec::new(), counted: Vec::new() };
        let callers = ["a", "b", "c"].map(by);
        let mut now = MonotonicTime::ZERO;
        for call in calls {
            now = player.wait(arrivals.after(now, call.dice), lanes);
            player.ledger.begin();
            prop_assert!(player.ledger.remaining(now).all(|of| of.budget <= of.limit.requests));
            let (counts, ends) = (now + arrivals.counts_after(&call), now + Duration::from_millis(call.travel));
            let by = callers[call.by].clone();
            player.under_way.push(UnderWay { began: now, counts, ends, event: call.event, by });
            if call.event == Event::Killed {
                player.restart(now);
            }
        }
        player.end_all_until(MonotonicTime::MAX);
        let mut counted = player.counted;
        counted.sort();
        for limit in limits {
            for end in &counted {
                let held = counted.iter().filter(|at| **at <= *end && **at + limit.per > *end).count();
                prop_assert!(held <= limit.requests as usize, "{} in {:?}", held, limit);
            }
        }
    }

    /// With standing demand and quick answers at least 95 % of the tightest limit is used.
    #[test]
    fn standing_demand_uses_the_quota(requests in 1u32..80, travel in 0u64..400, unsent in 2u32..9) {
        let mut ledger = Ledger::new(vec![limit(requests, 60)]);
        let callers = ["a", "b", "c"].map(by);
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

    /// What is free is found by looking at each moment in turn.
    #[test]
    fn a_call_is_free_at_the_first_moment_that_has_room(
        ends in prop::collection::vec(0u64..50, 0..12), under_way in 0u32..3, ahead in 0u32..3,
        refusals in prop::collection::vec(50u64..60, 0..6), reserve in prop::sample::select(vec![0.0, 0.1, 0.5, 1.0]),
        requests in 1u32..14,
    ) {
        // A limit of which the budget grows within a few windows.
        let mut ledger = Ledger::new(vec![limit(requests, 60)]);
        for end in ends {
            ledger.restore(seconds(end), &by("a"));
        }
        for refusal in &refusals {
            ledger.refused(seconds(*refusal), seconds(*refusal), SpentLimit::Unnamed);
        }
        (0..under_way).for_each(|_| ledger.begin());
        let now = seconds(60);
        let has_room = |at: MonotonicTime| {
            let counted = ledger.own(&ledger.budgets[0], at);
            counted + under_way + ahead < usable(ledger.budgets[0].at(at), reserve)
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
}
