//! Exchanges: how one is put together, and what follows from its reply. Pure: time is an argument.

use std::time::Duration;

use super::call_log::CallName;
use super::shared_quota::{QuotaChange, SharedQuota};
use super::state::{LeaseEvent, LeaseState};
use super::sync::{ExchangeReply, ExchangeRequest, GrantRequest, LeaseRequest};
use super::timing::{GRANT_RETRY_INTERVAL, LEASE_DURATION};
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// A replica acquires the lease after contact with Redis for this long. After an outage, all others have come back by
/// then and have recorded their calls: each probes Redis once a second.
pub(super) const REQUIRED_CONTACT_TIME: Duration = Duration::from_millis(2500);
/// The same for a replica that has seen no other.
const REQUIRED_CONTACT_TIME_ALONE: Duration = Duration::from_millis(1200);
/// The end of a call may be recorded this late, so a reading of what has changed looks back so much further.
const CALL_END_RECORD_DELAY: Duration = Duration::from_secs(5);
/// Calls that one exchange records at most.
const MAX_RECORDED_CALLS: usize = 2000;

impl SharedQuota {
    /// Begins an exchange. It must be finished or failed before there is another.
    pub(in crate::quota) fn begin_exchange(&mut self, now: MonotonicTime) -> ExchangeRequest {
        if let Some(partition) = self.state.partition_mut() {
            partition.is_exchanging = true;
        }
        self.cancel_lapsed_grants(now);
        self.contact.attempt(now);
        self.calls.forget_before(now.saturating_sub(self.replica.longest_window()));
        self.calls.extend_open(now + self.replica.silent_call_time(), now + self.replica.latest_call_time());
        if self.contact.steady_time().is_some_and(|time| time >= REQUIRED_CONTACT_TIME) {
            self.members.mark_complete();
        }
        let leadership = self.state.leadership();
        let is_leading = leadership.is_some_and(|leadership| leadership.is_valid(now));
        let may_spend = leadership.is_some_and(|leadership| leadership.may_spend(now));
        let recorded = self.calls.unrecorded(MAX_RECORDED_CALLS);
        let wanted = self.state.leadership_mut().map_or(0, |leadership| leadership.take_wanted(now));
        ExchangeRequest {
            sent: now,
            me: self.replica.me.clone(),
            lease: LeaseRequest {
                duration: if self.is_leaving { Duration::ZERO } else { LEASE_DURATION },
                last_holder: self.last_holder.as_ref().unwrap_or(&self.replica.me).clone(),
                may_acquire: (is_leading || self.has_required_contact()) && !self.is_leaving,
            },
            grants: GrantRequest {
                calls: wanted,
                first: self.take_numbers(wanted),
                latest: self.replica.latest_call_time(),
            },
            declares_complete: may_spend && !self.ledger.is_complete && recorded.len() < MAX_RECORDED_CALLS,
            look_back: self.look_back(now),
            retention: self.replica.longest_window(),
            limits: self.replica.limits.clone(),
            recorded,
            removed: self.calls.take_cancelled(),
        }
    }

    /// Whether contact with Redis has lasted for long enough to acquire the lease.
    fn has_required_contact(&self) -> bool {
        let is_alone = self.state.outage().is_none() && self.members.alive().len() <= 1;
        let required = if is_alone { REQUIRED_CONTACT_TIME_ALONE } else { REQUIRED_CONTACT_TIME };
        self.contact.steady_time().is_some_and(|time| time >= required)
    }

    /// How far back the calls of others are read; `None` if they are not.
    fn look_back(&self, now: MonotonicTime) -> Option<Duration> {
        let all = Some(self.replica.longest_window());
        let Some(read_at) = self.ledger.read_at else { return all };
        let changed = Some(now.saturating_sub(read_at) + CALL_END_RECORD_DELAY);
        match &self.state {
            // The replicas that led before still record the ends of their calls in flight.
            LeaseState::Leading(leadership) if leadership.is_valid(now) && self.calls.awaits_ends(now) => changed,
            LeaseState::Leading(leadership) if leadership.is_valid(now) => None,
            LeaseState::Following { .. } => changed,
            LeaseState::Joining { .. } | LeaseState::Leading(_) | LeaseState::Partitioned(_) => all,
        }
    }

