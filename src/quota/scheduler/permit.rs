//! One turn, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use super::lending::BorrowedPermit;
use super::{CallScheduler, State};
use crate::quota::lease::CallName;
use crate::quota::limiter::longest;
use crate::quota::limiter::{MonotonicTime, ReducedLimit};
use crate::quota::state_file::RecordSlot;
use crate::request::Requester;
use crate::upstream::{RateLimitHeader, SpentLimit};

/// What came of a refusal by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How long until the pause that the upstream asked for ends; only probes go before.
    pub closed_for: Duration,
    /// How long until a call may go: the end of the pause, or a probe.
    pub retry_after: Duration,
    /// The limit whose budget has shrunk; `None` if the refusal told nothing new.
    pub shrunk: Option<ReducedLimit>,
}

/// The right to make one call. Dropped at any time, it counts as spent: the call may have reached the upstream.
#[derive(Debug)]
pub struct CallPermit {
    turns: Arc<CallScheduler>,
    /// Who is charged.
    cause: Requester,
    /// Whose place in the line it was.
    served: Requester,
    began: MonotonicTime,
    slot: Option<RecordSlot>,
    /// By which the other replicas know it.
    name: Option<CallName>,
    /// Of another replica.
    borrowed: Option<BorrowedPermit>,
    open: bool,
}

impl CallPermit {
    pub(super) fn new(
        turns: &Arc<CallScheduler>,
        cause: Requester,
        served: Requester,
        began: MonotonicTime,
        slot: Option<RecordSlot>,
        name: Option<CallName>,
    ) -> Self {
        Self { turns: turns.clone(), cause, served, began, slot, name, borrowed: None, open: true }
    }

    /// The same turn, on loan from another replica.
    pub(super) fn on_loan(mut self, borrowed: BorrowedPermit) -> Self {
        self.borrowed = Some(borrowed);
        self
    }

    /// By which the other replicas know the call.
    pub(super) fn name(&self) -> Option<CallName> {
        self.name.clone()
    }

    /// The call never reached the upstream.
    pub fn refund(mut self) {
        self.open = false;
        let turns = self.turns.clone();
        let mut state = turns.lock();
        state.ledger.refund();
        state.shares.refund(&self.served);
        if let Some(spent) = state.spent.get_mut(&self.cause.caller) {
            *spent = spent.saturating_sub(1);
        }
        if let Some((journal, slot)) = turns.journal.as_ref().zip(self.slot.take()) {
            journal.refund(slot);
        }
        if let Some((common, name)) = state.common.as_mut().zip(self.name.take()) {
            common.refund(&name);
        }
        if let Some(borrowed) = self.borrowed.take() {
            turns.give_back(&borrowed, false);
        }
        state.wake_first();
    }

    /// The upstream answered with a page, and perhaps with what is left.
    pub fn answered(mut self, allowance: Option<&RateLimitHeader>) {
        let turns = self.turns.clone();
        let (mut state, now) = (turns.lock(), turns.now());
        self.end(&mut state, now);
        state.backoff.answered(now, self.began);
        if let Some(allowance) = allowance {
            turns.told(&mut state, now, self.began, allowance);
        }
        state.wake_first();
    }

    /// The upstream said that the quota is spent, in spite of the ledger: somebody else spends the same quota. The budget
    /// shrinks, and nobody calls for a while: for as long as the upstream asks, or else for a call's share of the window,
    /// and for twice as long each time that it says so again.
    pub fn refused(
        mut self,
        named: SpentLimit,
        retry_after: Option<Duration>,
        allowance: Option<&RateLimitHeader>,
    ) -> Refused {
        let turns = self.turns.clone();
        let (mut state, now) = (turns.lock(), turns.now());
        self.end(&mut state, now);
        // One refusal after the other, with no answer between, says that there is nothing to be had now, not that there is
        // less: so the budget shrinks once, and is still there when the wall is gone.
        let is_first = state.backoff.refused(now, self.began);
        let shrunk = is_first.then(|| state.ledger.refused(now, self.began, named)).flatten();
        let pause = state.backoff.pause_after(&turns.limits, named, retry_after);
        state.backoff.close(now, self.began, pause);
        if let Some(allowance) = allowance {
            turns.told(&mut state, now, self.began, allowance);
        }
        // All who wait look again: for some the deadline now lies before the turn.
        state.queue.values().for_each(|waiting| waiting.called.notify_one());
        let [closed_for, retry_after] =
            [state.backoff.until(), state.backoff.opens_at()].map(|tick| tick.saturating_sub(now));
        Refused { closed_for, retry_after, shrunk }
    }

    fn end(&mut self, state: &mut State, now: MonotonicTime) {
        self.open = false;
        state.ledger.end(now, &self.cause.caller);
        if let Some((journal, slot)) = self.turns.journal.as_ref().zip(self.slot.take()) {
            journal.end(slot);
        }
        if let Some((common, name)) = state.common.as_mut().zip(self.name.take()) {
            common.end(now, &name);
        }
        if let Some(borrowed) = self.borrowed.take() {
            self.turns.give_back(&borrowed, true);
        }
    }
}

impl CallScheduler {
    /// The upstream itself says what is left: it knows better than the ledger.
    fn told(&self, state: &mut State, now: MonotonicTime, began: MonotonicTime, allowance: &RateLimitHeader) {
        state.ledger.told(now, allowance);
        if let (0, Some(reset)) = (allowance.remaining, allowance.reset) {
            // What it calls a reset cannot lie further away than its longest window.
            state.backoff.close(now, began, reset.min(longest(&self.limits)));
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.open {
            let turns = self.turns.clone();
            let (mut state, now) = (turns.lock(), turns.now());
            self.end(&mut state, now);
            state.wake_first();
        }
    }
}
