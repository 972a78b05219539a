//! Remote permits: a replica that cannot use what the leader fetches makes its calls itself, each with a permit of the
//! leader.
//!
//! Replicas with different settings (for instance two encryption keys, while one is replaced) cannot read each other's
//! chunks, so a follower with other settings is *detached*: it fetches for itself. The quota stays exact because each
//! of its calls has a permit of the leader's queue and ledger, which hold for all replicas. ADR 32 has the reasons.
//!
//! The borrower repeats its request until it is answered, since messages may be lost. The permit is open at the lender
//! until it is returned, or until its call cannot be in flight any more.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::call_scheduler::CallScheduler;
use super::error::{AcquireError, Exhausted};
use super::permit::{BorrowedPermit, CallPermit, LentPermit, RemotePermits};
use crate::quota::lease::{CallName, QuotaChange, SharedQuota};
use crate::quota::limiter::{CallerLimitExceeded, MonotonicTime};
use crate::replicas::{PermitMessage, QuotaMessage, Recipient, ReplicaId};
use crate::request::{Requester, RunWaiters};
use crate::sync::MutexGuard;
use crate::telemetry;
use crate::upstream::SpentLimit;

/// Interval at which an unanswered request for a permit is repeated.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// A borrower that has not repeated its request for this long is gone, or does not need the permit any more.
const BORROWER_SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Borrower.
impl CallScheduler {
    /// Makes this replica fetch for itself, with permits of `leader`, as long as that replica is the leader.
    pub fn detach(&self, leader: &ReplicaId) {
        {
            let mut state = self.lock();
            if state.gates.lease.is_detached_from(leader) {
                return;
            }
            state.gates.lease.detached_from = Some(leader.clone());
        }
        telemetry::replicas_differ(&self.account);
        self.update_lease(|_, _| ((), QuotaChange { ledger: false, queue: true }));
    }

    /// Waits for a permit of `lender`, for a call that entered the queue at `entered`. `None` if the upstream has asked for
    /// a pause meanwhile.
    pub(super) async fn acquire_remote(
        self: &Arc<Self>,
        lender: ReplicaId,
        waiters: &Arc<RunWaiters>,
        entered: MonotonicTime,
    ) -> Result<Option<CallPermit>, AcquireError> {
        let (request, mut answer) = RemoteRequest::register(self, &lender);
        let name = loop {
            if !self.borrows_from(&lender) {
                return Err(AcquireError::NotLeader);
            }
            // With the priority of the requests that wait now.
            let requester = Requester { priority: waiters.priority(), ..waiters.cause().clone() };
            self.send_permit_message(&lender, request.number, PermitMessage::Request(requester));
            tokio::select! {
                biased;
                answered = timeout(REQUEST_INTERVAL, &mut answer) => match answered {
                    Ok(Ok(Ok(name))) => break name,
                    Ok(Ok(Err(exhausted))) => return Err(AcquireError::Exhausted(exhausted)),
                    // See `forget_requests`.
                    Ok(Err(_)) => return Err(AcquireError::NotLeader),
                    Err(_) => {}
                },
                () = waiters.changed() => if waiters.is_abandoned() {
                    return Err(AcquireError::Abandoned);
                },
            }
            let queue_timeout = self.queue_timeout.max(waiters.longest_timeout());
            if Instant::now() >= self.clock.instant(entered + queue_timeout) {
                return Err(AcquireError::Exhausted(Exhausted { retry_after: REQUEST_INTERVAL }));
            }
        };
        self.begin_remote(request, waiters, entered, name)
    }

    /// Begins a call with the permit that the lender knows as `name`, unless there is a pause now: a granted call cannot
    /// be kept for that long.
    fn begin_remote(
        self: &Arc<Self>,
        request: RemoteRequest<'_>,
        waiters: &Arc<RunWaiters>,
        entered: MonotonicTime,
        name: CallName,
    ) -> Result<Option<CallPermit>, AcquireError> {
        let (mut state, now) = (self.lock(), self.clock.now());
        if state.gates.lease.lender(now).as_ref() != Some(request.lender) {
            return Err(AcquireError::NotLeader);
        }
        if state.gates.admit_by_backoff(now).is_err() {
            return Ok(None);
        }
        if !waiters.begin(now.saturating_sub(entered)) {
            return Err(AcquireError::Abandoned);
        }
        let borrowed = request.into_permit();
        let cause = waiters.cause().clone();
        if let Some(shared) = &mut state.gates.lease.shared {
            shared.borrow(now, name.clone(), cause.caller.clone());
        }
        state.gates.begin_remote(now);
        state.calls_made.charge(&cause.caller);
        state.budgets.begin(&cause.caller);
        let record = self.state_file.as_ref().map(|file| file.begin(&self.account));
        Ok(Some(CallPermit::new(self, cause.clone(), cause, now, record, Some(name)).with_lender(borrowed)))
    }

