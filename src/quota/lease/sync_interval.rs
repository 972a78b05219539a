//! The schedule of one replica, and its pulses while it is idle. An idle replica has nothing to record, ask or find
//! out: pulses show that Redis answers and that the leader is alive. Pure: time is an argument.

use std::time::Duration;

use super::exchange::REQUIRED_CONTACT_TIME;
use super::shared_quota::{QuotaChange, SharedQuota};
use super::state::LeaseState;
use super::timing::LEASE_DURATION;
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// The interval of pulses, by which an idle leader renews its lease and an idle follower checks that the leader
/// still holds the lease. The death of a leader is noticed after a lease and this at the latest.
pub(in crate::quota) const PULSE_INTERVAL: Duration = Duration::from_millis(650);
/// The interval of exchanges while the replica is idle.
const IDLE_EXCHANGE_INTERVAL: Duration = Duration::from_mins(1);
/// The interval of heartbeats while the replica is idle.
const IDLE_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// The interval of heartbeats otherwise.
const BUSY_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The intervals at which one replica is in touch with Redis, unless an event makes it earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quota) struct SyncSchedule {
    pub(in crate::quota) is_idle: bool,
    /// The interval of exchanges; zero if a call waits for one.
    pub(in crate::quota) exchange_interval: Duration,
    /// The interval at which the replica increments its counter.
    pub(in crate::quota) heartbeat_interval: Duration,
    /// The interval at which it reads the counters of all.
    pub(in crate::quota) members_interval: Duration,
}

impl SyncSchedule {
    /// The schedule of a replica that shares its quota with no other.
    pub(in crate::quota) const NEVER: Self = {
        let never = Duration::from_hours(1);
        Self { is_idle: true, exchange_interval: never, heartbeat_interval: never, members_interval: never }
    };
}

impl SharedQuota {
    /// Whether the leader is known, all calls are recorded, and Redis has answered for long enough.
    pub(super) fn is_idle(&self, now: MonotonicTime) -> bool {
        let is_settled = match &self.state {
            LeaseState::Leading(leadership) => {
                leadership.may_spend(now)
                    && leadership.is_idle()
                    && self.ledger.is_complete
                    && !self.calls.awaits_ends(now)
            }
            LeaseState::Following { .. } => true,
            LeaseState::Joining { .. } | LeaseState::Partitioned(_) => false,
        };
        let is_in_contact =
            self.contact.steady_time().is_some_and(|time| time >= REQUIRED_CONTACT_TIME) && !self.contact.is_failing();
        let knows_all = self.members.is_complete() && self.ledger.read_at.is_some();
        is_settled && is_in_contact && knows_all && self.calls.is_idle() && !self.is_leaving
    }

    /// Whether a call waits for an exchange.
    pub(in crate::quota) fn is_waited_for(&self, now: MonotonicTime) -> bool {
        self.state.leadership().is_some_and(|leadership| leadership.is_wanting() && leadership.is_valid(now))
    }

    /// The intervals that are due from now on.
    pub(in crate::quota) fn schedule(&self, now: MonotonicTime) -> SyncSchedule {
        if self.is_idle(now) {
            return SyncSchedule {
                is_idle: true,
                exchange_interval: IDLE_EXCHANGE_INTERVAL,
                heartbeat_interval: IDLE_HEARTBEAT_INTERVAL,
                members_interval: self.members.read_interval().max(IDLE_HEARTBEAT_INTERVAL),
            };
        }
        let exchange_interval = match &self.state {
            LeaseState::Leading(_) if self.is_waited_for(now) => Duration::ZERO,
            LeaseState::Leading(_) => LEASE_DURATION / 4,
            LeaseState::Following { .. } => LEASE_DURATION / 3,
            LeaseState::Joining { .. } | LeaseState::Partitioned(_) => LEASE_DURATION / 5,
        };
        SyncSchedule {
            is_idle: false,
            exchange_interval,
            heartbeat_interval: BUSY_HEARTBEAT_INTERVAL,
            members_interval: BUSY_HEARTBEAT_INTERVAL,
        }
    }

    /// Begins a pulse. Returns the replica whose lease it renews or checks; `None` if this replica is not idle,
    /// because then exchanges do more.
    pub(in crate::quota) fn begin_pulse(&mut self, now: MonotonicTime) -> Option<ReplicaId> {
        if !self.is_idle(now) {
            return None;
        }
        self.contact.attempt(now);
        match &self.state {
            LeaseState::Following { leader } => Some(leader.clone()),
            _ => Some(self.replica.me.clone()),
        }
    }

    /// Ends a pulse that was sent at `sent`: Redis has said whether the lease is held by the replica that it was
    /// about. Returns whether an exchange is needed to find out more.
    pub(in crate::quota) fn end_pulse(&mut self, now: MonotonicTime, sent: MonotonicTime, is_held: bool) -> bool {
        if !is_held || !self.is_idle(now) {
            return true;
        }
        self.contact.answer(sent);
        if let Some(leadership) = self.state.leadership_mut() {
            leadership.renew(sent);
        }
        false
    }

    /// Another replica has announced that it has started.
    pub(in crate::quota) fn note_joined(&mut self, now: MonotonicTime, replica: &ReplicaId) -> QuotaChange {
        self.members.note_joined(now, replica);
        QuotaChange::default()
    }
}
