//! The calls of this replica: whether one may begin, and what it counts as afterwards. Pure: time is an argument.

use std::sync::Arc;

use super::call_log::CallName;
use super::shared_quota::SharedQuota;
use super::state::LeaseState;
use super::timing::{GRANT_BATCH_SIZE, GRANT_RETRY_INTERVAL, LEASE_DURATION};
use crate::quota::limiter::MonotonicTime;

/// Whether a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::quota) enum Pass<N = CallName> {
    /// The call may begin, under this name.
    Go(N),
    /// The call may perhaps begin at this time; an event may make it earlier.
    Wait(MonotonicTime),
    /// Another replica makes the calls.
    Elsewhere,
    /// Redis is lost, and this replica's share of a limit is nothing.
    NoShare,
}

impl SharedQuota {
    /// Begins a call for `caller`, if the state allows it. The leader asks Redis for calls where none is granted: more
    /// at once, the more calls there is `room` for as far as is known here.
    pub(in crate::quota) fn pass(&mut self, now: MonotonicTime, caller: &Arc<str>, room: u32) -> Pass {
        self.cancel_lapsed_grants(now);
        match &mut self.state {
            LeaseState::Following { .. } => Pass::Elsewhere,
            LeaseState::Joining { .. } => Pass::Wait(now + GRANT_RETRY_INTERVAL),
            LeaseState::Partitioned(partition) if partition.has_no_share() => Pass::NoShare,
            LeaseState::Partitioned(partition) if partition.is_exchanging => Pass::Wait(now + GRANT_RETRY_INTERVAL),
            LeaseState::Partitioned(_) => {
                let number = self.take_numbers(1);
                Pass::Go(self.begin(now, number, caller, true))
            }
            LeaseState::Leading(leadership) if !leadership.is_valid(now) => Pass::Wait(now + GRANT_RETRY_INTERVAL),
            LeaseState::Leading(leadership) if !leadership.may_spend(now) => Pass::Wait(leadership.spends_from()),
            LeaseState::Leading(leadership) => {
                if let Some(number) = leadership.take_grant() {
                    return Pass::Go(self.begin(now, number, caller, false));
                }
                if now < leadership.not_before() {
                    return Pass::Wait(leadership.not_before());
                }
                // Near the limit one by one: calls that are granted to a leader that dies are lost for all.
                leadership.want((room / GRANT_BATCH_SIZE).clamp(1, GRANT_BATCH_SIZE));
                Pass::Wait(now + LEASE_DURATION)
            }
        }
    }

    fn begin(&mut self, now: MonotonicTime, number: u64, caller: &Arc<str>, is_partitioned: bool) -> CallName {
        let name = self.call_name(number);
        self.calls.begin(name.clone(), caller.clone(), now + self.replica.latest_call_time(), is_partitioned);
        name
    }

    /// Begins a call with a permit of another replica, which has recorded it.
    pub(in crate::quota) fn borrow(&mut self, now: MonotonicTime, name: CallName, caller: Arc<str>) {
        self.calls.begin(name, caller, now + self.replica.latest_call_time(), false);
    }

    /// Ends a call.
    pub(in crate::quota) fn end(&mut self, now: MonotonicTime, name: &str) {
        self.calls.end(name, now);
    }

    /// Gives back a call that never reached the upstream.
    pub(in crate::quota) fn refund(&mut self, name: &CallName) {
        self.calls.refund(name);
    }

    /// Cancels granted calls that have not begun in time.
    pub(super) fn cancel_lapsed_grants(&mut self, now: MonotonicTime) {
        let lapsed = self.state.leadership_mut().map(|leadership| leadership.take_lapsed(now)).unwrap_or_default();
        self.cancel_numbers(lapsed);
    }

    /// Cancels calls of this replica that Redis has granted.
    pub(super) fn cancel_numbers(&mut self, numbers: Vec<u64>) {
        let names: Vec<_> = numbers.into_iter().map(|number| self.call_name(number)).collect();
        self.calls.cancel(names);
    }

    /// Takes `count` numbers for calls of this replica. Returns the first.
    pub(super) fn take_numbers(&mut self, count: u32) -> u64 {
        let first = self.next_number;
        self.next_number += u64::from(count);
        first
    }

    pub(super) fn call_name(&self, number: u64) -> CallName {
        format!("{}:{number}", self.replica.me).into()
    }
}
