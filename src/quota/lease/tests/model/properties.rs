//! What must hold after every step of the model.

use super::world::{ModelWorld, TICK};
use crate::quota::lease::CallName;
use crate::quota::lease::state::LeaseState;

/// A property that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// The upstream may have counted so many calls in a rolling window, which is more than the limit and what the
    /// documents say for the faults.
    Overrun(u32),
    /// Several replicas may spend the lease.
    TwoSpenders,
    /// The shares of partitioned replicas add up to so many calls.
    Shares(u32),
    /// The ledger says that it is complete, and this call of this replica is not in it, or too early.
    MissingCall(u64, u64),
    /// The faults are over, and there is no leader with a complete ledger that the others follow.
    NoLeader,
}

impl ModelWorld {
    /// The calls above the limit that the upstream may have counted in the window that ends now.
    pub(super) fn overrun(&self) -> u32 {
        self.counted().saturating_sub(self.settings.limit.requests)
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        if self.overrun() > self.documented_overrun {
            return Some(Violation::Overrun(self.counted()));
        }
        let spends = |place: &usize| {
            self.replicas[*place].as_ref().is_some_and(|replica| replica.may_spend(self.local_time(*place)))
        };
        if (0..self.replicas.len()).filter(spends).count() > 1 {
            return Some(Violation::TwoSpenders);
        }
        let shares = self.alive().filter_map(|replica| replica.quota.state.partition());
        let shares: u32 = shares.map(|partition| partition.shares[0].requests).sum();
        if shares > self.settings.limit.requests + self.documented_overrun {
            return Some(Violation::Shares(shares));
        }
        self.missing_call()
    }

    /// A call under the lease that a complete ledger in Redis does not hold, or holds with a time at which it counts no
    /// more although the upstream may count it.
    fn missing_call(&self) -> Option<Violation> {
        let is_led = self.alive().any(|replica| replica.quota.state.leadership().is_some());
        if !self.redis.is_complete || !is_led || self.documented_overrun > 0 {
            return None;
        }
        let ms = |tick: u32| i64::from(tick) * i64::try_from(TICK.as_millis()).unwrap();
        let now = i64::try_from(self.now().as_millis()).unwrap();
        let is_missing = |id: u64, number: u64, ends: u32| {
            let name: CallName = format!("{id:016x}:{number}").into();
            let latest = now - ms(self.tick) + ms(ends.min(self.tick));
            self.redis.ledger.get(&name).is_none_or(|at| *at < latest)
        };
        let calls = self.upstream.iter().filter(|call| !call.is_partitioned);
        let missing = calls.into_iter().find(|call| is_missing(call.id, call.number, call.ends));
        missing.map(|call| Violation::MissingCall(call.id, call.number))
    }

    /// Checks what must hold some time after all faults are over.
    pub(super) fn violation_at_rest(&self) -> Option<Violation> {
        let state = |replica: &super::replica::ModelReplica| match replica.quota.state {
            LeaseState::Leading(_) => 1,
            LeaseState::Following { .. } => 0,
            _ => 100,
        };
        let is_led = self.alive().map(state).sum::<u32>() == 1 && self.redis.is_complete;
        (!is_led).then_some(Violation::NoLeader)
    }
}
