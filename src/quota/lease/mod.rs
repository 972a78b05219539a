//! The lease on the quota of an account, by which replicas share it.
//!
//! One replica, the leader, holds the lease and makes all calls of the account, so its queue and its ledger are those
//! of all replicas. Each call is recorded in Redis before it is made, and is granted only if every rolling window has
//! room according to what is recorded: the next leader reads it. Without Redis no replica can hold the lease, and each
//! one calls within its share of the limits.
//!
//! # Files
//! - `state`: the states and the transitions below.
//! - `admission`: whether a call may begin, by the state.
//! - `exchange`: how an exchange with Redis is put together, and which event its reply means.
//! - `partition`: what happens when Redis is lost, and the calls assumed afterwards.
//! - `sync_interval`: the intervals of exchanges and heartbeats, and pulses.
//! - `contact`: when Redis has answered; `members`: which replicas are alive; `call_log`: all calls that may count.
//! - `sync`: the arguments and the reply of `sync.lua`, which runs an exchange in Redis.
//! - `channel`: the keys and commands in Redis; `driver` and `pulse`: the tasks that run exchanges, heartbeats and
//!   pulses, and receive messages. All other files are pure: time is an argument, and what goes to Redis and comes back
//!   are values.
//!
//! # States
//! - **Joining**: the leader is not known. No calls. Data: an outage after which calls are still to be assumed.
//! - **Leading**: this replica holds the lease. Calls that Redis grants, between `spends_from` and `until`. Data:
//!   these two, the granted calls that have not begun, and how many calls to ask for.
//! - **Following**: another replica holds the lease. No calls: misses are forwarded to the leader. Data: the leader.
//! - **Partitioned**: Redis does not answer. Calls within this replica's share of each limit, and none while an
//!   exchange is in flight. Data: the shares, the number of replicas, the outage.
//!
//! A new replica is Joining. A leader whose lease has run out stays Leading without calls (its [`Role`] is unknown)
//! until the next event.
//!
//! # Events
//! - **Held**: the reply to an exchange names this replica as the holder. Redis gives a free lease to a replica that
//!   has been in contact for 2.5 s (1.2 s if it has seen no other).
//! - **HeldByOther**: the reply names another replica.
//! - **Vacant**: the reply names no holder.
//! - **Unreachable**: an exchange failed, and no attempt of the last 1.25 s was answered.
//!
//! # Transitions
//! | from | Held | HeldByOther | Vacant | Unreachable |
//! | --- | --- | --- | --- | --- |
//! | Joining | Leading (a) | Following (b) | Joining | Partitioned |
//! | Leading | Leading (c) | Following (d) | Joining (d) | Partitioned (d) |
//! | Following | Leading | Following | Joining | Partitioned |
//! | Partitioned | Leading (a, e) | Following (b, e) | Joining (e) | no event |
//!
//! - (a) If there was an outage, calls are assumed for the replicas that have not come back.
//! - (b) An outage is dropped: the leader assumes the calls. In Joining it is kept.
//! - (c) `until` is extended. If the lease had run out and was acquired anew, `spends_from` begins anew.
//! - (d) Granted calls that have not begun are cancelled in Redis.
//! - (e) Not before one exchange can record all calls that are left to record.
//!
//! The calls of a new leader begin at once if the ledger in Redis is complete, and after one lease duration if not.
//!
//! Other events change the data of a state only: a pulse extends `until`, and heartbeats of further replicas make the
//! shares smaller. A replica that leaves changes its state by the same table, but its exchanges return the lease and
//! never acquire it.

mod admission;
mod call_log;
mod channel;
mod contact;
mod driver;
mod exchange;
mod members;
mod partition;
mod pulse;
mod state;
mod sync;
mod sync_interval;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::admission::Pass;
use self::call_log::CallLog;
pub(super) use self::call_log::CallName;
pub(super) use self::channel::LeaseChannel;
use self::contact::RedisContact;
pub(super) use self::driver::{drive, leave, listen};
use self::exchange::CALL_SILENCE_TIMEOUT;
use self::members::Members;
pub(super) use self::pulse::keep_pulse;
use self::state::{GRANT_LIFETIME, LeaseEvent, LeaseState};
pub(super) use self::sync::{ExchangeReply, ExchangeRequest};
pub(super) use self::sync_interval::SyncSchedule;
use super::limiter::{GUARD, MonotonicTime};
use super::role::Role;
use crate::config::QuotaLimit;
use crate::replicas::ReplicaId;

