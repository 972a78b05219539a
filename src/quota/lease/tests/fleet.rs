//! A simulation of replicas, of the Redis that they share, and of an upstream that counts their calls.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::redis::SimulatedRedis;
use crate::config::QuotaLimit;
use crate::quota::lease::timing::CALL_SILENCE_TIMEOUT;
use crate::quota::lease::{CallName, PULSE_INTERVAL, Pass, SharedQuota};
use crate::quota::limiter::{Ledger, MonotonicTime};
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

pub(super) const LIMITS: [QuotaLimit; 2] = [
    QuotaLimit { requests: 24, per: Duration::from_secs(4) },
    QuotaLimit { requests: 120, per: Duration::from_secs(30) },
];
const STEP: Duration = Duration::from_millis(25);
/// The largest number of replicas that events start.
const MAX_REPLICAS: usize = 6;

#[derive(Clone, Debug)]
pub(super) enum FleetEvent {
    /// Redis is down for so many milliseconds.
    Down(u64),
    Flush,
    Kill(usize),
    /// A replica ends in an orderly way: it returns the lease.
    Leave(usize),
    /// A replica is suspended for so many milliseconds.
    Suspend(usize, u64),
    Start,
    /// The demand for calls ends, or begins again.
    ToggleDemand,
}

impl FleetEvent {
    pub(super) fn strategy() -> impl Strategy<Value = Self> {
        prop_oneof![
            3 => (100u64..40_000).prop_map(Self::Down),
            1 => Just(Self::Flush),
            3 => (0..MAX_REPLICAS).prop_map(Self::Kill),
            1 => (0..MAX_REPLICAS).prop_map(Self::Leave),
            2 => (0..MAX_REPLICAS, 100u64..3000).prop_map(|(place, ms)| Self::Suspend(place, ms)),
            4 => Just(Self::Start),
            4 => Just(Self::ToggleDemand),
        ]
    }
}

/// The number of commands of each kind that were sent to Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RedisLoad {
    pub(super) exchanges: usize,
    pub(super) pulses: usize,
    pub(super) heartbeats: usize,
    /// The counters that were read, over all readings.
    pub(super) members_read: usize,
}

/// A call in flight.
struct SimulatedCall {
    name: CallName,
    until: MonotonicTime,
    /// Its place among the calls that the upstream counts.
    place: usize,
}

pub(super) struct SimulatedReplica {
    pub(super) quota: SharedQuota,
    ledger: Ledger,
    in_flight: Vec<SimulatedCall>,
    exchanged: MonotonicTime,
    counted: MonotonicTime,
    members_read: MonotonicTime,
    pulse_at: MonotonicTime,
    /// Whether an event makes the next exchange due.
    is_exchange_due: bool,
    pub(super) suspended_until: MonotonicTime,
}

impl SimulatedReplica {
    fn new(id: u64, longest_call: Duration, now: MonotonicTime) -> Self {
        let me = ReplicaId::parse(format!("{id:016x}").as_bytes()).unwrap();
        Self {
            quota: SharedQuota::new(me, LIMITS.to_vec(), 8, longest_call, now, Vec::new()),
            ledger: Ledger::new(LIMITS.to_vec()),
            in_flight: Vec::new(),
            exchanged: MonotonicTime::ZERO,
            counted: MonotonicTime::ZERO,
            members_read: MonotonicTime::ZERO,
            pulse_at: now + PULSE_INTERVAL,
            is_exchange_due: true,
            suspended_until: MonotonicTime::ZERO,
        }
    }

    fn rebuild_ledger(&mut self) {
        self.ledger.replace(&self.quota.limits(), self.quota.stamps());
    }
}

pub(super) struct SimulatedFleet {
    pub(super) now: MonotonicTime,
    pub(super) redis: SimulatedRedis,
    pub(super) down_until: MonotonicTime,
    flushed_at: MonotonicTime,
    pub(super) replicas: Vec<SimulatedReplica>,
    started: u64,
    /// When the upstream counted each call.
    pub(super) counted: Vec<MonotonicTime>,
    longest_call: Duration,
    random: u64,
    /// Fraction: one of so many announcements of granted calls is lost.
    pub(super) loss: u64,
    pub(super) has_demand: bool,
    pub(super) load: RedisLoad,
}

