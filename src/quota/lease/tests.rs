//! A fleet in miniature: replicas, a Redis that dies, forgets and comes back, and an upstream that counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::sync::Age;
use super::sync_interval::PULSE_INTERVAL;
use super::{CallName, ExchangeReply, ExchangeRequest, GUARD, LEASE_DURATION, Pass, SharedQuota, UNHEARD};
use crate::config::QuotaLimit;
use crate::quota::limiter::{Ledger, MonotonicTime};
use crate::quota::role::Role;
use crate::redis_client::ReplicaId;

const LIMITS: [QuotaLimit; 2] = [
    QuotaLimit { requests: 24, per: Duration::from_secs(4) },
    QuotaLimit { requests: 120, per: Duration::from_secs(30) },
];
/// No call takes longer, mostly,
const SHORT: Duration = Duration::from_millis(800);
/// and where the upstream is slow.
const LONG: Duration = Duration::from_secs(9);
const STEP: Duration = Duration::from_millis(25);

/// What the script does, said once more.
#[derive(Default)]
struct Redis {
    is_down: bool,
    lease: Option<(ReplicaId, MonotonicTime)>,
    ledger: BTreeMap<CallName, i64>,
    origin: bool,
    members: HashMap<ReplicaId, i64>,
}

impl Redis {
    fn flush(&mut self) {
        *self = Self { is_down: self.is_down, ..Self::default() };
    }

    fn exchange(&mut self, now: MonotonicTime, asked: &ExchangeRequest) -> ExchangeReply {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap();
        let time = ms(now);
        for (name, at) in &asked.tell {
            let at = time - asked.age(*at).0;
            let is_own = name.starts_with(&format!("{}:", asked.me));
            let known = self.ledger.entry(name.clone()).or_insert(at);
            *known = if is_own { at } else { at.min(*known) };
        }
        for name in &asked.take_out {
            self.ledger.remove(name);
        }
        // The session of no other one is looked for.
        self.lease.take_if(|(holder, until)| *until <= now && (*holder == asked.me || *holder == asked.last_holder));
        let mut took = false;
        match &self.lease {
            Some((holder, _)) if *holder == asked.me && asked.lease.is_zero() => self.lease = None,
            Some((holder, _)) if *holder == asked.me => self.lease = Some((asked.me.clone(), now + asked.lease)),
            None if asked.may_lead => {
                self.lease = Some((asked.me.clone(), now + asked.lease));
                took = true;
            }
            _ => {}
        }
        let holder = self.lease.as_ref().map(|(holder, _)| holder.clone());
        let holds = holder.as_ref() == Some(&asked.me);
        if holds {
            self.origin |= asked.vouches;
            self.ledger.retain(|_, at| *at > time - ms(asked.keep));
        }
        let mut granted = 0;
        if holds && self.origin {
            let room = asked.limits.iter().map(|limit| {
                let spent = self.ledger.values().filter(|at| **at > time - ms(limit.per + GUARD)).count();
                limit.requests.saturating_sub(u32::try_from(spent).unwrap())
            });
            granted = room.min().unwrap().min(asked.wants);
            for number in (asked.first..).take(granted as usize) {
                self.ledger.insert(format!("{}:{number}", asked.me).into(), time + ms(asked.latest));
            }
        }
        let calls = asked.look_back.map(|back| {
            let seen = self.ledger.iter().filter(|(_, at)| **at >= time - ms(back));
            seen.map(|(name, at)| (name.clone(), Age(time - at))).collect()
        });
        ExchangeReply { holder, took, is_known: self.origin, granted, calls }
    }

    fn pulse(&mut self, now: MonotonicTime, me: &ReplicaId, about: &ReplicaId) -> bool {
        let Some((_, until)) = self.lease.as_mut().filter(|(holder, until)| holder == about && *until > now) else {
            return false;
        };
        if me == about {
            *until = now + LEASE_DURATION;
        }
        true
    }
}

/// What replicas have asked of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    exchanges: usize,
    pulses: usize,
    counts: usize,
    /// Replicas that were read of when one looked who is there.
    members_read: usize,
}

struct Replica {
    common: SharedQuota,
    ledger: Ledger,
    /// When each ends, and which of those that are counted it is.
    under_way: Vec<(CallName, MonotonicTime, usize)>,
    exchanged: MonotonicTime,
    counted: MonotonicTime,
    looked: MonotonicTime,
    pulse_at: MonotonicTime,
    /// Something makes the next exchange earlier.
    is_waited_for: bool,
    paused_until: MonotonicTime,
}

