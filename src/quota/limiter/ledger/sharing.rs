//! Simulation of a quota that is shared with another client.
//!
//! The upstream allows 60 calls a rolling minute. The other client makes 30 calls a minute, whether they are refused or
//! not; this gateway has standing demand.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const LIMIT: QuotaLimit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
/// Calls of this gateway in flight at the same time, at most.
const MAX_CONCURRENCY: usize = 8;
const HOUR: Duration = Duration::from_hours(1);

/// Arrival process of the other client's calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OtherClient {
    Evenly,
    Poisson,
    AtTheMinute,
}

impl OtherClient {
    fn calls(self, until: MonotonicTime, random: &mut fastrand::Rng) -> VecDeque<MonotonicTime> {
        let mut now = MonotonicTime::ZERO;
        let mut calls = VecDeque::new();
        while now < until {
            match self {
                Self::Evenly => {
                    calls.push_back(now);
                    now += Duration::from_secs(2);
                }
                Self::Poisson => {
                    now += Duration::from_secs_f64(-2.0 * (1.0 - random.f64()).ln());
                    calls.push_back(now);
                }
                Self::AtTheMinute => {
                    calls.extend((0..30).map(|call| now + Duration::from_millis(call * 50)));
                    now += Duration::from_mins(1);
                }
            }
        }
        calls
    }
}

/// The upstream's count of the rolling minute.
struct Upstream {
    counted: VecDeque<MonotonicTime>,
    refused_count: bool,
}

impl Upstream {
    fn arrive(&mut self, now: MonotonicTime) -> bool {
        while self.counted.front().is_some_and(|at| *at + LIMIT.per <= now) {
            self.counted.pop_front();
        }
        let passes = self.counted.len() < LIMIT.requests as usize;
        if passes || self.refused_count {
            self.counted.push_back(now);
        }
        passes
    }
}

/// A call of this gateway.
#[derive(Clone, Copy)]
struct OwnCall {
    began: MonotonicTime,
    counts: MonotonicTime,
    ends: MonotonicTime,
    passed: bool,
}

/// Times at which the upstream counted calls.
#[derive(Clone, Debug, Default)]
struct CallTimes {
    own_passed: Vec<MonotonicTime>,
    own_refused: Vec<MonotonicTime>,
    other_passed: Vec<MonotonicTime>,
}

impl CallTimes {
    fn within(times: &[MonotonicTime], from: MonotonicTime, to: MonotonicTime) -> f64 {
        f64::from(u32::try_from(times.iter().filter(|at| (from..to).contains(*at)).count()).unwrap())
    }

    /// Share of this gateway's calls that was refused.
    fn refused_share(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let refused = Self::within(&self.own_refused, from, to);
        refused / (refused + Self::within(&self.own_passed, from, to))
    }

    /// Share that this gateway used of the calls that the other client left.
    fn used_share(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let all = f64::from(LIMIT.requests) * to.saturating_sub(from).as_secs_f64() / LIMIT.per.as_secs_f64();
        Self::within(&self.own_passed, from, to) / (all - Self::within(&self.other_passed, from, to))
    }
}

/// Simulates the time up to `end`; the other client stops at `stops`.
fn simulate(other: OtherClient, refused_count: bool, stops: MonotonicTime, end: MonotonicTime, seed: u64) -> CallTimes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut theirs = other.calls(stops, &mut random);
    let mut upstream = Upstream { counted: VecDeque::new(), refused_count };
    let mut ledger = Ledger::new(vec![LIMIT]);
    let mut in_flight: Vec<OwnCall> = Vec::new();
    let (mut now, mut closed_until, mut pause) = (MonotonicTime::ZERO, MonotonicTime::ZERO, Duration::ZERO);
    let mut times = CallTimes::default();
    let caller: Arc<str> = "a".into();
    while now < end {
        // The events of this time, those of the other client first.
        while theirs.pop_front_if(|at| *at <= now).is_some() {
            if upstream.arrive(now) {
                times.other_passed.push(now);
            }
        }
        for call in in_flight.iter_mut().filter(|call| call.counts == now) {
            call.passed = upstream.arrive(now);
            if call.passed { &mut times.own_passed } else { &mut times.own_refused }.push(now);
        }
        for call in in_flight.extract_if(.., |call| call.ends <= now) {
            ledger.end(now, &caller);
            if call.passed {
                pause = Duration::ZERO;
            } else if ledger.refused(now, call.began, SpentLimit::Unnamed).is_some() || closed_until <= now {
                pause = (pause * 2).clamp(LIMIT.per / LIMIT.requests, LIMIT.per);
                closed_until = now + pause;
            }
        }
        let free = ledger.free_at(now, 0, 0.0).max(closed_until);
        if free <= now && in_flight.len() < MAX_CONCURRENCY {
            ledger.begin();
            let travel = Duration::from_millis(random.u64(150..250));
            let counts = now + travel.mul_f64(random.f64());
            in_flight.push(OwnCall { began: now, counts, ends: now + travel, passed: false });
            continue;
        }
        let next = in_flight.iter().flat_map(|call| [call.counts, call.ends]).filter(|at| *at > now);
        let next = next.chain(theirs.front().copied()).chain((free > now).then_some(free));
        now = next.min().unwrap_or(end);
    }
    times
}

/// Asserts, after five minutes to adapt and over an hour, that below 2 % of the calls are refused, and that at least
/// `min_used` of the calls that the other client leaves are used; and that 20 minutes after it has stopped nearly the
/// whole limit is used.
#[track_caller]
fn assert_shared(other: OtherClient, refused_count: bool, min_used: f64) {
    let begin = Duration::from_mins(5);
    let stops = begin + HOUR;
    for seed in 0..6 {
        let end = stops + Duration::from_mins(30);
        let times = simulate(other, refused_count, stops, end, seed);
        let shares = (times.refused_share(begin, stops), times.used_share(begin, stops));
        assert!(shares.0 < 0.02 && shares.1 >= min_used, "{other:?}, {refused_count}, {seed}: {shares:?}");
        let used_alone = times.used_share(stops + Duration::from_mins(20), end);
        assert!(used_alone >= 0.95, "{other:?}, {refused_count}, {seed}: {used_alone} when alone again");
    }
}

#[test]
fn quota_shared_with_steady_client_is_used() {
    assert_shared(OtherClient::Evenly, false, 0.93);
    assert_shared(OtherClient::Evenly, true, 0.90);
}

#[test]
fn quota_shared_with_bursts_each_minute_is_mostly_used() {
    assert_shared(OtherClient::AtTheMinute, false, 0.92);
    assert_shared(OtherClient::AtTheMinute, true, 0.86);
}

/// A higher usage beside random calls would mean more refusals.
#[test]
fn quota_shared_with_random_calls_gives_way() {
    assert_shared(OtherClient::Poisson, false, 0.75);
    assert_shared(OtherClient::Poisson, true, 0.55);
}
