//! The part of one replica in a shared quota: its state, and what it knows of the others. Pure: time is an argument.

use std::sync::Arc;
use std::time::Duration;

use super::call_log::CallLog;
use super::contact::RedisContact;
use super::members::Members;
use super::state::{GRANT_LIFETIME, Leadership, LeaseEvent, LeaseState};
use super::timing::CALL_SILENCE_TIMEOUT;
use crate::config::QuotaLimit;
use crate::quota::limiter::{GUARD, MonotonicTime};
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

/// The part of one replica in the quota of an account.
#[derive(Clone, Debug)]
pub(in crate::quota) struct SharedQuota {
    pub(super) replica: ReplicaSettings,
    pub(super) state: LeaseState,
    /// The last known holder of the lease, perhaps this replica.
    pub(super) last_holder: Option<ReplicaId>,
    pub(super) contact: RedisContact,
    pub(super) members: Members,
    pub(super) calls: CallLog,
    pub(super) ledger: RedisLedger,
    /// The number of the next call of this replica.
    pub(super) next_number: u64,
    /// Whether this process is about to end: it returns the lease, and acquires none.
    pub(super) is_leaving: bool,
}

/// The identity of a replica and its settings.
#[derive(Clone, Debug)]
pub(super) struct ReplicaSettings {
    pub(super) me: ReplicaId,
    /// The limits that this replica was configured with.
    pub(super) configured: Vec<QuotaLimit>,
    /// Of each window the lowest limit that any living replica was configured with.
    pub(super) limits: Vec<QuotaLimit>,
    /// The number of replicas that one which has never seen all others takes to be alive, at least.
    pub(super) assumed_replicas: usize,
    /// The longest time that a call may be in flight.
    pub(super) longest_call: Duration,
}

/// The ledger in Redis, as far as this replica knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RedisLedger {
    /// When the exchange began that last read the calls of others; `None` if they are to be read in full.
    pub(super) read_at: Option<MonotonicTime>,
    /// Whether the ledger has its origin marker: no call is missing in it.
    pub(super) is_complete: bool,
}

/// The consequences of an event for the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::quota) struct QuotaChange {
    /// The calls or the limits have changed: the ledger of the queue is to be built anew.
    pub(in crate::quota) ledger: bool,
    /// Calls that wait are to check again whether they may begin.
    pub(in crate::quota) queue: bool,
}

impl ReplicaSettings {
    /// How long calls count, and are kept in Redis.
    pub(super) fn longest_window(&self) -> Duration {
        self.limits.iter().map(|limit| limit.per).max().unwrap_or_default() + GUARD
    }

    /// How long a call in flight counts after its replica was last heard of.
    pub(super) fn silent_call_time(&self) -> Duration {
        CALL_SILENCE_TIMEOUT.min(self.longest_call)
    }

    /// How long after it was granted a call counts at the latest, unless more is heard of it.
    pub(super) fn latest_call_time(&self) -> Duration {
        GRANT_LIFETIME + self.silent_call_time()
    }
}

impl SharedQuota {
    /// A replica that starts at `now`. No call takes longer than `longest_call`; `previous` are the calls of an
    /// earlier process on this machine.
    pub(in crate::quota) fn new(
        me: ReplicaId,
        limits: Vec<QuotaLimit>,
        assumed_replicas: usize,
        longest_call: Duration,
        now: MonotonicTime,
        previous: Vec<MonotonicTime>,
    ) -> Self {
        let calls = CallLog::new(&me, previous);
        Self {
            replica: ReplicaSettings { me, configured: limits.clone(), limits, assumed_replicas, longest_call },
            state: LeaseState::Joining { outage: None },
            last_holder: None,
            contact: RedisContact::new(now),
            members: Members::default(),
            calls,
            ledger: RedisLedger::default(),
            next_number: 0,
            is_leaving: false,
        }
    }

    /// The role of this replica.
    pub(in crate::quota) fn role(&self, now: MonotonicTime) -> Role {
        self.state.role(now)
    }

    /// The number of replicas among which the quota is divided; `None` unless this replica has lost Redis.
    pub(in crate::quota) fn divided_by(&self) -> Option<usize> {
        self.state.partition().map(|partition| partition.replicas)
    }

    /// The limits that this replica must keep now.
    pub(in crate::quota) fn limits(&self) -> Vec<QuotaLimit> {
        self.state.partition().map_or(&self.replica.limits, |partition| &partition.shares).clone()
    }

    /// The limits of all replicas together: of each window the lowest.
    pub(in crate::quota) fn whole_limits(&self) -> &[QuotaLimit] {
        &self.replica.limits
    }

    /// The calls that count against these limits, without those in flight here: when each one counts, and the caller
    /// who is charged.
    pub(in crate::quota) fn stamps(&self) -> Vec<(MonotonicTime, Arc<str>)> {
        match self.state.partition() {
            Some(partition) => self.calls.share_of_call_times(partition.replicas),
            None => self.calls.call_times(),
        }
    }

    /// The longest time that a call may be in flight.
    pub(in crate::quota) fn longest_call(&self) -> Duration {
        self.replica.longest_call
    }

    /// Begins to leave: the next exchange returns the lease, and no other acquires it.
    pub(in crate::quota) fn leave(&mut self) {
        self.is_leaving = true;
        let unused = self.state.leadership_mut().map(Leadership::release).unwrap_or_default();
        self.cancel_numbers(unused);
    }

    /// Changes the state, and does what the transition requires.
    pub(super) fn apply(&mut self, now: MonotonicTime, event: LeaseEvent) {
        let remains = self.state.apply(event);
        self.cancel_numbers(remains.unused);
        if matches!(self.state, LeaseState::Leading(_) | LeaseState::Following { .. }) {
            self.calls.end_partition();
        }
        if let Some(outage) = remains.outage {
            self.assume_calls_of_missing(now, &outage);
        }
    }
}
