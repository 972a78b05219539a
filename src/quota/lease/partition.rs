//! The quota of a replica that has lost Redis, and the calls assumed when the replicas have found each other again.
//! Pure.

use super::outage::{Outage, Partition, shares};
use super::shared_quota::{QuotaChange, SharedQuota};
use super::state::LeaseEvent;
use super::sync::ExchangeRequest;
use super::timing::GRANT_BATCH_SIZE;
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

impl SharedQuota {
    /// Ends an exchange that failed. Enters the partitioned state if Redis has not answered for the duration of a
    /// lease.
    pub(in crate::quota) fn fail_exchange(&mut self, now: MonotonicTime, request: &ExchangeRequest) -> QuotaChange {
        self.contact.fail(now);
        // The script may have run all the same, and have granted what was asked for.
        let perhaps_granted = request.grants.numbers(request.grants.calls).map(|number| self.call_name(number));
        let cancelled: Vec<_> = perhaps_granted.chain(request.removed.iter().cloned()).collect();
        self.calls.cancel(cancelled);
        if let Some(partition) = self.state.partition_mut() {
            partition.is_exchanging = false;
            return QuotaChange::default();
        }
        if !self.contact.is_lost(now) {
            return QuotaChange { queue: self.role(now) == Role::Unknown, ledger: false };
        }
        self.enter_partition(now);
        QuotaChange { ledger: true, queue: true }
    }

    fn enter_partition(&mut self, now: MonotonicTime) {
        if self.state.leadership().is_none() && self.contact.has_answered() {
            self.assume_unannounced_grants(now);
        }
        let outage = self.begin_outage(now);
        // The others may have taken a suspended replica for dead, and share the quota without it.
        let has_share = !(self.contact.was_suspended() && self.contact.has_answered());
        let replicas = if has_share { outage.replicas } else { usize::MAX };
        let partition = Partition::new(outage, &self.replica.limits, replicas);
        self.apply(now, LeaseEvent::Unreachable(partition));
        self.contact.lose();
        self.ledger.read_at = None;
    }

    /// An outage that begins now, or goes on if the replicas have not found each other since the last one.
    fn begin_outage(&self, now: MonotonicTime) -> Outage {
        let mut members = self.members.alive();
        members.insert(self.replica.me.clone());
        let mut since = now;
        if let Some(before) = self.state.outage() {
            since = before.since;
            members.extend(before.members.iter().cloned());
        }
        let least = if self.members.is_complete() { 0 } else { self.replica.assumed_replicas };
        let replicas = members.len().max(least);
        Outage { since, members, replicas }
    }

    /// Assumes the calls that the leader was granted last and that may not have been announced here.
    fn assume_unannounced_grants(&mut self, now: MonotonicTime) {
        let batches = self.replica.limits.iter().map(|limit| limit.requests / GRANT_BATCH_SIZE);
        for number in 0..batches.min().unwrap_or_default().clamp(1, GRANT_BATCH_SIZE) {
            self.calls.record_other(format!("unheard:{number}").into(), now, true);
        }
    }

    /// Assumes calls for the replicas that were alive before an outage and have not come back: they may still be
    /// making calls, or have made some before they died, so each is taken to have used its whole share.
    pub(super) fn assume_calls_of_missing(&mut self, now: MonotonicTime, outage: &Outage) {
        let limits = &self.replica.limits;
        let shortest = limits.iter().min_by_key(|limit| limit.per).copied();
        let (Some(shortest), Some(most)) = (shortest, limits.iter().map(|limit| limit.requests).max()) else {
            return;
        };
        let share = |requests: u32| requests as usize / outage.replicas.max(1);
        let windows = 1 + now.saturating_sub(outage.since).as_nanos() / shortest.per.as_nanos().max(1);
        let windows = u32::try_from(windows).unwrap_or(u32::MAX);
        let back = self.members.alive_since(self.contact.steady_since().unwrap_or(now));
        let is_missing = |replica: &&ReplicaId| **replica != self.replica.me && !back.contains(*replica);
        for replica in outage.members.iter().filter(is_missing) {
            // Of each window of the shortest limit its share, from the latest window back.
            let times = (0..windows).flat_map(|window| {
                let at = now.saturating_sub(shortest.per.saturating_mul(window));
                std::iter::repeat_n(at, share(shortest.requests))
            });
            self.calls.assume(replica, times.take(share(most)));
        }
    }

    /// Takes in the counters of all replicas. Returns the replicas that are to be removed from Redis.
    pub(in crate::quota) fn note_heartbeats(
        &mut self,
        now: MonotonicTime,
        counts: Vec<(ReplicaId, i64)>,
    ) -> (Vec<ReplicaId>, QuotaChange) {
        let gone = self.members.note_heartbeats(now, counts, self.contact.steady_since());
        if self.calls.has_assumed() {
            for replica in self.members.alive_since(self.contact.steady_since().unwrap_or(now)) {
                self.calls.cancel_assumed(&replica);
            }
        }
        // Where Redis refuses scripts only, replicas that start meanwhile are seen.
        let alive = self.members.alive().len();
        let change = match self.state.partition_mut() {
            Some(partition) if partition.replicas < alive => {
                (partition.shares, partition.replicas) = (shares(&self.replica.limits, alive), alive);
                QuotaChange { ledger: true, queue: true }
            }
            _ => QuotaChange::default(),
        };
        (gone, change)
    }
}
