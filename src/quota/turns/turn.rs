//! One turn, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use super::{State, Turns};
use crate::config::Limit;
use crate::quota::common::Name;
use crate::quota::journal::Slot;
use crate::quota::ledger::{Shrunk, Tick};
use crate::upstream::{Allowance, Asker, SpentLimit};

/// However many calls a limit allows, an upstream that refuses one is left alone for so long.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// One that refuses for an hour is asked now and then, for nobody says when it will have had enough.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// What came of a refusal by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For how long nobody calls.
    pub closed_for: Duration,
    /// The limit whose budget has shrunk; `None` if the refusal told nothing new.
    pub shrunk: Option<Shrunk>,
}

/// The right to make one call. Dropped at any time, it counts as spent: the call may have reached the upstream.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    /// Who is charged.
    cause: Asker,
    /// Whose place in the line it was.
    served: Asker,
    began: Tick,
    slot: Option<Slot>,
    /// By which the other replicas know it.
    name: Option<Name>,
    open: bool,
}

impl Turn {
    pub(super) fn new(
        turns: &Arc<Turns>,
        cause: Asker,
        served: Asker,
        began: Tick,
        slot: Option<Slot>,
        name: Option<Name>,
    ) -> Self {
        Self { turns: turns.clone(), cause, served, began, slot, name, open: true }
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
            common.take_back(&name);
        }
        state.wake_first();
    }

    /// The upstream answered with a page, and perhaps with what is left.
    pub fn answered(mut self, allowance: Option<&Allowance>) {
        let turns = self.turns.clone();
        let (mut state, now) = (turns.lock(), turns.now());
        self.end(&mut state, now);
        if self.began >= state.refused_at {
            state.refusals = 0;
        }
        if let Some(allowance) = allowance {
            turns.told(&mut state, now, allowance);
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
        allowance: Option<&Allowance>,
    ) -> Refused {
        let turns = self.turns.clone();
        let (mut state, now) = (turns.lock(), turns.now());
        self.end(&mut state, now);
        // A call that was under way when the last refusal came has met the same wall. And one refusal after the other,
        // with no answer between, says that there is nothing to be had now, not that there is less: so the budget
        // shrinks once, and is still there when the wall is gone.
        let is_news = self.began >= state.refused_at;
        let shrunk = (is_news && state.refusals == 0).then(|| state.ledger.refused(now, self.began, named)).flatten();
        if is_news {
            state.refusals = state.refusals.saturating_add(1);
            state.refused_at = now;
        }
        let guess = turns.pause(named, state.refusals);
        let closed_for = match retry_after {
            Some(asked) if state.refusals <= 1 => asked,
            Some(asked) => asked.max(guess),
            None => guess,
        };
        state.closed_until = state.closed_until.max(now + closed_for);
        if let Some(allowance) = allowance {
            turns.told(&mut state, now, allowance);
        }
        // All who wait look again: for some the deadline now lies before the turn.
        state.queue.values().for_each(|waiting| waiting.called.notify_one());
        Refused { closed_for, shrunk }
    }

    fn end(&mut self, state: &mut State, now: Tick) {
        self.open = false;
        state.ledger.end(now, &self.cause.caller);
        if let Some((journal, slot)) = self.turns.journal.as_ref().zip(self.slot.take()) {
            journal.end(slot);
        }
        if let Some((common, name)) = state.common.as_mut().zip(self.name.take()) {
            common.end(now, &name);
        }
    }
}

impl Turns {
    /// How long nobody calls after so many refusals in a row.
    fn pause(&self, named: SpentLimit, refusals: u32) -> Duration {
        let by_length = |limit: &&Limit| limit.per;
        let limit = match named {
            SpentLimit::Hour => self.limits.iter().max_by_key(by_length),
            SpentLimit::Minute | SpentLimit::Unnamed => self.limits.iter().min_by_key(by_length),
        };
        let Some(limit) = limit else { return SHORTEST_PAUSE };
        let share = (limit.per / limit.requests).max(SHORTEST_PAUSE);
        share.saturating_mul(1 << refusals.saturating_sub(1).min(20)).min(limit.per).min(LONGEST_PAUSE)
    }

    /// The upstream itself says what is left: it knows better than the ledger.
    fn told(&self, state: &mut State, now: Tick, allowance: &Allowance) {
        state.ledger.told(now, allowance);
        if let (0, Some(reset)) = (allowance.remaining, allowance.reset) {
            // What it calls a reset cannot lie further away than its longest window.
            let longest = self.limits.iter().map(|limit| limit.per).max().unwrap_or_default();
            state.closed_until = state.closed_until.max(now + reset.min(longest));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.open {
            let turns = self.turns.clone();
            let (mut state, now) = (turns.lock(), turns.now());
            self.end(&mut state, now);
            state.wake_first();
        }
    }
}
