//! Lease gate: open while this replica may make the calls of the account, and each call is recorded in Redis.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::AcquireError;
use super::gate::{Closed, Gate};
use crate::config::QuotaLimit;
use crate::quota::lease::{CallName, Pass, SharedQuota};
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

/// Retry interval of callers where this replica's share of a limit is zero: another replica may answer them then.
const NO_SHARE_RETRY_INTERVAL: Duration = Duration::from_mins(1);

/// The replica's part in a quota that replicas share. Without other replicas, the gate is always open.
#[derive(Debug, Default)]
pub(super) struct LeaseGate {
    pub(super) shared: Option<SharedQuota>,
    /// A leader whose results this replica cannot use, or which cannot read its messages. While that replica is the
    /// leader, this one makes its calls itself, with remote permits.
    pub(super) detached_from: Option<ReplicaId>,
    /// The share that is used while Redis is away, as last logged; `None` while Redis answers.
    pub(super) share: Option<QuotaShare>,
}

impl LeaseGate {
    /// Role of this replica; the leader if there are no others.
    pub(super) fn role(&self, now: MonotonicTime) -> Role {
        self.shared.as_ref().map_or(Role::Leader, |shared| shared.role(now))
    }

    /// Role of this replica for the stages above: a detached follower fetches for itself, as a leader does.
    pub(super) fn effective_role(&self, now: MonotonicTime) -> Role {
        if self.lender(now).is_some() { Role::Leader } else { self.role(now) }
    }

    /// The leader that lends permits to this replica; `None` unless this is a detached follower.
    pub(super) fn lender(&self, now: MonotonicTime) -> Option<ReplicaId> {
        match self.role(now) {
            Role::Follower(leader) if self.is_detached_from(&leader) => Some(leader),
            _ => None,
        }
    }

    pub(super) fn is_detached_from(&self, leader: &ReplicaId) -> bool {
        self.detached_from.as_ref() == Some(leader)
    }

    /// First question: closed for the whole queue while another replica is the leader.
    pub(super) fn admit_by_role(&self, now: MonotonicTime) -> Gate {
        match self.role(now) {
            Role::Follower(leader) if self.is_detached_from(&leader) => Err(Closed::Remote(leader)),
            Role::Follower(_) => Err(Closed::For(AcquireError::NotLeader)),
            Role::Leader | Role::Unknown => Ok(()),
        }
    }

    /// Last question: takes one of the calls that were granted in Redis, or one of this replica's share, for `caller`.
    /// Hands out the name of the call; `None` without other replicas. `room` is the number of calls that the ledger
    /// has room for.
    pub(super) fn admit(&mut self, now: MonotonicTime, caller: &Arc<str>, room: u32) -> Gate<Option<CallName>> {
        let Some(shared) = &mut self.shared else { return Ok(None) };
        match shared.pass(now, caller, room) {
            Pass::Go(name) => Ok(Some(name)),
            Pass::Wait(time) => Err(Closed::Until { time, is_certain: false }),
            Pass::Elsewhere => Err(Closed::For(AcquireError::NotLeader)),
            Pass::NoShare => Err(Closed::Until { time: now + NO_SHARE_RETRY_INTERVAL, is_certain: true }),
        }
    }

    /// Whether a call waits for the next exchange with Redis.
    pub(super) fn awaits_exchange(&self, now: MonotonicTime) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_waited_for(now))
    }

    /// Withdraws a call that was not made, by the name that [`LeaseGate::admit`] gave it.
    pub(super) fn refund(&mut self, name: Option<&CallName>) {
        if let Some((shared, name)) = self.shared.as_mut().zip(name) {
            shared.refund(name);
        }
    }

    /// Records the end of a call.
    pub(super) fn end(&mut self, now: MonotonicTime, name: Option<&CallName>) {
        if let Some((shared, name)) = self.shared.as_mut().zip(name) {
            shared.end(now, name);
        }
    }
}

/// Part of the quota that a replica uses while the replicas cannot reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaShare {
    /// Replicas that are assumed to be alive, this one included.
    pub replicas: usize,
    /// The share is `1 / divisor` of the largest limit; 0 if there is no share.
    divisor: u32,
}

impl QuotaShare {
    /// The share of a replica that uses `shares` of `limits`, which are in the same order.
    ///
    /// In general the divisor is one more than `replicas`, because a share is left to replicas that start meanwhile.
    pub(super) fn new(replicas: usize, limits: &[QuotaLimit], shares: &[QuotaLimit]) -> Self {
        let largest = limits.iter().zip(shares).max_by_key(|(limit, _)| limit.requests);
        let (limit, share) = largest.map_or((1, 1), |(limit, share)| (limit.requests, share.requests));
        let replicas_and_one = u32::try_from(replicas).unwrap_or(u32::MAX).saturating_add(1);
        let divisor = match share {
            0 => 0,
            share if limit / replicas_and_one == share => replicas_and_one,
            share => limit / share,
        };
        Self { replicas, divisor }
    }
}

impl fmt::Display for QuotaShare {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.divisor {
            0 => write!(out, "none of the quota"),
            divisor => write!(out, "1/{divisor} of the quota"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_share_text_names_its_part_of_the_largest_limit() {
        let cases = [
            (8, [60, 1800], [6, 200], "1/9 of the quota"),
            (1, [60, 1800], [30, 900], "1/2 of the quota"),
            (60, [60, 1800], [1, 29], "1/61 of the quota"),
            (60, [60, 60], [1, 1], "1/60 of the quota"),
            (usize::MAX, [60, 1800], [0, 0], "none of the quota"),
        ];
        for (replicas, limits, shares, text) in cases {
            let [limits, shares] =
                [limits, shares].map(|of| of.map(|requests| QuotaLimit { requests, per: Duration::from_mins(1) }));
            assert_eq!(QuotaShare::new(replicas, &limits, &shares).to_string(), text);
        }
    }
}