impl SimulatedFleet {
    pub(super) fn new(replicas: usize, longest_call: Duration, seed: u64) -> Self {
        let mut fleet = Self {
            now: Duration::from_secs(100),
            redis: SimulatedRedis::default(),
            down_until: MonotonicTime::ZERO,
            flushed_at: MonotonicTime::ZERO,
            replicas: Vec::new(),
            started: 0,
            counted: Vec::new(),
            longest_call,
            random: seed,
            loss: u64::MAX,
            has_demand: true,
            load: RedisLoad::default(),
        };
        (0..replicas).for_each(|_| fleet.start());
        fleet
    }

    fn start(&mut self) {
        self.started += 1;
        self.replicas.push(SimulatedReplica::new(self.started, self.longest_call, self.now));
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % sides
    }

    /// Lets an event happen, unless no replica could know better afterwards.
    pub(super) fn happen(&mut self, event: &FleetEvent) {
        match event {
            // A replica that has just started takes a small share that the others, which have not seen it, use too.
            FleetEvent::Down(ms) if self.replicas.iter().all(|replica| replica.quota.members.is_complete()) => {
                self.down_until = self.now + Duration::from_millis(*ms);
            }
            // The calls that only a suspended replica knows would be lost.
            FleetEvent::Flush if self.replicas.iter().all(|replica| replica.suspended_until <= self.now) => {
                self.redis.flush();
                self.flushed_at = self.now;
            }
            FleetEvent::Kill(place) => self.kill(*place),
            FleetEvent::Leave(place) if self.now >= self.down_until && self.replicas.len() > 1 => {
                let place = place % self.replicas.len();
                if self.replicas[place].suspended_until <= self.now {
                    self.replicas[place].quota.leave();
                    self.exchange(place);
                    self.kill(place);
                }
            }
            FleetEvent::Suspend(place, ms) if self.now >= self.down_until => {
                let place = place % self.replicas.len();
                self.replicas[place].suspended_until = self.now + Duration::from_millis(*ms);
            }
            FleetEvent::Start if self.now >= self.down_until && self.replicas.len() < MAX_REPLICAS => self.start(),
            FleetEvent::ToggleDemand => self.has_demand = !self.has_demand,
            _ => {}
        }
    }

    /// Kills a replica, unless it is the last one: a replica that starts during an outage cannot know of others.
    fn kill(&mut self, place: usize) {
        let place = place % self.replicas.len();
        // The calls of a replica that dies during an outage before any other has seen it would be lost.
        let is_known = self.now >= self.down_until || self.replicas[place].quota.members.is_complete();
        if self.replicas.len() > 1 && is_known {
            for call in self.replicas.remove(place).in_flight {
                self.counted[call.place] = self.counted[call.place].min(self.now + CALL_SILENCE_TIMEOUT);
            }
        }
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        self.redis.is_down = now < self.down_until;
        for place in 0..self.replicas.len() {
            self.end_calls(place);
            if self.replicas[place].suspended_until > now {
                continue;
            }
            self.pulse(place);
            self.keep_in_touch(place);
            if self.has_demand {
                self.call(place);
            }
        }
    }

    /// Runs the simulation for so many steps.
    pub(super) fn steps(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    pub(super) fn leaders(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.quota.role(self.now) == Role::Leader).count()
    }

    fn pulse(&mut self, place: usize) {
        let (now, replica) = (self.now, &mut self.replicas[place]);
        if now < replica.pulse_at {
            return;
        }
        replica.pulse_at = now + PULSE_INTERVAL;
        let Some(holder) = replica.quota.begin_pulse(now) else { return };
        self.load.pulses += 1;
        let is_held = !self.redis.is_down && self.redis.pulse(now, &replica.quota.replica.me.clone(), &holder);
        replica.is_exchange_due |= replica.quota.end_pulse(now, now, is_held);
    }

    /// Does what the driver does.
    fn keep_in_touch(&mut self, place: usize) {
        let (now, replica) = (self.now, &self.replicas[place]);
        let schedule = replica.quota.schedule(now);
        let is_exchange_due = replica.is_exchange_due || now >= replica.exchanged + schedule.exchange_interval;
        let is_heartbeat_due = now >= replica.counted + schedule.heartbeat_interval;
        if is_exchange_due || is_heartbeat_due && !schedule.is_idle {
            self.exchange(place);
        }
        if is_heartbeat_due && !self.redis.is_down {
            self.count(place, now >= self.replicas[place].members_read + schedule.members_interval);
        }
    }

