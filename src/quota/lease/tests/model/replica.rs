//! One replica of the model: the real [`SharedQuota`] and [`Ledger`], and what the driver, the scheduler and the
//! circuit breaker do around them.

use std::sync::Arc;
use std::time::Duration;

use super::fingerprint::Fingerprint;
use super::world::{ModelSettings, ModelWorld, PLACES, TICK, UpstreamCall};
use crate::quota::lease::sync::{ExchangeReply, ExchangeRequest};
use crate::quota::lease::{CallName, PULSE_INTERVAL, Pass, SharedQuota};
use crate::quota::limiter::{Ledger, MonotonicTime};
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

/// The steps after which an exchange without an answer has failed: `cache.redis.timeout`.
pub(super) const EXCHANGE_TIMEOUT: u32 = 2;
/// The circuit breaker of the Redis client: failures that open it, and steps between two probes.
const FAILURES_TO_OPEN: u32 = 5;
const PROBE_TICKS: u32 = 8;
/// The largest number of calls that begin in one step.
const MAX_CALLS: u32 = 3;

/// What happens to the next exchange of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum ExchangeFate {
    #[default]
    Prompt,
    /// Redis runs it at once, and the reply takes so many steps.
    LateReply(u32),
    /// Redis runs it after so many steps, and the reply comes at once.
    LateRequest(u32),
    /// Redis runs it at once, and the reply is lost.
    LostReply,
    /// It fails, and Redis runs it after so many steps all the same.
    StrayRequest(u32),
}

/// An exchange in flight.
#[derive(Clone)]
pub(super) struct PendingExchange {
    request: ExchangeRequest,
    /// The reply that is under way; `None` if Redis has not run the request, or never answers.
    reply: Option<ExchangeReply>,
    is_to_run: bool,
    due: u32,
}

impl PendingExchange {
    pub(super) fn fingerprint_request(request: &ExchangeRequest, out: &mut Fingerprint<'_>) {
        out.put((out.place(&request.me), out.place(&request.lease.last_holder), request.lease.may_acquire));
        out.put((request.lease.duration, request.grants.calls, request.declares_complete, request.look_back));
        out.set(request.recorded.iter().map(|(name, at)| (out.call(name), request.age(*at).0)).collect());
        out.set(request.removed.iter().map(|name| out.call(name)).collect());
    }
}

/// When each part of the driver acts next, in steps.
#[derive(Clone, Copy, Hash)]
struct DriverTimes {
    exchanged: Option<u32>,
    counted: Option<u32>,
    members_read: Option<u32>,
    pulse_at: u32,
    /// Whether an event makes the next exchange due.
    is_exchange_due: bool,
}

/// The connection of one replica to Redis.
#[derive(Clone, Copy, Default)]
pub(super) struct RedisLink {
    pub(super) cut_until: u32,
    /// Until when announcements are lost.
    pub(super) deaf_until: u32,
    pub(super) fate: ExchangeFate,
    failures: u32,
    probe_at: u32,
}

#[derive(Clone)]
pub(super) struct ModelReplica {
    pub(super) id: u64,
    pub(super) quota: SharedQuota,
    ledger: Ledger,
    /// Calls in flight, each with the step in which it ends.
    in_flight: Vec<(CallName, u32)>,
    times: DriverTimes,
    pub(super) link: RedisLink,
    pub(super) pending: Option<PendingExchange>,
    pub(super) suspended_until: u32,
    /// Whether the next call takes as long as the longest.
    pub(super) is_next_call_long: bool,
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap()
}

impl ModelReplica {
    pub(super) fn new(id: u64, settings: &ModelSettings, now: MonotonicTime, tick: u32) -> Self {
        let me = ReplicaId::parse(format!("{id:016x}").as_bytes()).unwrap();
        let limits = vec![settings.limit];
        let longest_call = TICK * settings.longest_call_ticks;
        let [exchanged, counted, members_read] = [None; 3];
        let pulse_at = tick + ticks(PULSE_INTERVAL);
        Self {
            id,
            quota: SharedQuota::new(me, limits.clone(), PLACES, longest_call, now, Vec::new()),
            ledger: Ledger::new(limits),
            in_flight: Vec::new(),
            times: DriverTimes { exchanged, counted, members_read, pulse_at, is_exchange_due: true },
            link: RedisLink::default(),
            pending: None,
            suspended_until: 0,
            is_next_call_long: false,
        }
    }

    /// Whether no fault goes on, and none is to come.
    pub(super) fn is_undisturbed(&self, tick: u32) -> bool {
        tick >= self.link.cut_until.max(self.link.deaf_until).max(self.suspended_until)
    }