/// The duration of a lease, and of the session in Redis that keeps it valid: how long a dead leader delays the next
/// one. A replica that has had no answer for so long knows that no lease is valid, if no other has had one either.
pub(super) const LEASE_DURATION: Duration = Duration::from_millis(1250);
/// The largest number of calls that are granted at once: so many may be lost with a leader that dies.
const GRANT_BATCH_SIZE: u32 = 8;
/// How long calls wait before Redis is asked again that granted none, and before they look again while the leader is
/// being found out.
const GRANT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The part of one replica in the quota of an account.
#[derive(Clone, Debug)]
pub(super) struct SharedQuota {
    replica: ReplicaSettings,
    state: LeaseState,
    /// The last known holder of the lease, perhaps this replica.
    last_holder: Option<ReplicaId>,
    contact: RedisContact,
    members: Members,
    calls: CallLog,
    ledger: RedisLedger,
    /// The number of the next call of this replica.
    next_number: u64,
    /// Whether this process is about to end: it returns the lease, and acquires none.
    is_leaving: bool,
}

/// The identity of a replica and its settings.
#[derive(Clone, Debug)]
struct ReplicaSettings {
    me: ReplicaId,
    limits: Vec<QuotaLimit>,
    /// The number of replicas that one which has never seen all others takes to be alive, at least.
    assumed_replicas: usize,
    /// The longest time that a call may be in flight.
    longest_call: Duration,
}

/// The ledger in Redis, as far as this replica knows it.
#[derive(Clone, Copy, Debug, Default)]
struct RedisLedger {
    /// When the exchange began that last read the calls of others; `None` if they are to be read in full.
    read_at: Option<MonotonicTime>,
    /// Whether the ledger has its origin marker: no call is missing in it.
    is_complete: bool,
}

/// The consequences of an event for the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QuotaChange {
    /// The calls or the limits have changed: the ledger of the queue is to be built anew.
    pub(super) ledger: bool,
    /// Calls that wait are to check again whether they may begin.
    pub(super) queue: bool,
}

impl ReplicaSettings {
    /// How long calls count, and are kept in Redis.
    fn longest_window(&self) -> Duration {
        self.limits.iter().map(|limit| limit.per).max().unwrap_or_default() + GUARD
    }

    /// How long a call in flight counts after its replica was last heard of.
    fn silent_call_time(&self) -> Duration {
        CALL_SILENCE_TIMEOUT.min(self.longest_call)
    }

    /// How long after it was granted a call counts at the latest, unless more is heard of it.
    fn latest_call_time(&self) -> Duration {
        GRANT_LIFETIME + self.silent_call_time()
    }
}

impl SharedQuota {
    /// A replica that starts at `now`. No call takes longer than `longest_call`; `previous` are the calls of an
    /// earlier process on this machine.
    pub(super) fn new(
        me: ReplicaId,
        limits: Vec<QuotaLimit>,
        assumed_replicas: usize,
        longest_call: Duration,
        now: MonotonicTime,
        previous: Vec<MonotonicTime>,
    ) -> Self {
        Self {
            replica: ReplicaSettings { me, limits, assumed_replicas, longest_call },
            state: LeaseState::Joining { outage: None },
            last_holder: None,
            contact: RedisContact::new(now),
            members: Members::default(),
            calls: CallLog::new(previous),
            ledger: RedisLedger::default(),
            next_number: 0,
            is_leaving: false,
        }
    }

    /// The role of this replica.
    pub(super) fn role(&self, now: MonotonicTime) -> Role {
        self.state.role(now)
    }

    /// The number of replicas among which the quota is divided; `None` unless this replica has lost Redis.
    pub(super) fn divided_by(&self) -> Option<usize> {
        self.state.partition().map(|partition| partition.replicas)
    }

    /// The limits that this replica must keep now.
    pub(super) fn limits(&self) -> Vec<QuotaLimit> {
        self.state.partition().map_or(&self.replica.limits, |partition| &partition.shares).clone()
    }

    /// The calls that count against these limits, without those in flight here: when each one counts, and the caller
    /// who is charged.
    pub(super) fn stamps(&self) -> Vec<(MonotonicTime, Arc<str>)> {
        match self.state.partition() {
            Some(partition) => self.calls.share_of_call_times(partition.replicas),
            None => self.calls.call_times(),
        }
    }

    /// The longest time that a call may be in flight.
    pub(super) fn longest_call(&self) -> Duration {
        self.replica.longest_call
    }

    /// Begins to leave: the next exchange returns the lease, and no other acquires it.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
        let unused = self.state.leadership_mut().map(state::Leadership::release).unwrap_or_default();
        self.cancel_numbers(unused);
    }

    /// Changes the state, and does what the transition requires.
    fn apply(&mut self, now: MonotonicTime, event: LeaseEvent) {
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
