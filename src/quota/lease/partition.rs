//! How a replica makes do without Redis, and what is made of it when all have found each other again. Pure.

use std::collections::BTreeSet;

use super::call_log::CallName;
use super::sync::ExchangeRequest;
use super::{BATCH, LEASE_DURATION, LeaseState, MonotonicTime, QuotaChange, SharedQuota};
use crate::config::QuotaLimit;
use crate::quota::role::Role;
use crate::redis_client::ReplicaId;

/// A time without Redis.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    since: MonotonicTime,
    /// Who was there when it began.
    members: BTreeSet<ReplicaId>,
    replicas: usize,
}

impl SharedQuota {
    /// Those who were there before an outage and have not come back may still be making calls, or have made some before
    /// they died: they are taken to have used their whole share.
    pub(super) fn enter_ghosts(&mut self, now: MonotonicTime, outage: &Outage) {
        let back = self.members.since(self.steady.unwrap_or(now));
        let shortest = self.limits.iter().min_by_key(|limit| limit.per).copied();
        let (Some(shortest), Some(most)) = (shortest, self.limits.iter().map(|limit| limit.requests).max()) else {
            return;
        };
        let share = |requests: u32| requests as usize / outage.replicas.max(1);
        for replica in outage.members.iter().filter(|replica| **replica != self.me && !back.contains(*replica)) {
            let windows = 1 + now.saturating_sub(outage.since).as_nanos() / shortest.per.as_nanos().max(1);
            let windows = u32::try_from(windows).unwrap_or(u32::MAX);
            let all = (0..windows).flat_map(|window| {
                (0..share(shortest.requests)).map(move |_| now.saturating_sub(shortest.per.saturating_mul(window)))
            });
            for (number, at) in all.take(share(most)).enumerate() {
                let name: CallName = format!("{replica}:ghost:{number}").into();
                self.book.hear_of(name.clone(), at, false);
                self.ghosts.entry(replica.clone()).or_default().push(name);
            }
        }
    }

    /// An exchange has failed.
    pub(in crate::quota) fn fail_exchange(&mut self, now: MonotonicTime, exchange: &ExchangeRequest) -> QuotaChange {
        (self.is_exchanging, self.is_failing) = (false, true);
        // It may have been granted what it wanted, all the same.
        let lost = (exchange.first..).take(exchange.wants as usize).map(|number| self.name(number));
        let lost: Vec<_> = lost.chain(exchange.take_out.iter().cloned()).collect();
        self.not_made.extend(lost);
        self.look(now)
    }

    /// Whether there is still a way to be found to make calls together.
    fn look(&mut self, now: MonotonicTime) -> QuotaChange {
        let role = self.role(now);
        if matches!(self.stance, LeaseState::Alone { .. }) {
            return QuotaChange::default();
        }
        let is_out = match self.answered {
            Some(answered) => now >= answered + LEASE_DURATION,
            None => now >= self.started + LEASE_DURATION,
        };
        if !is_out {
            return QuotaChange { queue: role == Role::Unknown, ledger: false };
        }
        self.let_go();
        let mut members = self.members.there();
        members.insert(self.me.clone());
        // If they have not found each other since the last outage, this is the same one.
        let (since, members): (_, BTreeSet<_>) = match self.outage.take() {
            Some(Outage { since, members: before, .. }) => (since, members.into_iter().chain(before).collect()),
            None => (now, members),
        };
        let replicas = if self.has_seen_all { members.len() } else { members.len().max(self.assumed) };
        // What the last holder of the lease was granted and nobody was told of.
        if !matches!(self.stance, LeaseState::Leading { .. }) && self.answered.is_some() {
            let room = self.limits.iter().map(|limit| limit.requests / BATCH).min().unwrap_or_default().clamp(1, BATCH);
            for number in 0..room {
                self.book.hear_of(format!("unheard:{number}").into(), now, true);
            }
        }
        self.outage = Some(Outage { since, members, replicas });
        // Those who take it for dead share the quota without it.
        let share = if self.stood_still && self.answered.is_some() { usize::MAX } else { replicas };
        self.stance = self.alone(share);
        self.steady = None;
        self.read = None;
        QuotaChange { ledger: true, queue: true }
    }

    fn alone(&self, replicas: usize) -> LeaseState {
        let among = u32::try_from(replicas).unwrap_or(u32::MAX).max(1);
        // One share is left to those who begin meanwhile, and who cannot know of anybody.
        let share = |requests: u32| match requests / among.saturating_add(1) {
            0 => requests / among,
            share => share,
        };
        let share = |limit: &QuotaLimit| QuotaLimit { requests: share(limit.requests), ..*limit };
        LeaseState::Alone { shares: self.limits.iter().map(share).collect(), replicas }
    }

    /// How far each replica has counted. Gives those who are to be crossed out.
    pub(super) fn note_heartbeats(
        &mut self,
        now: MonotonicTime,
        counts: Vec<(ReplicaId, i64)>,
    ) -> (Vec<ReplicaId>, QuotaChange) {
        let gone = self.members.look(now, counts, self.steady);
        let mut change = QuotaChange::default();
        let there = self.members.there().len();
        // Where only scripts are forbidden, others may still come, and be seen.
        if matches!(self.stance, LeaseState::Alone { replicas, .. } if replicas < there) {
            self.stance = self.alone(there);
            change = QuotaChange { ledger: true, queue: true };
        }
        if !self.ghosts.is_empty() {
            let since = self.steady.unwrap_or(now);
            for replica in self.members.since(since) {
                // It has told of its calls by itself.
                for name in self.ghosts.remove(&replica).unwrap_or_default() {
                    self.book.forget(&name);
                    self.not_made.push(name);
                }
            }
        }
        (gone, change)
    }
}
