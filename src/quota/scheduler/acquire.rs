//! The way of a call through the queue and the gates to its permit.

use std::sync::Arc;
use std::time::Duration;

use super::call_scheduler::{CallScheduler, State};
use super::error::{AcquireError, Exhausted};
use super::gate::{Closed, Gate};
use super::gates::Gates;
use super::permit::CallPermit;
use super::queue_place::QueuePlace;
use crate::config::LimitMode;
use crate::quota::lease::CallName;
use crate::quota::limiter::{CallerBudgets, CallerLimitExceeded, MonotonicTime, Payer};
use crate::request::{Priority, RunWaiters};
use crate::telemetry;

impl CallScheduler {
    /// Waits for a permit for one call of the run that `waiters` wait for, at most `quota.queue_timeout`, or as long as
    /// the most patient of them.
    ///
    /// # Errors
    /// [`AcquireError::Exhausted`] after the timeout, or at once when it is certain that no permit comes within it;
    /// [`AcquireError::Abandoned`] when no request waits for the run any more and it has made no call;
    /// [`AcquireError::NotLeader`] when another replica makes the calls.
    pub async fn acquire(self: &Arc<Self>, waiters: &Arc<RunWaiters>) -> Result<CallPermit, AcquireError> {
        let entered = self.clock.now();
        let mut place = QueuePlace::enter(self, waiters);
        loop {
            let now = self.clock.now();
            // Requests join and leave.
            let deadline = entered + self.queue_timeout.max(waiters.longest_timeout());
            let closed = match self.pass_gates(&place, entered, now) {
                Ok(permit) => return Ok(permit),
                Err(closed) => closed,
            };
            let ask_again = match closed {
                Closed::For(error) => {
                    if let AcquireError::CallerLimit(exceeded) = &error {
                        let (caller, mode) = (&waiters.cause().caller, LimitMode::Enforce.label());
                        telemetry::caller_limit_refusal(caller, exceeded.label(), mode);
                    }
                    return Err(error);
                }
                Closed::Remote(leader) => {
                    // The calls behind this one leave the queue by themselves.
                    drop(place);
                    if let Some(permit) = self.acquire_remote(leader, waiters, entered).await? {
                        return Ok(permit);
                    }
                    place = QueuePlace::enter(self, waiters);
                    continue;
                }
                Closed::Until { time, is_certain } if is_certain && time > deadline => {
                    return Err(AcquireError::Exhausted(Exhausted { retry_after: time.saturating_sub(now) }));
                }
                Closed::Until { time, .. } => time.min(deadline),
                Closed::UntilWoken => deadline,
            };
            if now >= deadline {
                let retry_after = self.estimated_wait(place.ticket, now);
                return Err(AcquireError::Exhausted(Exhausted { retry_after }));
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.clock.instant(ask_again)) => {}
                () = place.woken.notified() => {}
                () = waiters.changed() => {}
            }
        }
    }

    /// Asks the gates, in the order that [`super`] lists, and begins the call if all are open.
    fn pass_gates(
        self: &Arc<Self>,
        place: &QueuePlace<'_>,
        entered: MonotonicTime,
        now: MonotonicTime,
    ) -> Gate<CallPermit> {
        let mut state = self.lock();
        let State { queue, gates, budgets, .. } = &mut *state;
        if place.waiters.is_abandoned() {
            return Err(Closed::For(AcquireError::Abandoned));
        }
        gates.admit_by_role(now)?;
        let payer =
            payer(budgets, place.waiters, now).map_err(|exceeded| Closed::For(AcquireError::CallerLimit(exceeded)))?;
        let first = queue.admit(place.ticket);
        if first.is_err() {
            gates.admit_by_backoff(now)?;
        }
        let priority = first?.priority;
        gates.admit_by_concurrency(priority)?;
        gates.admit_by_limits(now, priority)?;
        gates.admit_by_pacer(now, priority)?;
        let name = self.admit_by_lease(gates, now, &payer.requester.caller)?;
        let waited = now.saturating_sub(entered);
        let permit = self.begin(&mut state, place.waiters, priority, (waited, now), payer, name)?;
        state.queue.remove(place.ticket);
        Ok(permit)
    }

    /// Asks the lease gate, and requests an exchange with Redis if the call waits for one.
    fn admit_by_lease(&self, gates: &mut Gates, now: MonotonicTime, caller: &Arc<str>) -> Gate<Option<CallName>> {
        let room = gates.ledger.limit_usage(now).map(|usage| usage.remaining).min().unwrap_or(u32::MAX);
        let answer = gates.lease.admit(now, caller, room);
        if gates.lease.awaits_exchange(now) {
            self.exchange_soon();
        }
        answer
    }

    /// Begins a call that has passed all gates `now`, having `waited`. `name` is its name among replicas.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        waiters: &Arc<RunWaiters>,
        priority: Priority,
        (waited, now): (Duration, MonotonicTime),
        payer: Payer,
        name: Option<CallName>,
    ) -> Gate<CallPermit> {
        if !waiters.begin(waited) {
            state.gates.lease.refund(name.as_ref());
            return Err(Closed::For(AcquireError::Abandoned));
        }
        state.gates.begin(now, priority);
        let served = state.queue.charge(waiters);
        let Payer { requester: cause, exceeded } = payer;
        state.calls_made.charge(&cause.caller);
        state.budgets.begin(&cause.caller);
        if let Some(exceeded) = exceeded {
            telemetry::caller_limit_refusal(&cause.caller, exceeded.label(), LimitMode::Shadow.label());
        }
        // Before the call is made: if this process dies, the next one knows of the call.
        let record = self.state_file.as_ref().map(|file| file.begin(&self.account));
        Ok(CallPermit::new(self, cause, served, now, record, name))
    }
}

/// The requester that pays for a call of the run.
fn payer(budgets: &CallerBudgets, waiters: &RunWaiters, now: MonotonicTime) -> Result<Payer, CallerLimitExceeded> {
    if budgets.is_empty() {
        return Ok(Payer { requester: waiters.cause().clone(), exceeded: None });
    }
    budgets.payer(waiters.payers(), now)
}
