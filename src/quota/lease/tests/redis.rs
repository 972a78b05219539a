//! A simulation of Redis: what `sync.lua`, a pulse and a heartbeat do there.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::quota::lease::sync::{Age, ExchangeReply, ExchangeRequest};
use crate::quota::lease::{CallName, LEASE_DURATION};
use crate::quota::limiter::{GUARD, MonotonicTime};
use crate::replicas::ReplicaId;

#[derive(Clone, Default)]
pub(super) struct SimulatedRedis {
    pub(super) is_down: bool,
    pub(super) lease: Option<(ReplicaId, MonotonicTime)>,
    pub(super) ledger: BTreeMap<CallName, i64>,
    pub(super) is_complete: bool,
    pub(super) members: HashMap<ReplicaId, i64>,
}

impl SimulatedRedis {
    /// Loses all data.
    pub(super) fn flush(&mut self) {
        *self = Self { is_down: self.is_down, ..Self::default() };
    }

    /// Runs `sync.lua`.
    pub(super) fn exchange(&mut self, now: MonotonicTime, request: &ExchangeRequest) -> ExchangeReply {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap();
        let time = ms(now);
        for (name, at) in &request.recorded {
            let at = time - request.age(*at).0;
            let is_own = name.starts_with(&format!("{}:", request.me));
            let known = self.ledger.entry(name.clone()).or_insert(at);
            *known = if is_own { at } else { at.min(*known) };
        }
        for name in &request.removed {
            self.ledger.remove(name);
        }
        let is_acquired = self.update_lease(now, request);
        let holder = self.lease.as_ref().map(|(holder, _)| holder.clone());
        let is_holder = holder.as_ref() == Some(&request.me);
        if is_holder {
            self.is_complete |= request.declares_complete && !is_acquired;
            self.ledger.retain(|_, at| *at > time - ms(request.retention));
        }
        let granted = if is_holder && self.is_complete { self.room(time, request) } else { 0 };
        for number in request.grants.numbers(granted) {
            self.ledger.insert(format!("{}:{number}", request.me).into(), time + ms(request.grants.latest));
        }
        let calls = request.look_back.map(|back| {
            let seen = self.ledger.iter().filter(|(_, at)| **at >= time - ms(back));
            seen.map(|(name, at)| (name.clone(), Age(time - at))).collect()
        });
        ExchangeReply { holder, is_acquired, is_complete: self.is_complete, granted, calls }
    }

    /// Expires, returns, renews or acquires the lease. Returns whether it was acquired.
    fn update_lease(&mut self, now: MonotonicTime, request: &ExchangeRequest) -> bool {
        let me = &request.me;
        // The script checks only the sessions of these two.
        self.lease.take_if(|(holder, until)| *until <= now && (holder == me || *holder == request.lease.last_holder));
        match &self.lease {
            Some((holder, _)) if holder == me && request.lease.duration.is_zero() => self.lease = None,
            Some((holder, _)) if holder == me => self.lease = Some((me.clone(), now + request.lease.duration)),
            None if request.lease.may_acquire => {
                self.lease = Some((me.clone(), now + request.lease.duration));
                return true;
            }
            _ => {}
        }
        false
    }

    /// How many of the calls that are asked for fit into all limits.
    fn room(&self, time: i64, request: &ExchangeRequest) -> u32 {
        let room = request.limits.iter().map(|limit| {
            let window = i64::try_from((limit.per + GUARD).as_millis()).unwrap();
            let spent = self.ledger.values().filter(|at| **at > time - window).count();
            limit.requests.saturating_sub(u32::try_from(spent).unwrap())
        });
        room.min().unwrap().min(request.grants.calls)
    }

    /// Answers a pulse of `me`: renews its lease, or checks the lease of `holder`.
    pub(super) fn pulse(&mut self, now: MonotonicTime, me: &ReplicaId, holder: &ReplicaId) -> bool {
        let Some((_, until)) = self.lease.as_mut().filter(|(held_by, until)| held_by == holder && *until > now) else {
            return false;
        };
        if me == holder {
            *until = now + LEASE_DURATION;
        }
        true
    }
}