    /// Finishes an exchange that Redis has answered.
    pub(in crate::quota) fn finish_exchange(
        &mut self,
        now: MonotonicTime,
        request: &ExchangeRequest,
        reply: &ExchangeReply,
    ) -> QuotaChange {
        let role = self.role(now);
        let (was_leading, was_partitioned) = (self.state.leadership().is_some(), self.state.partition().is_some());
        if let Some(partition) = self.state.partition_mut() {
            partition.is_exchanging = false;
        }
        self.contact.answer(request.sent);
        self.calls.mark_recorded(&request.recorded);
        let has_lost_ledger = !reply.is_complete && (self.ledger.is_complete || reply.is_acquired);
        self.ledger.is_complete = reply.is_complete;
        let has_read = self.replace_calls_of_others(now, request, reply);
        if !reply.is_complete && reply.holder.as_ref() != Some(&self.replica.me) {
            // The next leader collects what is known.
            self.calls.mark_own_unrecorded();
        }
        if reply.holder.is_some() {
            self.last_holder.clone_from(&reply.holder);
        }
        // A partition goes on while there are more of its calls to record.
        if !was_partitioned || request.recorded.len() < MAX_RECORDED_CALLS {
            let event = self.lease_event(now, request, reply);
            if has_lost_ledger && matches!(event, LeaseEvent::Held { .. }) {
                self.calls.mark_all_unrecorded();
            }
            self.apply(now, event);
        }
        self.note_grants(now, request, reply.granted);
        let is_leading = self.state.leadership().is_some();
        QuotaChange {
            ledger: has_read || was_partitioned != self.state.partition().is_some(),
            queue: request.grants.calls > 0 || self.role(now) != role || is_leading && !was_leading,
        }
    }

    /// The event that the reply to an exchange means for the lease.
    fn lease_event(&self, now: MonotonicTime, request: &ExchangeRequest, reply: &ExchangeReply) -> LeaseEvent {
        match &reply.holder {
            None => LeaseEvent::Vacant,
            Some(holder) if *holder == self.replica.me => LeaseEvent::Held {
                sent: request.sent,
                is_acquired: reply.is_acquired,
                // If the ledger is incomplete, the others record their calls first: the lease that Redis has lost may
                // have been held by one of them.
                spends_from: if reply.is_complete { now } else { now + LEASE_DURATION },
            },
            Some(holder) => LeaseEvent::HeldByOther(holder.clone()),
        }
    }

    /// Takes in the calls of others that an exchange has read. Returns whether it has read any part of them.
    fn replace_calls_of_others(
        &mut self,
        now: MonotonicTime,
        request: &ExchangeRequest,
        reply: &ExchangeReply,
    ) -> bool {
        let (Some(calls), Some(look_back)) = (&reply.calls, request.look_back) else { return false };
        let others = calls.iter().filter(|(name, _)| !self.is_own(name));
        let others: Vec<_> = others.map(|(name, age)| (name.clone(), age.before(now))).collect();
        // Redis counts back from when it runs the script, which is `now` at the latest. The calls that are known here lie
        // later than they counted, by as long as the exchange took that has read them.
        let read_since = now.saturating_sub(look_back) + LEASE_DURATION;
        // Calls that an incomplete ledger does not hold count all the same.
        let since = if reply.is_complete { read_since } else { MonotonicTime::MAX };
        self.calls.replace_others(since, others);
        self.ledger.read_at = Some(request.sent);
        true
    }

    /// Takes in the calls that an exchange has granted.
    fn note_grants(&mut self, now: MonotonicTime, request: &ExchangeRequest, granted: u32) {
        let numbers = request.grants.numbers(granted);
        if let Some(leadership) = self.state.leadership_mut() {
            leadership.grant(request.sent, numbers);
        } else {
            let unused: Vec<_> = numbers.map(|number| self.call_name(number)).collect();
            self.calls.cancel(unused);
        }
        if granted == 0 && request.grants.calls > 0 {
            // Redis knows of calls that are not known here.
            self.ledger.read_at = None;
            if let Some(leadership) = self.state.leadership_mut() {
                leadership.pause(now + GRANT_RETRY_INTERVAL);
            }
        }
    }

    fn is_own(&self, name: &str) -> bool {
        name.strip_prefix(self.replica.me.as_str()).is_some_and(|rest| rest.starts_with(':'))
    }

    /// Connection to Redis has been made anew: messages may have been lost, and it may be another Redis than before.
    pub(in crate::quota) fn note_reconnected(&mut self, now: MonotonicTime) {
        if self.state.leadership().is_some_and(|leadership| leadership.is_valid(now)) {
            self.calls.mark_all_unrecorded();
        } else {
            self.calls.mark_own_unrecorded();
        }
    }

    /// A replica was granted calls just now.
    pub(in crate::quota) fn note_granted(
        &mut self,
        now: MonotonicTime,
        replica: &ReplicaId,
        first: u64,
        granted: u32,
    ) -> QuotaChange {
        if *replica == self.replica.me {
            return QuotaChange::default();
        }
        for number in (first..).take(granted as usize) {
            let name: CallName = format!("{replica}:{number}").into();
            self.calls.record_other(name, now + self.replica.latest_call_time(), true);
        }
        QuotaChange { ledger: true, queue: false }
    }
}
