//! Turns that one replica lends another.
//!
//! Whoever follows lets the one who calls bring what it misses. Where that does not work, for the two are configured
//! differently and cannot read each other's chunks, it makes its calls itself; but each with a turn of the one who calls,
//! whose queue and ledger hold for all. The turn is open there until it comes back, or could not be under way any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{AcquireError, CallPermit, CallScheduler, Exhausted};
use crate::quota::lease::{CallName, QuotaChange, SharedQuota};
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::{PermitMessage, QuotaMessage, Recipient, ReplicaId};
use crate::request::{Requester, RunWaiters};
use crate::telemetry;

/// How often a turn is asked for again that nothing was heard of.
const AGAIN: Duration = Duration::from_secs(1);
/// Who has asked for a turn, and was not heard of for so long, is gone.
const SILENCE: Duration = Duration::from_secs(5);

/// The turns that are on loan, or being waited for.
#[derive(Debug, Default)]
pub(super) struct PermitLending {
    next: AtomicU64,
    /// Those who wait here for a turn of another replica.
    awaited: HashMap<u64, oneshot::Sender<Result<CallName, Exhausted>>>,
    /// Those of this replica's turns that others have asked for.
    lent: HashMap<(ReplicaId, u64), LentPermit>,
}

#[derive(Debug)]
enum LentPermit {
    Waiting { heard: Instant, _task: AbortOnDropHandle<()> },
    Lent { at: Instant, name: CallName, turn: CallPermit },
    Spent { at: Instant, retry_after: Duration },
}

/// A turn of another replica's.
#[derive(Debug)]
pub(super) struct BorrowedPermit {
    lender: ReplicaId,
    number: u64,
}

impl CallScheduler {
    /// Makes its calls itself from now on, with turns of `caller`, as long as that one is the one who calls: what it
    /// brings cannot be read here.
    pub fn detach(&self, caller: &ReplicaId) {
        {
            let mut state = self.lock();
            if state.apart.as_ref() == Some(caller) {
                return;
            }
            state.apart = Some(caller.clone());
        }
        telemetry::replicas_differ(&self.account);
        self.update_lease(|_, _| ((), QuotaChange { ledger: false, queue: true }));
    }

    fn write(&self, to: &ReplicaId, number: u64, message: PermitMessage) {
        if let Some(meeting) = self.meeting.get().cloned() {
            let (to, message) = (Recipient::One(to.clone()), QuotaMessage::Permit { number, message });
            tokio::spawn(async move { meeting.write(&to, message).await });
        }
    }

