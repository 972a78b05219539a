//! Gates that the first call of the queue passes before it gets a permit. [`super`] lists their order.

use std::time::Duration;

use super::gate::{Closed, Gate};
use super::lease_gate::LeaseGate;
use crate::config::QuotaLimit;
use crate::quota::limiter::{Backoff, Ledger, MonotonicTime, Pacers, PacingWindow, usable};
use crate::request::Priority;

/// A gate that opens at `time`.
fn opens_at(time: MonotonicTime, now: MonotonicTime, is_certain: bool) -> Gate {
    if time > now { Err(Closed::Until { time, is_certain }) } else { Ok(()) }
}

/// State of the gates of one account.
#[derive(Debug)]
pub(super) struct Gates {
    /// As configured, in the order of the configuration.
    pub(super) limits: Vec<QuotaLimit>,
    max_concurrency: u32,
    /// Share of each limit and of the concurrency that background calls leave free, from 0 to 1.
    background_reserve: f64,
    /// Longest wait of a call, by which the pacers compute their bursts.
    queue_timeout: Duration,
    pub(super) ledger: Ledger,
    /// Pauses that the upstream asked for.
    pub(super) backoff: Backoff,
    pub(super) pacers: Pacers,
    pub(super) lease: LeaseGate,
}

impl Gates {
    /// Gates of an account that has made the calls in `ledger`, which counts them against `limits`.
    pub(super) fn new(
        ledger: Ledger,
        limits: Vec<QuotaLimit>,
        max_concurrency: u32,
        background_reserve: f64,
        queue_timeout: Duration,
    ) -> Self {
        let pacers = Pacers::new(&limits, background_reserve, queue_timeout);
        let (backoff, lease) = (Backoff::default(), LeaseGate::default());
        Self { limits, max_concurrency, background_reserve, queue_timeout, ledger, backoff, pacers, lease }
    }

    /// Sets what a reload may change. The calls that were made go on counting.
    pub(super) fn configure(&mut self, limits: Vec<QuotaLimit>, background_reserve: f64) {
        let has_new_reserve = self.background_reserve.to_bits() != background_reserve.to_bits();
        self.background_reserve = background_reserve;
        let in_use = match &mut self.lease.shared {
            Some(shared) => {
                shared.set_limits(limits.clone());
                shared.limits()
            }
            None => limits.clone(),
        };
        self.limits = limits;
        if self.ledger.set_limits(&in_use) || has_new_reserve {
            self.pacers = Pacers::new(&in_use, background_reserve, self.queue_timeout);
        }
    }

    /// Share of each limit and of the concurrency that calls of this priority leave free, from 0 to 1.
    pub(super) fn reserve(&self, priority: Priority) -> f64 {
        match priority {
            Priority::Interactive | Priority::Refresh => 0.0,
            Priority::Background => self.background_reserve,
        }
    }

    /// Role; and for a call that needs a permit of another replica, backoff: a pause holds for all calls, whoever lends.
    pub(super) fn admit_by_role(&self, now: MonotonicTime) -> Gate {
        let answer = self.lease.admit_by_role(now);
        if matches!(answer, Err(Closed::Remote(_))) {
            self.admit_by_backoff(now)?;
        }
        answer
    }

    /// Concurrency: open while fewer calls are in flight than allowed. It opens when one of them ends.
    pub(super) fn admit_by_concurrency(&self, priority: Priority) -> Gate {
        if self.idle_concurrency(priority) == 0 { Err(Closed::UntilWoken) } else { Ok(()) }
    }

    /// Number of calls of this priority that may begin beside those in flight.
    pub(super) fn idle_concurrency(&self, priority: Priority) -> u32 {
        usable(self.max_concurrency, self.reserve(priority)).saturating_sub(self.ledger.in_flight())
    }

    /// Backoff alone: what a call knows that is not the first, because the first one cannot pass before that time either.
    pub(super) fn admit_by_backoff(&self, now: MonotonicTime) -> Gate {
        opens_at(self.backoff.opens_at(), now, true)
    }

    /// Backoff and ledger: open when the pause of the upstream is over, or a probe is due, and each limit has room.
    ///
    /// Asked together, for the later of the two times: during a pause, a call that the ledger cannot admit within its
    /// timeout fails at once, with the time at which the ledger can.
    pub(super) fn admit_by_limits(&self, now: MonotonicTime, priority: Priority) -> Gate {
        let resumes = self.backoff.opens_at();
        let time = self.ledger.free_at(now, 0, self.reserve(priority)).max(resumes);
        opens_at(time, now, time == resumes || self.ledger.is_exact(now))
    }

    /// Pacer: open when the next call of this priority is due.
    pub(super) fn admit_by_pacer(&self, now: MonotonicTime, priority: Priority) -> Gate {
        opens_at(self.paced_at(now, priority), now, false)
    }

    /// When the pacer lets the next call of this priority through; a time that has passed if it does so now.
    pub(super) fn paced_at(&self, now: MonotonicTime, priority: Priority) -> MonotonicTime {
        let window = self.pacing_window(now, priority);
        self.pacers.get(priority).map_or(now, |pacer| pacer.admits_at(window))
    }

    /// The shortest limit, as calls of this priority may use it.
    pub(super) fn pacing_window(&self, now: MonotonicTime, priority: Priority) -> PacingWindow {
        self.ledger.pacing_window(now, self.reserve(priority))
    }

    /// Records that a call of this replica's queue begins.
    pub(super) fn begin(&mut self, now: MonotonicTime, priority: Priority) {
        self.begin_remote(now);
        let window = self.pacing_window(now, priority);
        if let Some(pacer) = self.pacers.get_mut(priority) {
            pacer.begin(now, window);
        }
    }

    /// Records that a call begins with a permit of the leader, whose pacer has admitted it.
    pub(super) fn begin_remote(&mut self, now: MonotonicTime) {
        self.ledger.begin();
        self.backoff.begin(now);
    }

    /// Replaces the calls in the ledger by those that the lease knows of, and the limits by those that it allows.
    pub(super) fn reload_from_lease(&mut self) {
        let Some(shared) = &self.lease.shared else { return };
        let limits = shared.limits();
        if self.ledger.replace(&limits, shared.stamps()) {
            self.pacers = Pacers::new(&limits, self.background_reserve, self.queue_timeout);
        }
    }
}