impl Replica {
    fn new(id: u64, call: Duration, now: MonotonicTime) -> Self {
        let me = ReplicaId::read(format!("{id:016x}").as_bytes()).unwrap();
        Self {
            common: SharedQuota::new(me, LIMITS.to_vec(), 8, call, now, Vec::new()),
            ledger: Ledger::new(LIMITS.to_vec()),
            under_way: Vec::new(),
            exchanged: MonotonicTime::ZERO,
            counted: MonotonicTime::ZERO,
            looked: MonotonicTime::ZERO,
            pulse_at: now + PULSE_INTERVAL,
            is_waited_for: true,
            paused_until: MonotonicTime::ZERO,
        }
    }

    fn anew(&mut self) {
        self.ledger.replace(&self.common.limits(), self.common.stamps());
    }
}

#[derive(Clone, Debug)]
enum Event {
    Down(u64),
    Flush,
    Kill(usize),
    Pause(usize, u64),
    Start,
    /// Nobody wants calls any more, until they do again.
    Rest,
}

struct Fleet {
    now: MonotonicTime,
    redis: Redis,
    down_until: MonotonicTime,
    replicas: Vec<Replica>,
    born: u64,
    /// When the upstream counted each call.
    counted: Vec<MonotonicTime>,
    /// How long a call takes at the most.
    call: Duration,
    dice: u64,
    /// Of so many letters one is lost.
    lost: u64,
    /// Whether anybody wants calls.
    is_idle: bool,
    asked: Asked,
}

impl Fleet {
    fn new(replicas: usize, call: Duration, dice: u64) -> Self {
        let mut fleet = Self {
            now: Duration::from_secs(100),
            redis: Redis::default(),
            down_until: MonotonicTime::ZERO,
            replicas: Vec::new(),
            born: 0,
            counted: Vec::new(),
            call,
            dice,
            lost: u64::MAX,
            is_idle: false,
            asked: Asked::default(),
        };
        (0..replicas).for_each(|_| fleet.start());
        fleet
    }

