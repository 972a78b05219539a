//! Which share of the quota a replica has without Redis ([`shares`]), and the outage during which it has it. Pure.

use std::collections::BTreeSet;

use crate::config::QuotaLimit;
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// A time without Redis. It ends when the replicas have found each other again.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: MonotonicTime,
    /// The replicas that were alive when it began.
    pub(super) members: BTreeSet<ReplicaId>,
    /// The number of shares into which the quota was divided, at least.
    pub(super) replicas: usize,
}

/// The share of a replica during an outage.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub(super) outage: Outage,
    /// The part of each limit that this replica may use; perhaps nothing.
    pub(super) shares: Vec<QuotaLimit>,
    /// The replicas among which the quota is divided.
    pub(super) replicas: usize,
    /// Whether an exchange is in flight: no call begins meanwhile, so that the exchange records all of them.
    pub(super) is_exchanging: bool,
}

impl Partition {
    pub(super) fn new(outage: Outage, limits: &[QuotaLimit], replicas: usize) -> Self {
        Self { outage, shares: shares(limits, replicas), replicas, is_exchanging: false }
    }

    /// Whether nothing is left of a limit for this replica.
    pub(in crate::quota) fn has_no_share(&self) -> bool {
        self.shares.iter().any(|limit| limit.requests == 0)
    }
}

/// The limits of one of `replicas`. A further share is left to those that start during the outage, which know of no
/// other replica; unless nothing would be left.
pub(super) fn shares(limits: &[QuotaLimit], replicas: usize) -> Vec<QuotaLimit> {
    let among = u32::try_from(replicas).unwrap_or(u32::MAX).max(1);
    let share = |requests: u32| match requests / among.saturating_add(1) {
        0 => requests / among,
        share => share,
    };
    limits.iter().map(|limit| QuotaLimit { requests: share(limit.requests), ..*limit }).collect()
}