    pub(super) fn may_spend(&self, now: MonotonicTime) -> bool {
        self.quota.state.leadership().is_some_and(|leadership| leadership.may_spend(now))
    }

    pub(super) fn step(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        self.end_calls(world.tick, now);
        self.end_exchange(world, now);
        self.pulse(world, now);
        self.keep_in_touch(world, now);
        if world.has_demand {
            self.call(world, now);
        }
    }

    fn end_calls(&mut self, tick: u32, now: MonotonicTime) {
        for (name, _) in self.in_flight.extract_if(.., |(_, ends)| *ends <= tick) {
            self.quota.end(now, &name);
            self.ledger.end(now, &Arc::from(""));
        }
    }

    /// Whether Redis answers; with the circuit breaker, which calls it only now and then after failures.
    fn reach(&mut self, world: &ModelWorld) -> bool {
        let link = &mut self.link;
        let is_open = link.failures >= FAILURES_TO_OPEN;
        if is_open && world.tick < link.probe_at {
            return false;
        }
        if world.is_down() || world.tick < link.cut_until {
            (link.failures, link.probe_at) = ((link.failures + 1).min(FAILURES_TO_OPEN), world.tick + PROBE_TICKS);
            return false;
        }
        link.failures = 0;
        true
    }

    fn pulse(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        if world.tick < self.times.pulse_at {
            return;
        }
        self.times.pulse_at = world.tick + ticks(PULSE_INTERVAL);
        let Some(holder) = self.quota.begin_pulse(now) else { return };
        let is_reached = self.reach(world);
        let is_held = is_reached && world.redis.pulse(world.now(), &self.quota.replica.me, &holder);
        self.times.is_exchange_due |= self.quota.end_pulse(now, now, is_held);
    }

    /// Does what the driver does: one exchange at a time, and heartbeats between exchanges.
    fn keep_in_touch(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        if self.pending.is_some() {
            return;
        }
        let schedule = self.quota.schedule(now);
        let is_due = |last: Option<u32>, interval| last.is_none_or(|last| world.tick >= last + ticks(interval));
        let is_heartbeat_due = is_due(self.times.counted, schedule.heartbeat_interval);
        let is_members_due = is_due(self.times.members_read, schedule.members_interval);
        let is_exchange_due = self.times.is_exchange_due || is_due(self.times.exchanged, schedule.exchange_interval);
        if is_exchange_due || is_heartbeat_due && !schedule.is_idle {
            self.begin_exchange(world, now);
        }
        if is_heartbeat_due && self.pending.is_none() && self.reach(world) {
            self.count(world, now, is_members_due);
        }
    }

    fn count(&mut self, world: &mut ModelWorld, now: MonotonicTime, reads_members: bool) {
        let me = self.quota.replica.me.clone();
        *world.redis.members.entry(me.clone()).or_default() += 1;
        if reads_members {
            self.times.members_read = Some(world.tick);
            let counts = world.redis.members.iter().map(|(replica, count)| (replica.clone(), *count)).collect();
            let (gone, change) = self.quota.note_heartbeats(now, counts);
            world.redis.members.retain(|replica, _| !gone.contains(replica));
            if change.ledger {
                self.rebuild_ledger();
            }
        }
        if self.times.counted.replace(world.tick).is_none() {
            world.announce_start(&me);
        }
    }

    fn begin_exchange(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        (self.times.exchanged, self.times.is_exchange_due) = (Some(world.tick), false);
        let request = self.quota.begin_exchange(now);
        if !self.reach(world) {
            let change = self.quota.fail_exchange(now, &request);
            return self.take_change(change.ledger);
        }
        let (reply, is_to_run, ticks) = match std::mem::take(&mut self.link.fate) {
            ExchangeFate::Prompt => {
                let reply = world.run_in_redis(&request);
                let change = self.quota.finish_exchange(now, &request, &reply);
                return self.take_change(change.ledger);
            }
            ExchangeFate::LateReply(ticks) => (Some(world.run_in_redis(&request)), false, ticks),
            ExchangeFate::LateRequest(ticks) => (None, true, ticks),
            ExchangeFate::LostReply => {
                world.run_in_redis(&request);
                (None, false, EXCHANGE_TIMEOUT)
            }
            ExchangeFate::StrayRequest(ticks) => {
                world.stray_requests.push((world.tick + ticks, request.clone()));
                (None, false, EXCHANGE_TIMEOUT)
            }
        };
        self.pending = Some(PendingExchange { request, reply, is_to_run, due: world.tick + ticks });
    }