    fn borrows_from(&self, lender: &ReplicaId) -> bool {
        self.lock().gates.lease.lender(self.clock.now()).as_ref() == Some(lender)
    }

    /// Ends the wait of all requests for permits, because their lender is not the leader any more: perhaps this replica
    /// is, which the role that the stages above see does not tell from a detached follower's.
    pub(super) fn forget_requests(&self) {
        self.remote_permits().requested.clear();
    }

    /// Returns a remote permit. The message says how its call ended, or that it was not made.
    pub(super) fn return_permit(&self, borrowed: &BorrowedPermit, message: PermitMessage) {
        self.send_permit_message(&borrowed.lender, borrowed.number, message);
    }
}

/// Both sides.
impl CallScheduler {
    fn remote_permits(&self) -> MutexGuard<'_, RemotePermits> {
        self.remote_permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_permit_message(&self, to: &ReplicaId, number: u64, message: PermitMessage) {
        if let Some(channel) = self.lease_link.channel().cloned() {
            let (to, message) = (Recipient::One(to.clone()), QuotaMessage::Permit { number, message });
            tokio::spawn(async move { channel.write(&to, message).await });
        }
    }

    /// Handles a message of another replica about the request with this number.
    pub(in crate::quota) fn on_permit_message(self: &Arc<Self>, from: &ReplicaId, number: u64, message: PermitMessage) {
        match message {
            PermitMessage::Request(requester) => self.on_permit_request(from, number, requester),
            PermitMessage::Granted(name) => self.on_permit_answer(number, Ok(name)),
            PermitMessage::Exhausted(milliseconds) => {
                self.on_permit_answer(number, Err(Exhausted { retry_after: Duration::from_millis(milliseconds) }));
            }
            // Dropped, the permit counts as one whose call has just ended.
            PermitMessage::Returned => drop(self.remove_lent(from, number)),
            PermitMessage::Answered => self.end_lent(from, number, |permit| permit.answered(None)),
            PermitMessage::Refused(milliseconds) => self.end_lent(from, number, |permit| {
                // The borrower has counted the refusal, and logged it.
                let pause = Duration::from_millis(milliseconds);
                permit.refused(SpentLimit::Unnamed, Some(pause), None);
            }),
            PermitMessage::Unused => self.end_lent(from, number, CallPermit::refund),
        }
    }

    fn on_permit_answer(&self, number: u64, answer: Result<CallName, Exhausted>) {
        // If the answer came twice, or no call waits any more, the lender learns it from the messages that follow.
        if let Some(waiting) = self.remote_permits().requested.remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    /// Removes a request, and ends its permit with `end` if that was granted.
    fn end_lent(&self, borrower: &ReplicaId, number: u64, end: impl FnOnce(CallPermit)) {
        if let Some(LentPermit::Granted { permit, .. }) = self.remove_lent(borrower, number) {
            end(permit);
        }
    }

    /// The lock is released when this returns: ending a permit takes the lock of the queue.
    fn remove_lent(&self, borrower: &ReplicaId, number: u64) -> Option<LentPermit> {
        self.remote_permits().lent.remove(&(borrower.clone(), number))
    }
}

/// Lender.
impl CallScheduler {
    /// Queues a request, or answers its repetition. One that is still queued gets the priority of its repetition.
    fn on_permit_request(self: &Arc<Self>, from: &ReplicaId, number: u64, requester: Requester) {
        let mut permits = self.remote_permits();
        let key = (from.clone(), number);
        match permits.lent.get_mut(&key) {
            Some(LentPermit::Queued { requested_at, waiters, waiting, .. }) => {
                *requested_at = Instant::now();
                // The requester from before leaves after this one has joined, so the call is not abandoned.
                if let Some(joined) = waiters.join(requester, None) {
                    *waiting = joined;
                }
            }
            Some(LentPermit::Granted { name, .. }) => {
                self.send_permit_message(from, number, PermitMessage::Granted(name.clone()));
            }
            Some(LentPermit::Exhausted { retry_after, .. }) => {
                self.send_permit_message(from, number, exhausted_message(*retry_after));
            }
            None => {
                let waiters = RunWaiters::new(requester.clone());
                let Some(waiting) = waiters.join(requester, None) else { return };
                let lending = self.clone().lend(from.clone(), number, waiters.clone());
                let task = AbortOnDropHandle::new(tokio::spawn(lending));
                let requested_at = Instant::now();
                permits.lent.insert(key, LentPermit::Queued { requested_at, waiters, waiting, _task: task });
            }
        }
    }

