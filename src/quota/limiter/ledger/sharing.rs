//! The quota shared with a client that is none of ours, played on paper.
//!
//! The upstream allows 60 calls a rolling minute. The other client makes 30 a minute and does not care whether they are
//! refused; we want to call all the time.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const LIMIT: QuotaLimit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
/// So many calls of ours at once.
const LANES: usize = 8;
const HOUR: Duration = Duration::from_hours(1);

/// When the other client calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Evenly,
    Poisson,
    AtTheMinute,
}

impl Other {
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

/// The rolling minute as the upstream counts it.
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

#[derive(Clone, Copy)]
struct Ours {
    began: MonotonicTime,
    counts: MonotonicTime,
    ends: MonotonicTime,
    passed: bool,
}

/// What became of all calls that counted within some span.
#[derive(Clone, Debug, Default)]
struct Tally {
    ours: Vec<MonotonicTime>,
    ours_refused: Vec<MonotonicTime>,
    theirs: Vec<MonotonicTime>,
}

impl Tally {
    fn within(times: &[MonotonicTime], from: MonotonicTime, to: MonotonicTime) -> f64 {
        f64::from(u32::try_from(times.iter().filter(|at| (from..to).contains(*at)).count()).unwrap())
    }

    /// Which share of our calls was refused.
    fn refused(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let refused = Self::within(&self.ours_refused, from, to);
        refused / (refused + Self::within(&self.ours, from, to))
    }

    /// Which share we used of what the other client left.
    fn used(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let all = f64::from(LIMIT.requests) * to.saturating_sub(from).as_secs_f64() / LIMIT.per.as_secs_f64();
        Self::within(&self.ours, from, to) / (all - Self::within(&self.theirs, from, to))
    }
}

/// Plays for `whole`; the other client stops at `stops`.
fn play(other: Other, refused_count: bool, stops: MonotonicTime, whole: MonotonicTime, seed: u64) -> Tally {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut theirs = other.calls(stops, &mut random);
    let mut upstream = Upstream { counted: VecDeque::new(), refused_count };
    let mut ledger = Ledger::new(vec![LIMIT]);
    let mut under_way: Vec<Ours> = Vec::new();
    let (mut now, mut closed_until, mut pause) = (MonotonicTime::ZERO, MonotonicTime::ZERO, Duration::ZERO);
    let mut tally = Tally::default();
    let us: Arc<str> = "us".into();
    while now < whole {
        // All that happens now, the other client first.
        while theirs.pop_front_if(|at| *at <= now).is_some() {
            if upstream.arrive(now) {
                tally.theirs.push(now);
            }
        }
        for call in under_way.iter_mut().filter(|call| call.counts == now) {
            call.passed = upstream.arrive(now);
            if call.passed { &mut tally.ours } else { &mut tally.ours_refused }.push(now);
        }
        for call in under_way.extract_if(.., |call| call.ends <= now) {
            ledger.end(now, &us);
            if call.passed {
                pause = Duration::ZERO;
            } else if ledger.refused(now, call.began, SpentLimit::Unnamed).is_some() || closed_until <= now {
                pause = (pause * 2).clamp(LIMIT.per / LIMIT.requests, LIMIT.per);
                closed_until = now + pause;
            }
        }
        let free = ledger.free_at(now, 0, 0.0).max(closed_until);
        if free <= now && under_way.len() < LANES {
            ledger.begin();
            let travel = Duration::from_millis(random.u64(150..250));
            let counts = now + travel.mul_f64(random.f64());
            under_way.push(Ours { began: now, counts, ends: now + travel, passed: false });
            continue;
        }
        let next = under_way.iter().flat_map(|call| [call.counts, call.ends]).filter(|at| *at > now);
        let next = next.chain(theirs.front().copied()).chain((free > now).then_some(free));
        now = next.min().unwrap_or(whole);
    }
    tally
}

/// After five minutes to find out what there is, over an hour: the share refused is below 2 %, and at least `used` of
/// what the other client leaves is used; and half an hour after that, when it has stopped, all of it again.
#[track_caller]
fn assert_shared(other: Other, refused_count: bool, used: f64) {
    let begin = Duration::from_mins(5);
    let stops = begin + HOUR;
    for seed in 0..6 {
        let whole = stops + Duration::from_mins(30);
        let tally = play(other, refused_count, stops, whole, seed);
        let shares = (tally.refused(begin, stops), tally.used(begin, stops));
        assert!(shares.0 < 0.02 && shares.1 >= used, "{other:?}, {refused_count}, {seed}: {shares:?}");
        let back = tally.used(stops + Duration::from_mins(20), whole);
        assert!(back >= 0.95, "{other:?}, {refused_count}, {seed}: {back} when alone again");
    }
}

#[test]
fn what_a_steady_client_leaves_is_used() {
    assert_shared(Other::Evenly, false, 0.93);
    assert_shared(Other::Evenly, true, 0.90);
}

#[test]
fn what_a_client_leaves_that_calls_at_the_minute_is_used_but_for_an_eighth() {
    assert_shared(Other::AtTheMinute, false, 0.92);
    assert_shared(Other::AtTheMinute, true, 0.86);
}

/// To use more of what comes and goes at random is to be refused more often.
#[test]
fn a_client_that_calls_at_random_is_given_way() {
    assert_shared(Other::Poisson, false, 0.75);
    assert_shared(Other::Poisson, true, 0.55);
}
