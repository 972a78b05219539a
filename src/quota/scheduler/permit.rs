//! Permits, own and remote, and what the end of their calls means for the gates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::call_scheduler::{CallScheduler, State};
use super::error::Exhausted;
use crate::quota::lease::CallName;
use crate::quota::limiter::longest;
use crate::quota::limiter::{MonotonicTime, ReducedLimit};
use crate::quota::state_file::RecordSlot;
use crate::replicas::{PermitMessage, ReplicaId};
use crate::request::{Requester, RunWaiters, WaiterGuard};
use crate::upstream::{RateLimitHeader, SpentLimit};

/// Consequences of a call that the upstream refused for its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalEffect {
    /// Time until the pause ends; only probes are sent before.
    pub closed_for: Duration,
    /// Time until a call may begin: the end of the pause, or the next probe.
    pub retry_after: Duration,
    /// The limit that was reduced; `None` if the refusal was no news.
    pub reduced: Option<ReducedLimit>,
}

/// The right to make one call. A permit that is dropped counts as spent: the call may have reached the upstream.
#[derive(Debug)]
pub struct CallPermit {
    scheduler: Arc<CallScheduler>,
    /// The requester that is charged.
    cause: Requester,
    /// The requester whose rank the call had in the queue.
    served: Requester,
    began: MonotonicTime,
    /// Its line in the state file.
    record: Option<RecordSlot>,
    /// Its name among replicas.
    name: Option<CallName>,
    /// The remote permit that it stands for.
    borrowed: Option<BorrowedPermit>,
    is_open: bool,
}

/// Permits that this replica has requested from another one, or that others have requested from it.
#[derive(Debug, Default)]
pub(super) struct RemotePermits {
    pub(super) next_number: u64,
    /// Calls of this replica that wait for a permit, by the number of their request.
    pub(super) requested: BTreeMap<u64, oneshot::Sender<Result<CallName, Exhausted>>>,
    /// Requests of other replicas, by replica and number.
    pub(super) lent: BTreeMap<(ReplicaId, u64), LentPermit>,
}

/// State of another replica's request.
#[derive(Debug)]
pub(super) enum LentPermit {
    /// In this replica's queue; `requested_at` is the time of the last repetition. The call waits for `waiters`, of which
    /// `waiting` is the requester of that repetition.
    Queued { requested_at: Instant, waiters: Arc<RunWaiters>, waiting: WaiterGuard, _task: AbortOnDropHandle<()> },
    /// Granted, and not returned yet.
    Granted { at: Instant, name: CallName, permit: CallPermit },
    /// Failed: no permit within the queue timeout.
    Exhausted { at: Instant, retry_after: Duration },
}

/// The lender of a permit, and the number of the request.
#[derive(Debug)]
pub(super) struct BorrowedPermit {
    pub(super) lender: ReplicaId,
    pub(super) number: u64,
}

impl CallPermit {
    pub(super) fn new(
        scheduler: &Arc<CallScheduler>,
        cause: Requester,
        served: Requester,
        began: MonotonicTime,
        record: Option<RecordSlot>,
        name: Option<CallName>,
    ) -> Self {
        Self { scheduler: scheduler.clone(), cause, served, began, record, name, borrowed: None, is_open: true }
    }

    /// The same permit, on loan from another replica.
    pub(super) fn with_lender(mut self, borrowed: BorrowedPermit) -> Self {
        self.borrowed = Some(borrowed);
        self
    }

    /// The caller that is charged.
    pub fn payer(&self) -> &Arc<str> {
        &self.cause.caller
    }

    /// CallName of the call among replicas; `None` without other replicas.
    pub(super) fn name(&self) -> Option<CallName> {
        self.name.clone()
    }

