//! Recovery: which calls of earlier processes may still count, by the lines that they left.

use std::collections::VecDeque;
use std::time::Duration;

use super::boot_clock::BootClock;
use super::record::{RecordAccount, RecordStamp, RecordState, StateRecord};
use super::{CLOCK_RESOLUTION, RestoredCall, stamp};
use crate::clock::Clock;
use crate::window::Timestamp;

/// Reading of a state file, line by line.
pub(super) struct Recovery<'a> {
    now: RecordStamp,
    boot: &'a BootClock,
    clock: &'a Clock,
    keep: Duration,
    call_timeout: Duration,
    /// Calls that may still count, with their account and line.
    calls: Vec<(RestoredCall, RecordAccount, u64)>,
    /// Least time since every limit was spent, if a record says so.
    lost: Option<Duration>,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(boot: &'a BootClock, clock: &'a Clock, keep: Duration, call_timeout: Duration) -> Self {
        Self { now: stamp(boot, clock), boot, clock, keep, call_timeout, calls: Vec::new(), lost: None }
    }

    /// Reads one line; adds it to `free` if it has no call that counts. Returns the record that has to replace it, if
    /// the next process would misread the present one.
    pub(super) fn read(&mut self, line: u64, text: &[u8], free: &mut Vec<u64>) -> Option<StateRecord> {
        let (state, account, age, in_flight_for) = match StateRecord::decode(text) {
            Some(StateRecord { state: RecordState::Free, .. }) => {
                free.push(line);
                return None;
            }
            // The process that made the call is dead, but the upstream may count the call until its timeout.
            Some(StateRecord { state: RecordState::Open, account, stamp }) => {
                (RecordState::Open, account, self.age(stamp), self.call_timeout)
            }
            Some(StateRecord { state, account, stamp }) => (state, account, self.age(stamp), Duration::ZERO),
            // A damaged line was a call, most likely. One call too many for an hour costs less than one too few.
            None => (RecordState::Ended, RecordAccount::ANY, None, Duration::ZERO),
        };
        if age.is_some_and(|age| age > self.keep + in_flight_for) {
            free.push(line);
            return None;
        }
        let since = age.unwrap_or_default();
        if state == RecordState::Lost {
            self.lost = Some(self.lost.map_or(since, |lost| lost.min(since)));
        }
        let call =
            RestoredCall { age: since.saturating_sub(in_flight_for), ahead: in_flight_for.saturating_sub(since) };
        self.calls.push((call, account, line));
        age.is_none().then_some(StateRecord { state, account, stamp: self.now })
    }

    /// Age of a record; `None` if it was written in the future.
    fn age(&self, stamp: RecordStamp) -> Option<Duration> {
        let age = if stamp.boot == self.boot.mark() && stamp.boot.is_some() {
            self.now.uptime.checked_sub(stamp.uptime)
        } else {
            let wall = Timestamp::from_millis(stamp.wall);
            (wall <= self.clock.now()).then(|| self.clock.now().since(wall))
        };
        age.map(|age| age.saturating_sub(CLOCK_RESOLUTION))
    }

    /// Adds the lines of all calls to `ended`, in the order in which they can be used again, at `uptime` now. Returns
    /// the time since everything was spent, if it is not known better, and the calls that may still count.
    pub(super) fn finish(
        mut self,
        uptime: Duration,
        ended: &mut VecDeque<(Duration, u64)>,
    ) -> (Option<Duration>, Vec<(RecordAccount, RestoredCall)>) {
        let reusable_at = |call: &RestoredCall| (uptime + self.keep + call.ahead).saturating_sub(call.age);
        self.calls.sort_by_key(|(call, ..)| reusable_at(call));
        ended.extend(self.calls.iter().map(|(call, _, line)| (reusable_at(call), *line)));
        (self.lost, self.calls.into_iter().map(|(call, account, _)| (account, call)).collect())
    }
}
