//! What a replica does while there is nothing to do: it makes sure that Redis is there and who makes the calls, and it is
//! counted now and then. Pure: time is an argument.

use std::time::Duration;

use super::{HELD, LEASE_DURATION, LeaseState, MonotonicTime, QuotaChange, SETTLED, STILL, SharedQuota};
use crate::redis_client::ReplicaId;

/// The interval of pulses, by which a replica at rest keeps its lease or sees that another keeps it. A leader that dies
/// is missed after a lease and this at the latest.
pub(in crate::quota) const PULSE_INTERVAL: Duration = Duration::from_millis(650);
/// The interval of exchanges at rest.
const REST_INTERVAL: Duration = Duration::from_mins(1);
/// The interval at which each replica shows that it is there: at rest, and otherwise.
const COUNT_INTERVALS: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(500)];
/// When this replica does what, unless something makes it earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quota) struct SyncSchedule {
    pub(in crate::quota) is_at_rest: bool,
    /// The interval of exchanges; zero if somebody waits for one.
    pub(in crate::quota) exchange: Duration,
    /// How often it shows that it is there,
    pub(in crate::quota) count: Duration,
    /// and how often it reads who else is.
    pub(in crate::quota) read: Duration,
}

impl SyncSchedule {
    /// Nothing is ever due.
    pub(in crate::quota) const NEVER: Self = {
        let never = Duration::from_hours(1);
        Self { is_at_rest: true, exchange: never, count: never, read: never }
    };
}

impl SharedQuota {
    /// Whether nothing is to be told, asked or found out: who makes the calls is known, all that was spent stands in Redis,
    /// and Redis has answered for long enough.
    pub(super) fn is_at_rest(&self, now: MonotonicTime) -> bool {
        let is_in_place = match &self.stance {
            LeaseState::Leading { until, spends_from } => {
                now < *until && *spends_from <= now && self.is_known && !self.book.expects(now)
            }
            LeaseState::Following(_) => true,
            LeaseState::Joining | LeaseState::Alone { .. } => false,
        };
        let in_touch = self.steady.zip(self.answered).map(|(since, last)| last.saturating_sub(since));
        let is_settled = in_touch.is_some_and(|time| time >= SETTLED) && self.has_seen_all;
        let knows_all = self.read.is_some() && self.outage.is_none();
        let has_nothing_to_say = self.granted.is_empty() && self.not_made.is_empty() && self.book.is_told();
        is_in_place
            && is_settled
            && knows_all
            && has_nothing_to_say
            && self.wanted == 0
            && !self.is_failing
            && !self.is_leaving
    }

    /// When what is due.
    pub(in crate::quota) fn schedule(&self, now: MonotonicTime) -> SyncSchedule {
        let [rest, busy] = COUNT_INTERVALS;
        if !self.is_at_rest(now) {
            let exchange = if self.is_waited_for(now) { Duration::ZERO } else { self.interval() };
            return SyncSchedule { is_at_rest: false, exchange, count: busy, read: busy };
        }
        let read = self.members.read_interval().max(rest);
        SyncSchedule { is_at_rest: true, exchange: REST_INTERVAL, count: rest, read }
    }

    /// A pulse is due: whose lease it is to be about, which is kept if it is this replica's. `None` if it is not at rest, for
    /// then exchanges say more.
    pub(in crate::quota) fn begin_pulse(&mut self, now: MonotonicTime) -> Option<ReplicaId> {
        if !self.is_at_rest(now) {
            return None;
        }
        self.note_attempt(now);
        match &self.stance {
            LeaseState::Following(leader) => Some(leader.clone()),
            _ => Some(self.me.clone()),
        }
    }

    /// A pulse that was sent at `sent` was answered: whether the lease is held by whom it was about. Gives whether there is
    /// more to be found out, by an exchange.
    pub(in crate::quota) fn end_pulse(&mut self, now: MonotonicTime, sent: MonotonicTime, is_held: bool) -> bool {
        if !is_held || !self.is_at_rest(now) {
            return true;
        }
        self.answered = self.answered.max(Some(sent));
        self.stood_still = false;
        if let LeaseState::Leading { until, .. } = &mut self.stance {
            *until = (*until).max(sent + HELD);
        }
        false
    }

    /// Notes that Redis is about to be asked, and what the time since it last was says.
    pub(super) fn note_attempt(&mut self, now: MonotonicTime) {
        self.stood_still |= self.tried.is_some_and(|last| last + STILL <= now);
        self.tried = Some(now);
        if self.answered.is_some_and(|last| last + LEASE_DURATION <= now) {
            // Out of touch: by an outage, or because this process stood still.
            self.steady = None;
        }
    }

    /// Another replica says that it is there, as it does when it begins.
    pub(in crate::quota) fn note_joined(&mut self, now: MonotonicTime, replica: &ReplicaId) -> QuotaChange {
        self.members.meet(now, replica);
        QuotaChange::default()
    }
}