    fn end_exchange(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        let Some(PendingExchange { request, reply, is_to_run, .. }) = self.pending.take_if(|it| it.due <= world.tick)
        else {
            return;
        };
        let is_cut = world.is_down() || world.tick < self.link.cut_until;
        let reply = if is_to_run && !is_cut { Some(world.run_in_redis(&request)) } else { reply };
        let change = match reply {
            Some(reply) => self.quota.finish_exchange(now, &request, &reply),
            None => self.quota.fail_exchange(now, &request),
        };
        self.take_change(change.ledger);
    }

    fn take_change(&mut self, is_ledger_changed: bool) {
        if is_ledger_changed {
            self.rebuild_ledger();
        }
    }

    fn rebuild_ledger(&mut self) {
        self.ledger.replace(&self.quota.limits(), self.quota.stamps());
    }

    /// Hears what an exchange of another replica has changed. A suspended replica does so when it goes on, which is
    /// later, so that calls count for longer; here it does at once.
    pub(super) fn hear(&mut self, tick: u32, now: MonotonicTime, request: &ExchangeRequest, reply: &ExchangeReply) {
        if tick < self.link.deaf_until || tick < self.link.cut_until {
            return;
        }
        self.times.is_exchange_due |= reply.is_acquired || request.lease.duration.is_zero();
        if reply.granted > 0 && self.quota.note_granted(now, &request.me, request.grants.first, reply.granted).ledger {
            self.rebuild_ledger();
        }
    }

    /// Returns the lease.
    pub(super) fn leave(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        self.quota.leave();
        self.link.fate = ExchangeFate::Prompt;
        self.begin_exchange(world, now);
        world.redis.members.remove(&self.quota.replica.me);
    }

    fn call(&mut self, world: &mut ModelWorld, now: MonotonicTime) {
        for _ in 0..MAX_CALLS {
            if self.quota.role(now) != Role::Leader || self.ledger.free_at(now, 0, 0.0) > now {
                return;
            }
            let room = self.ledger.limit_usage(now).map(|usage| usage.remaining).min().unwrap();
            let Pass::Go(name) = self.quota.pass(now, &Arc::from(""), room) else { return };
            self.ledger.begin();
            let settings = &world.settings;
            let is_long = std::mem::take(&mut self.is_next_call_long);
            let ends = world.tick + if is_long { settings.longest_call_ticks } else { settings.call_ticks };
            let number = name.rsplit(':').next().unwrap().parse().unwrap();
            let is_partitioned = self.quota.divided_by().is_some();
            world.upstream.push(UpstreamCall { id: self.id, number, ends, is_partitioned });
            self.in_flight.push((name, ends));
        }
    }

    pub(super) fn fingerprint(&self, tick: u32, out: &mut Fingerprint<'_>) {
        let quota = &self.quota;
        quota.state.fingerprint(out);
        quota.contact.fingerprint(out);
        quota.members.fingerprint(out);
        quota.calls.fingerprint(out);
        out.put((quota.last_holder.as_ref().map(|it| out.place(it)), quota.ledger.is_complete, quota.is_leaving));
        out.put(quota.ledger.read_at.map(|at| out.age(at)));
        out.put((self.ledger.in_flight(), self.ledger.stamps().map(|at| out.age(at)).collect::<Vec<_>>()));
        out.put(self.ledger.limit_usage(MonotonicTime::MAX / 2).map(|it| it.limit.requests).collect::<Vec<_>>());
        let (since, left) = (|at: Option<u32>| at.map(|at| (tick - at).min(200)), |at: u32| at.saturating_sub(tick));
        out.set(self.in_flight.iter().map(|(name, ends)| (out.call(name), left(*ends))).collect());
        let times = &self.times;
        out.put((since(times.exchanged), since(times.counted), since(times.members_read)));
        out.put((left(times.pulse_at), times.is_exchange_due, left(self.suspended_until), self.is_next_call_long));
        let link = &self.link;
        out.put((left(link.cut_until), left(link.deaf_until), link.fate, link.failures));
        out.put(if link.failures < FAILURES_TO_OPEN { 0 } else { left(link.probe_at) });
        out.put(self.pending.is_some());
        if let Some(pending) = &self.pending {
            PendingExchange::fingerprint_request(&pending.request, out);
            out.put((left(pending.due), pending.is_to_run));
            if let Some(reply) = &pending.reply {
                out.put((reply.holder.as_ref().map(|it| out.place(it)), reply.is_acquired, reply.is_complete));
                let calls = reply.calls.iter().flatten().map(|(name, age)| (out.call(name), age.0));
                out.set(calls.collect());
                out.put(reply.granted);
            }
        }
    }
}