    fn count(&mut self, place: usize, reads_members: bool) {
        let (now, replica) = (self.now, &mut self.replicas[place]);
        let is_first = replica.counted == MonotonicTime::ZERO;
        replica.counted = now;
        let me = replica.quota.replica.me.clone();
        *self.redis.members.entry(me.clone()).or_default() += 1;
        self.load.heartbeats += 1;
        if reads_members {
            replica.members_read = now;
            self.load.members_read += self.redis.members.len();
            let counts = self.redis.members.iter().map(|(replica, count)| (replica.clone(), *count)).collect();
            let (gone, change) = replica.quota.note_heartbeats(now, counts);
            self.redis.members.retain(|replica, _| !gone.contains(replica));
            if change.ledger {
                replica.rebuild_ledger();
            }
        }
        for other in self.replicas.iter_mut().filter(|other| is_first && other.quota.replica.me != me) {
            other.quota.note_joined(now, &me);
        }
    }

    fn end_calls(&mut self, place: usize) {
        let now = self.now;
        let replica = &mut self.replicas[place];
        let ended: Vec<_> = replica.in_flight.extract_if(.., |call| call.until <= now).collect();
        for call in ended {
            replica.quota.end(now, &call.name);
            replica.ledger.end(now, &Arc::from(""));
        }
    }

    fn exchange(&mut self, place: usize) {
        let now = self.now;
        self.load.exchanges += 1;
        let replica = &mut self.replicas[place];
        (replica.exchanged, replica.is_exchange_due) = (now, false);
        let request = replica.quota.begin_exchange(now);
        let change = if self.redis.is_down {
            replica.quota.fail_exchange(now, &request)
        } else {
            let reply = self.redis.exchange(now, &request);
            let granted = reply.granted;
            let change = replica.quota.finish_exchange(now, &request, &reply);
            for other in (0..self.replicas.len()).filter(|other| *other != place) {
                if granted > 0 && self.roll(self.loss) > 0 {
                    let other = &mut self.replicas[other];
                    if other.quota.note_granted(now, &request.me, request.grants.first, granted).ledger {
                        other.rebuild_ledger();
                    }
                }
            }
            change
        };
        if change.ledger {
            self.replicas[place].rebuild_ledger();
        }
    }

    fn call(&mut self, place: usize) {
        let (now, longest) = (self.now, u64::try_from(self.longest_call.as_millis()).unwrap());
        for _ in 0..3 {
            let (takes, counts) = (1 + self.roll(longest), self.roll(1000));
            let replica = &mut self.replicas[place];
            if replica.quota.role(now) != Role::Leader || replica.ledger.free_at(now, 0, 0.0) > now {
                return;
            }
            let room = replica.ledger.limit_usage(now).map(|usage| usage.remaining).min().unwrap();
            let Pass::Go(name) = replica.quota.pass(now, &Arc::from(""), room) else { return };
            let is_in_partition = replica.quota.divided_by().is_some();
            let may_be_lost = now < self.flushed_at + Duration::from_secs(2);
            assert!(is_in_partition || may_be_lost || self.redis.ledger.contains_key(&name), "{name} is not recorded");
            replica.ledger.begin();
            let until = now + Duration::from_millis(takes);
            replica.in_flight.push(SimulatedCall { name, until, place: self.counted.len() });
            self.counted.push(now + Duration::from_millis(takes * counts / 1000));
        }
    }

    /// The largest number of calls that the upstream counted in a rolling window of this length.
    fn largest_window(&self, per: Duration) -> usize {
        let mut counted = self.counted.clone();
        counted.sort();
        let in_window = |place: usize| counted[place..].partition_point(|at| *at < counted[place] + per);
        (0..counted.len()).map(in_window).max().unwrap_or_default()
    }

    pub(super) fn assert_within_limits(&self) -> Result<(), TestCaseError> {
        for limit in LIMITS {
            let most = self.largest_window(limit.per);
            prop_assert!(most <= limit.requests as usize, "{} of {} in {:?}", most, limit.requests, limit.per);
        }
        Ok(())
    }
}