    /// Waits for a turn of `lender`.
    pub(super) async fn borrow(
        self: &Arc<Self>,
        lender: ReplicaId,
        demand: &Arc<RunWaiters>,
        asked: MonotonicTime,
    ) -> Result<CallPermit, AcquireError> {
        let number = self.loans().next.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answer) = oneshot::channel();
        self.loans().awaited.insert(number, sender);
        let awaited = Awaited { turns: self, lender: &lender, number, is_settled: false };
        let mut role = self.role();
        role.mark_unchanged();
        let deadline = self.instant(asked + self.queue_timeout);
        let name = loop {
            // As urgent as whoever waits for it by now.
            let asker = Requester { class: demand.class(), ..demand.cause().clone() };
            self.write(&lender, number, PermitMessage::Borrow(asker));
            tokio::select! {
                answered = timeout(AGAIN, &mut answer) => match answered {
                    Ok(Ok(Ok(name))) => break name,
                    Ok(Ok(Err(exhausted))) => return Err(AcquireError::Exhausted(exhausted)),
                    Ok(Err(_)) => return Err(AcquireError::NotLeader),
                    Err(_) => {}
                },
                // Who calls now may be this one.
                _ = role.changed() => return Err(AcquireError::NotLeader),
                () = demand.changed() => if demand.is_abandoned() {
                    return Err(AcquireError::Abandoned);
                },
            }
            if Instant::now() >= deadline {
                return Err(AcquireError::Exhausted(Exhausted { retry_after: AGAIN }));
            }
        };
        let (mut state, now) = (self.lock(), self.now());
        let state = &mut *state;
        let follows = state.common.as_ref().is_some_and(|common| common.role(now) == Role::Follower(lender.clone()));
        if !follows {
            return Err(AcquireError::NotLeader);
        }
        if !demand.begin(now.saturating_sub(asked)) {
            return Err(AcquireError::Abandoned);
        }
        awaited.settle();
        let cause = demand.cause().clone();
        if let Some(common) = &mut state.common {
            common.borrow(now, name.clone(), cause.caller.clone());
        }
        state.ledger.begin();
        state.backoff.begin(now);
        *state.spent.entry(cause.caller.clone()).or_default() += 1;
        let slot = self.journal.as_ref().map(|journal| journal.begin(&self.account));
        let borrowed = BorrowedPermit { lender: lender.clone(), number };
        Ok(CallPermit::new(self, cause.clone(), cause, now, slot, Some(name)).on_loan(borrowed))
    }

    /// A turn that was borrowed is given back: its call has ended, or was never made.
    pub(super) fn give_back(&self, borrowed: &BorrowedPermit, was_used: bool) {
        let word = if was_used { PermitMessage::Back } else { PermitMessage::Unused };
        self.write(&borrowed.lender, borrowed.number, word);
    }

    /// Another replica writes about a turn.
    pub(in crate::quota) fn on_permit_message(self: &Arc<Self>, from: &ReplicaId, number: u64, word: PermitMessage) {
        let mut loans = self.loans();
        let key = (from.clone(), number);
        match word {
            PermitMessage::Lent(name) => {
                // If it was told twice, or nobody waits any more, the one who lends finds out by itself.
                if let Some(awaited) = loans.awaited.remove(&number) {
                    let _ = awaited.send(Ok(name));
                }
            }
            PermitMessage::Spent(milliseconds) => {
                if let Some(awaited) = loans.awaited.remove(&number) {
                    let retry_after = Duration::from_millis(milliseconds);
                    let _ = awaited.send(Err(Exhausted { retry_after }));
                }
            }
            PermitMessage::Back => {
                let loan = loans.lent.remove(&key);
                // Dropped, the turn counts as one whose call has just ended; it takes this queue's lock.
                drop(loans);
                drop(loan);
            }
            PermitMessage::Unused => {
                let loan = loans.lent.remove(&key);
                drop(loans);
                if let Some(LentPermit::Lent { turn, .. }) = loan {
                    turn.refund();
                }
            }
            PermitMessage::Borrow(asker) => match loans.lent.get_mut(&key) {
                Some(LentPermit::Waiting { heard, .. }) => *heard = Instant::now(),
                Some(LentPermit::Lent { name, .. }) => self.write(from, number, PermitMessage::Lent(name.clone())),
                Some(LentPermit::Spent { retry_after, .. }) => {
                    let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                    self.write(from, number, PermitMessage::Spent(milliseconds));
                }
                None => {
                    let task = tokio::spawn(self.clone().lend(from.clone(), number, asker));
                    let waiting = LentPermit::Waiting { heard: Instant::now(), _task: AbortOnDropHandle::new(task) };
                    loans.lent.insert(key, waiting);
                }
            },
        }
    }

    async fn lend(self: Arc<Self>, to: ReplicaId, number: u64, asker: Requester) {
        let demand = RunWaiters::new(asker.clone());
        let Some(_waiting) = demand.join(asker, None) else { return };
        let (at, key) = (Instant::now(), (to.clone(), number));
        let (loan, word) = match self.acquire(&demand).await {
            Ok(turn) => {
                let Some(name) = turn.name() else { return };
                let word = PermitMessage::Lent(name.clone());
                (LentPermit::Lent { at: Instant::now(), name, turn }, word)
            }
            Err(AcquireError::Exhausted(Exhausted { retry_after })) => {
                let word = PermitMessage::Spent(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
                (LentPermit::Spent { at, retry_after }, word)
            }
            // Whoever calls now is asked then.
            Err(AcquireError::NotLeader | AcquireError::Abandoned) => return,
        };
        // What stands there is the handle of this very task, which ends here anyway.
        let before = self.loans().lent.insert(key, loan);
        self.write(&to, number, word);
        drop(before);
    }

    /// Takes back what nobody can still be using, and lets go of who does not ask any more.
    pub(in crate::quota) fn expire_lent_permits(&self) {
        let call = self.lock().common.as_ref().map(SharedQuota::longest_call).unwrap_or_default();
        let is_over = |_: &(ReplicaId, u64), loan: &mut LentPermit| match loan {
            LentPermit::Waiting { heard, .. } => heard.elapsed() > SILENCE,
            LentPermit::Lent { at, .. } => at.elapsed() > call + SILENCE,
            LentPermit::Spent { at, .. } => at.elapsed() > SILENCE + self.queue_timeout,
        };
        let over: Vec<_> = self.loans().lent.extract_if(is_over).collect();
        drop(over);
    }
}

/// Somebody waits for a turn of another replica; dropped before it has come, it is not wanted any more.
struct Awaited<'a> {
    turns: &'a CallScheduler,
    lender: &'a ReplicaId,
    number: u64,
    is_settled: bool,
}

impl Awaited<'_> {
    /// It has come.
    fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.turns.loans().awaited.remove(&self.number);
        if !self.is_settled {
            self.turns.write(self.lender, self.number, PermitMessage::Unused);
        }
    }
}