    /// Waits in this replica's queue for another one.
    async fn lend(self: Arc<Self>, to: ReplicaId, number: u64, waiters: Arc<RunWaiters>) {
        let at = Instant::now();
        let (lent, message) = match self.acquire(&waiters).await {
            Ok(permit) => {
                let Some(name) = permit.name() else { return };
                let message = PermitMessage::Granted(name.clone());
                (LentPermit::Granted { at: Instant::now(), name, permit }, message)
            }
            // The messages about permits never change, so the borrower takes the caller's limit for the quota.
            Err(
                AcquireError::Exhausted(Exhausted { retry_after })
                | AcquireError::CallerLimit(CallerLimitExceeded { retry_after, .. }),
            ) => (LentPermit::Exhausted { at, retry_after }, exhausted_message(retry_after)),
            // The borrower asks the new leader.
            Err(AcquireError::NotLeader | AcquireError::Abandoned) => return,
        };
        // The replaced value holds the handle of this task, which ends here anyway.
        let replaced = self.remote_permits().lent.insert((to.clone(), number), lent);
        self.send_permit_message(&to, number, message);
        drop(replaced);
    }

    /// Ends lent permits whose calls cannot be in flight any more, and forgets requests that are not repeated.
    pub(in crate::quota) fn expire_lent_permits(&self) {
        let call_timeout = self.lock().gates.lease.shared.as_ref().map(SharedQuota::longest_call).unwrap_or_default();
        let is_expired = |_: &(ReplicaId, u64), lent: &mut LentPermit| match lent {
            LentPermit::Queued { requested_at, .. } => requested_at.elapsed() > BORROWER_SILENCE_TIMEOUT,
            LentPermit::Granted { at, .. } => at.elapsed() > call_timeout + BORROWER_SILENCE_TIMEOUT,
            LentPermit::Exhausted { at, .. } => at.elapsed() > BORROWER_SILENCE_TIMEOUT + self.queue_timeout,
        };
        let expired: Vec<_> = self.remote_permits().lent.extract_if(.., is_expired).collect();
        drop(expired);
    }
}

fn exhausted_message(retry_after: Duration) -> PermitMessage {
    PermitMessage::Exhausted(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX))
}

/// A request for a remote permit. Dropped before its call begins, it tells the lender that the permit is not used.
struct RemoteRequest<'a> {
    scheduler: &'a CallScheduler,
    lender: &'a ReplicaId,
    number: u64,
    is_used: bool,
}

impl<'a> RemoteRequest<'a> {
    /// A request with a number of its own, and the receiver of its answer.
    fn register(
        scheduler: &'a CallScheduler,
        lender: &'a ReplicaId,
    ) -> (Self, oneshot::Receiver<Result<CallName, Exhausted>>) {
        let (sender, answer) = oneshot::channel();
        let mut permits = scheduler.remote_permits();
        let number = permits.next_number;
        permits.next_number += 1;
        permits.requested.insert(number, sender);
        (Self { scheduler, lender, number, is_used: false }, answer)
    }

    /// The permit that the lender has granted, for a call that begins.
    fn into_permit(mut self) -> BorrowedPermit {
        self.is_used = true;
        BorrowedPermit { lender: self.lender.clone(), number: self.number }
    }
}

impl Drop for RemoteRequest<'_> {
    fn drop(&mut self) {
        self.scheduler.remote_permits().requested.remove(&self.number);
        if !self.is_used {
            self.scheduler.send_permit_message(self.lender, self.number, PermitMessage::Unused);
        }
    }
}