    /// Ends a call that never reached the upstream: it does not count.
    pub fn refund(mut self) {
        self.is_open = false;
        let scheduler = self.scheduler.clone();
        let mut state = scheduler.lock();
        state.gates.ledger.refund();
        state.queue.refund(&self.served);
        state.calls_made.refund(&self.cause.caller);
        state.budgets.refund(&self.cause.caller);
        if let Some((file, record)) = scheduler.state_file.as_ref().zip(self.record.take()) {
            file.refund(record);
        }
        state.gates.lease.refund(self.name.take().as_ref());
        self.give_back(PermitMessage::Unused);
        state.queue.wake_first();
    }

    /// Ends a call that the upstream answered with a page, and perhaps with what remains of a limit.
    pub fn answered(mut self, rate_limit: Option<&RateLimitHeader>) {
        let scheduler = self.scheduler.clone();
        let (mut state, now) = (scheduler.lock(), scheduler.clock.now());
        self.end(&mut state, now);
        self.give_back(PermitMessage::Answered);
        state.gates.backoff.answered(now, self.began);
        if let Some(rate_limit) = rate_limit {
            state.apply_rate_limit(now, self.began, rate_limit);
        }
        state.queue.wake_first();
    }

    /// Ends a call that the upstream refused although the ledger had room: another client uses the same quota. The
    /// limit is reduced, and the account paused: for the time that the upstream asks for, or one call's share of the
    /// window, doubled with each refusal in a row.
    pub fn refused(
        mut self,
        limit: SpentLimit,
        retry_after: Option<Duration>,
        rate_limit: Option<&RateLimitHeader>,
    ) -> RefusalEffect {
        let scheduler = self.scheduler.clone();
        let (mut state, now) = (scheduler.lock(), scheduler.clock.now());
        self.end(&mut state, now);
        // Refusals in a row, with no page between them, say that there is nothing to be had now, not that there is
        // less: the limit is reduced once, and is still there when the upstream accepts calls again.
        let is_first = state.gates.backoff.refused(now, self.began);
        let reduced = is_first.then(|| state.gates.ledger.refused(now, self.began, limit)).flatten();
        let pause = state.gates.backoff.pause_after(&state.gates.limits, limit, retry_after);
        state.gates.backoff.close(now, self.began, pause);
        if let Some(rate_limit) = rate_limit {
            state.apply_rate_limit(now, self.began, rate_limit);
        }
        // For some calls the timeout now ends before the pause, and they fail at once.
        state.queue.wake_all();
        let [closed_for, retry_after] =
            [state.gates.backoff.until(), state.gates.backoff.opens_at()].map(|time| time.saturating_sub(now));
        self.give_back(PermitMessage::Refused(u64::try_from(closed_for.as_millis()).unwrap_or(u64::MAX)));
        RefusalEffect { closed_for, retry_after, reduced }
    }

    fn end(&mut self, state: &mut State, now: MonotonicTime) {
        self.is_open = false;
        state.gates.ledger.end(now, &self.cause.caller);
        state.budgets.end(now, &self.cause.caller);
        if let Some((file, record)) = self.scheduler.state_file.as_ref().zip(self.record.take()) {
            file.end(record);
        }
        state.gates.lease.end(now, self.name.take().as_ref());
    }

    /// Returns a remote permit to its lender.
    fn give_back(&mut self, message: PermitMessage) {
        if let Some(borrowed) = self.borrowed.take() {
            self.scheduler.return_permit(&borrowed, message);
        }
    }
}

impl State {
    /// Applies what the upstream says about a limit, which is more accurate than the ledger.
    fn apply_rate_limit(&mut self, now: MonotonicTime, began: MonotonicTime, rate_limit: &RateLimitHeader) {
        self.gates.ledger.apply_rate_limit(now, rate_limit);
        if let (0, Some(reset)) = (rate_limit.remaining, rate_limit.reset) {
            // A reset cannot lie further away than the longest window.
            let longest = longest(&self.gates.limits);
            self.gates.backoff.close(now, began, reset.min(longest));
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.is_open {
            let scheduler = self.scheduler.clone();
            let (mut state, now) = (scheduler.lock(), scheduler.clock.now());
            self.end(&mut state, now);
            self.give_back(PermitMessage::Returned);
            state.queue.wake_first();
        }
    }
}
