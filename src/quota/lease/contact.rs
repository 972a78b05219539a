//! The contact of one replica with Redis: when it was tried, and since when all attempts were answered. Pure: time is
//! an argument.

#[cfg(test)]
mod fingerprint;

use std::time::Duration;

use super::timing::LEASE_DURATION;
use crate::quota::limiter::MonotonicTime;

/// A replica in which no attempt has begun or failed for this long was suspended, and the others may have taken it for
/// dead.
const SUSPENSION_THRESHOLD: Duration = Duration::from_secs(2);

/// When Redis was asked and has answered. An attempt is an exchange or a pulse, and counts from when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedisContact {
    started: MonotonicTime,
    /// When an attempt last began or failed: the process ran then.
    active: Option<MonotonicTime>,
    answered: Option<MonotonicTime>,
    /// The first of the answered attempts since contact was last lost.
    steady_since: Option<MonotonicTime>,
    /// Whether the last exchange failed.
    is_failing: bool,
    /// Whether this process was suspended after the last answer.
    was_suspended: bool,
}

impl RedisContact {
    pub(super) fn new(started: MonotonicTime) -> Self {
        Self { started, active: None, answered: None, steady_since: None, is_failing: false, was_suspended: false }
    }

    /// Notes that an attempt begins. A long time since the last answer means that contact was lost, by an outage or by
    /// a suspension.
    pub(super) fn attempt(&mut self, now: MonotonicTime) {
        self.note_active(now);
        if self.answered.is_some_and(|last| last + LEASE_DURATION <= now) {
            self.steady_since = None;
        }
    }

    /// Notes the answer to an attempt that began at `sent`.
    pub(super) fn answer(&mut self, sent: MonotonicTime) {
        self.answered = self.answered.max(Some(sent));
        self.steady_since.get_or_insert(sent);
        (self.was_suspended, self.is_failing) = (false, false);
    }

    /// Notes that an exchange failed. It may have waited for its timeout, as may the heartbeat that follows: both
    /// together are no suspension.
    pub(super) fn fail(&mut self, now: MonotonicTime) {
        self.note_active(now);
        self.is_failing = true;
    }

    /// Notes that the process runs. A long time since it last ran means that it was suspended.
    fn note_active(&mut self, now: MonotonicTime) {
        self.was_suspended |= self.active.is_some_and(|last| last + SUSPENSION_THRESHOLD <= now);
        self.active = Some(now);
    }

    /// Notes that contact is lost.
    pub(super) fn lose(&mut self) {
        self.steady_since = None;
    }

    /// For how long all attempts have been answered, up to the last answer: steady contact until then does not say
    /// that the next attempt will be answered.
    pub(super) fn steady_time(&self) -> Option<Duration> {
        self.steady_since.zip(self.answered).map(|(since, last)| last.saturating_sub(since))
    }

    pub(super) fn steady_since(&self) -> Option<MonotonicTime> {
        self.steady_since
    }

    /// Whether Redis has answered nothing for the duration of a lease.
    pub(super) fn is_lost(&self, now: MonotonicTime) -> bool {
        now >= self.answered.unwrap_or(self.started) + LEASE_DURATION
    }

    /// Whether Redis has ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.is_some()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    pub(super) fn was_suspended(&self) -> bool {
        self.was_suspended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> MonotonicTime {
        MonotonicTime::from_millis(ms)
    }

    /// Whether a process counts as suspended that tries its last exchange at `again`, after one that began at 0 and
    /// failed at `failed`.
    fn was_suspended(failed: u64, again: u64) -> bool {
        let mut contact = RedisContact::new(at(0));
        contact.attempt(at(0));
        contact.answer(at(0));
        contact.attempt(at(0));
        contact.fail(at(failed));
        contact.attempt(at(again));
        contact.was_suspended()
    }

    #[test]
    fn exchange_and_heartbeat_without_answers_are_no_suspension() {
        assert!(!was_suspended(1000, 2300), "two timeouts of a second, and the interval of exchanges");
        assert!(was_suspended(2000, 2300), "suspended during the exchange");
        assert!(was_suspended(1000, 3000), "suspended afterwards");
    }
}