    fn start(&mut self) {
        self.born += 1;
        self.replicas.push(Replica::new(self.born, self.call, self.now));
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn happen(&mut self, event: &Event) {
        match event {
            // One that has only just begun takes a small share that those who have not seen it do not leave to it.
            Event::Down(for_ms) if self.replicas.iter().all(|replica| replica.common.has_seen_all) => {
                self.down_until = self.now + Duration::from_millis(*for_ms);
            }
            // What only one that stands still knows, nobody can know.
            Event::Flush if self.replicas.iter().all(|replica| replica.paused_until <= self.now) => self.redis.flush(),
            // One is left, and nobody comes who cannot know how many others there are.
            Event::Kill(place) if self.replicas.len() > 1 => {
                let place = place % self.replicas.len();
                // What one has done that was never seen, and is not there any more, nobody can know either.
                if self.now >= self.down_until || self.replicas[place].common.has_seen_all {
                    for (_, _, nth) in self.replicas.remove(place).under_way {
                        self.counted[nth] = self.counted[nth].min(self.now + UNHEARD);
                    }
                }
            }
            Event::Pause(place, for_ms) if self.now >= self.down_until => {
                let place = place % self.replicas.len();
                self.replicas[place].paused_until = self.now + Duration::from_millis(*for_ms);
            }
            Event::Start if self.now >= self.down_until && self.replicas.len() < 6 => self.start(),
            Event::Rest => self.is_idle = !self.is_idle,
            _ => {}
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        self.redis.is_down = now < self.down_until;
        for place in 0..self.replicas.len() {
            self.end_calls(place);
            if self.replicas[place].paused_until > now {
                continue;
            }
            self.pulse(place);
            self.keep_in_touch(place);
            if !self.is_idle {
                self.call(place);
            }
        }
    }

    fn pulse(&mut self, place: usize) {
        let (now, replica) = (self.now, &mut self.replicas[place]);
        if now < replica.pulse_at {
            return;
        }
        replica.pulse_at = now + PULSE_INTERVAL;
        let Some(about) = replica.common.begin_pulse(now) else { return };
        self.asked.pulses += 1;
        let is_held = !self.redis.is_down && self.redis.pulse(now, &replica.common.me.clone(), &about);
        replica.is_waited_for |= replica.common.end_pulse(now, now, is_held);
    }

    /// As `drive` does.
    fn keep_in_touch(&mut self, place: usize) {
        let (now, replica) = (self.now, &self.replicas[place]);
        let schedule = replica.common.schedule(now);
        let is_waited_for = replica.is_waited_for || schedule.exchange.is_zero();
        let [exchanges, counts] = [(replica.exchanged, schedule.exchange), (replica.counted, schedule.count)]
            .map(|(last, interval)| now >= last + interval);
        if is_waited_for || exchanges || counts && !schedule.is_at_rest {
            self.exchange(place);
        }
        if counts && !self.redis.is_down {
            self.count(place, now >= self.replicas[place].looked + schedule.read);
        }
    }

    fn count(&mut self, place: usize, and_look: bool) {
        let (now, replica) = (self.now, &mut self.replicas[place]);
        let is_first = replica.counted == MonotonicTime::ZERO;
        replica.counted = now;
        let me = replica.common.me.clone();
        *self.redis.members.entry(me.clone()).or_default() += 1;
        self.asked.counts += 1;
        if and_look {
            replica.looked = now;
            self.asked.members_read += self.redis.members.len();
            let counts = self.redis.members.iter().map(|(replica, count)| (replica.clone(), *count)).collect();
            let (gone, more) = replica.common.note_heartbeats(now, counts);
            self.redis.members.retain(|replica, _| !gone.contains(replica));
            if more.ledger {
                replica.anew();
            }
        }
        for other in self.replicas.iter_mut().filter(|other| is_first && other.common.me != me) {
            other.common.note_joined(now, &me);
        }
    }

    fn end_calls(&mut self, place: usize) {
        let now = self.now;
        let replica = &mut self.replicas[place];
        let ended: Vec<_> = replica.under_way.extract_if(.., |(_, until, _)| *until <= now).collect();
        for (name, ..) in ended {
            replica.common.end(now, &name);
            replica.ledger.end(now, &Arc::from(""));
        }
    }

    fn exchange(&mut self, place: usize) {
        let now = self.now;
        self.asked.exchanges += 1;
        let replica = &mut self.replicas[place];
        (replica.exchanged, replica.is_waited_for) = (now, false);
        let asked = replica.common.begin_exchange(now);
        let change = if self.redis.is_down {
            replica.common.fail_exchange(now, &asked)
        } else {
            let answer = self.redis.exchange(now, &asked);
            let (granted, me) = (answer.granted, asked.me.clone());
            let change = replica.common.finish_exchange(now, &asked, answer);
            for other in (0..self.replicas.len()).filter(|other| *other != place) {
                if granted > 0 && self.roll(self.lost) > 0 {
                    let other = &mut self.replicas[other];
                    if other.common.note_granted(now, &me, asked.first, granted).ledger {
                        other.anew();
                    }
                }
            }
            change
        };
        if change.ledger {
            self.replicas[place].anew();
        }
    }

    fn call(&mut self, place: usize) {
        let (now, longest) = (self.now, u64::try_from(self.call.as_millis()).unwrap());
        for _ in 0..3 {
            let (takes, counts) = (1 + self.roll(longest), self.roll(1000));
            let replica = &mut self.replicas[place];
            if !matches!(replica.common.role(now), Role::Leader) || replica.ledger.free_at(now, 0, 0.0) > now {
                return;
            }
            let room = replica.ledger.limit_usage(now).map(|usage| usage.remaining).min().unwrap();
            let Pass::Go(name) = replica.common.pass(now, &Arc::from(""), room) else { return };
            replica.ledger.begin();
            replica.under_way.push((name, now + Duration::from_millis(takes), self.counted.len()));
            self.counted.push(now + Duration::from_millis(takes * counts / 1000));
        }
    }

    /// The most that a rolling window of this length held.
    fn most(&self, per: Duration) -> usize {
        let mut counted = self.counted.clone();
        counted.sort();
        let held = |place: usize| counted[place..].partition_point(|at| *at < counted[place] + per);
        (0..counted.len()).map(held).max().unwrap_or_default()
    }

    fn assert_within_limits(&self) -> Result<(), TestCaseError> {
        for limit in LIMITS {
            let most = self.most(limit.per);
            prop_assert!(most <= limit.requests as usize, "{} of {} in {:?}", most, limit.requests, limit.per);
        }
        Ok(())
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (100u64..40_000).prop_map(Event::Down),
        1 => Just(Event::Flush),
        3 => (0usize..6).prop_map(Event::Kill),
        2 => ((0usize..6), 100u64..3000).prop_map(|(place, time)| Event::Pause(place, time)),
        4 => Just(Event::Start),
        4 => Just(Event::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happens to Redis and to replicas, as long as it happens to all who are there alike.
    #[test]
    fn no_window_is_ever_passed(
        replicas in 1usize..6, is_slow in any::<bool>(), dice in any::<u64>(),
        events in prop::collection::vec((0u64..15_000, event()), 0..10),
    ) {
        let mut fleet = Fleet::new(replicas, if is_slow { LONG } else { SHORT }, dice);
        for (wait, event) in events {
            let until = fleet.now + Duration::from_millis(wait);
            while fleet.now < until {
                fleet.step();
            }
            fleet.happen(&event);
        }
        fleet.is_idle = false;
        (0..2400).for_each(|_| fleet.step());
        fleet.assert_within_limits()?;
        prop_assert!(!fleet.counted.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// And replicas that come and go cost the others next to nothing.
    #[test]
    fn what_there_is_is_used(replicas in 2usize..6, dice in any::<u64>(), lost in 2u64..10) {
        let mut fleet = Fleet::new(replicas, SHORT, dice);
        fleet.lost = lost;
        for step in 0..8000u32 {
            fleet.step();
            if step % 300 == 299 {
                let place = usize::try_from(fleet.roll(6)).unwrap();
                fleet.happen(&Event::Kill(place));
                fleet.happen(&Event::Start);
            }
        }
        fleet.assert_within_limits()?;
        let from = Duration::from_secs(140);
        let used = fleet.counted.iter().filter(|at| **at >= from).count();
        let used = f64::from(u32::try_from(used).unwrap());
        let windows = fleet.now.saturating_sub(from).as_secs_f64() / LIMITS[1].per.as_secs_f64();
        prop_assert!(used >= 0.95 * windows * f64::from(LIMITS[1].requests), "{} calls in {} windows", used, windows);
    }
}

#[test]
fn one_makes_the_calls_and_the_others_follow() {
    let mut fleet = Fleet::new(4, SHORT, 7);
    (0..200).for_each(|_| fleet.step());
    let now = fleet.now;
    let roles: Vec<_> = fleet.replicas.iter().map(|replica| replica.common.role(now)).collect();
    let calling = roles.iter().filter(|role| **role == Role::Leader).count();
    let following = roles.iter().filter(|role| matches!(role, Role::Follower(_))).count();
    assert_eq!((calling, following), (1, 3));
}

#[test]
fn without_redis_each_has_its_share_and_afterwards_one_has_all() {
    let mut fleet = Fleet::new(4, SHORT, 7);
    (0..400).for_each(|_| fleet.step());
    fleet.happen(&Event::Down(60_000));
    (0..200).for_each(|_| fleet.step());
    let limits: Vec<u32> = fleet.replicas.iter().map(|replica| replica.common.limits()[0].requests).collect();
    assert_eq!(limits, [4, 4, 4, 4], "one of five shares is left to those who begin meanwhile");
    let before = fleet.counted.len();
    (0..2000).for_each(|_| fleet.step());
    assert!(fleet.counted.len() > before + 100, "they go on");
    (0..400).for_each(|_| fleet.step());
    let now = fleet.now;
    assert_eq!(fleet.replicas.iter().filter(|replica| replica.common.role(now) == Role::Leader).count(), 1);
    fleet.assert_within_limits().unwrap();
}

/// A fleet that has come to rest, and what it asks of Redis in so many seconds.
fn asked_at_rest(replicas: usize, seconds: u64) -> (Fleet, Asked) {
    let mut fleet = Fleet::new(replicas, SHORT, 7);
    let step = |fleet: &mut Fleet, seconds: u64| (0..seconds * 40).for_each(|_| fleet.step());
    // Calls are made, and then nobody wants any more.
    step(&mut fleet, 20);
    fleet.is_idle = true;
    step(&mut fleet, 20);
    assert!(fleet.replicas.iter().all(|replica| replica.common.is_at_rest(fleet.now)));
    fleet.asked = Asked::default();
    step(&mut fleet, seconds);
    let asked = fleet.asked;
    (fleet, asked)
}

#[test]
fn replicas_at_rest_ask_seldom_however_many_they_are() {
    for replicas in [1, 3, 60] {
        let (_, asked) = asked_at_rest(replicas, 120);
        let each = |number: usize| number.div_ceil(replicas);
        // Of a second: three halves of a pulse, a fifth of a count, and a sixtieth of an exchange.
        assert!(each(asked.pulses) <= 120 * 1000 / 650 + 1, "{replicas}: {asked:?}");
        assert!(each(asked.counts) <= 120 / 5 + 1, "{replicas}: {asked:?}");
        assert!(each(asked.exchanges) <= 120 / 60 + 1, "{replicas}: {asked:?}");
        // What each reads of the others does not grow with their number.
        assert!(each(asked.members_read) <= 120 * 10 + 2 * replicas, "{replicas}: {asked:?}");
    }
}

#[test]
fn leader_that_dies_at_rest_is_followed_within_two_seconds() {
    let (mut fleet, _) = asked_at_rest(5, 3);
    let leader = fleet.replicas.iter().position(|replica| replica.common.role(fleet.now) == Role::Leader).unwrap();
    fleet.replicas.remove(leader);
    let died = fleet.now;
    while !fleet.replicas.iter().any(|replica| replica.common.role(fleet.now) == Role::Leader) {
        fleet.step();
        assert!(fleet.now <= died + Duration::from_secs(2), "nobody makes the calls");
    }
}
