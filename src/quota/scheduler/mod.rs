//! Fair queue of the upstream calls of one account, and the gates that each call passes.
//!
//! [`CallScheduler::acquire`] queues a call and returns a [`CallPermit`]. A call that is woken asks the gates in this
//! order, and waits at the first one that is closed:
//!
//! 1. **Role** ([`lease_gate`]): while another replica is the leader, the call leaves the queue; a detached replica
//!    asks the leader for a remote permit. First, because it concerns all calls, whatever their place.
//! 2. **Queue** ([`queue`]): only the first call by priority, fair share and arrival asks the gates below, so that no
//!    call overtakes it.
//! 3. **Concurrency** ([`gates`]): fewer calls are in flight than `upstream.max_concurrency`. Before the gates with a
//!    time, because it opens when a call ends, at an unknown time.
//! 4. **Backoff and ledger**, together: the pause that the upstream asked for is over (or a probe is due), and each
//!    rolling limit has room. Their time is often certain; a call that cannot begin within its timeout fails at once.
//! 5. **Pacer**: the next call is due. After the ledger, because its time is never certain and would hide a certain
//!    one.
//! 6. **Lease** ([`lease_gate`]): a call that is granted in Redis is at hand. Last, because it takes that call, which
//!    would expire unused if another gate were closed.
//!
//! The call is then entered in the state file, which cannot refuse it, before the permit is handed out.
//!
//! | file | |
//! | --- | --- |
//! | `queue` | waiting calls and their order |
//! | `fair_share` | virtual time of each caller (pure) |
//! | `gates` | concurrency, backoff, ledger and pacer |
//! | `lease_gate` | role, granted calls, and the share without Redis |
//! | `permit` | the end of a call: answered, refused, not sent, or unknown |
//! | `lease_sync` | what the lease driver reads and writes |
//! | `lending` | remote permits, for replicas with different settings |
//! | `status`, `spare_calls` | the state for other stages, operators and callers |

mod fair_share;
mod gates;
mod lease_gate;
mod lease_sync;
mod lending;
mod permit;
mod queue;
mod spare_calls;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::gates::{Closed, Gate, Gates};
use self::lease_sync::LeaseLink;
use self::lending::RemotePermits;
use self::queue::{CallQueue, QueuePlace};
use super::lease::CallName;
use super::limiter::{Ledger, MonotonicTime};
use super::savings::Savings;
use super::state_file::StateFile;
use crate::config;
use crate::config::QuotaLimit;
use crate::request::{Priority, RunWaiters};

pub use self::lease_gate::QuotaShare;
pub use self::permit::{CallPermit, RefusalEffect};

/// The quota cannot serve a call within `quota.queue_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Time until it can, as far as is known now.
    pub retry_after: Duration,
}

/// Why a call gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// The quota has no room within `quota.queue_timeout`.
    Exhausted(Exhausted),
    /// No request waits for the run any more, and it has made no call yet.
    Abandoned,
    /// Another replica makes the calls of the account.
    NotLeader,
}

/// Scheduler of the upstream calls of one account.
#[derive(Debug)]
pub struct CallScheduler {
    account: Arc<str>,
    /// As configured, in the order of the configuration.
    limits: Vec<QuotaLimit>,
    queue_timeout: Duration,
    clock: SchedulerClock,
    state_file: Option<StateFile>,
    lease_link: LeaseLink,
    /// Held for bookkeeping only, never across an await. May be taken while `state` is held, not the other way round.
    remote_permits: Mutex<RemotePermits>,
    pub(super) savings: Savings,
    /// Held for arithmetic, and for the line in the state file; never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: CallQueue,
    gates: Gates,
    calls_made: CallCounts,
}

/// Calls since the start of the process, by the caller that is charged for them.
#[derive(Debug, Default)]
struct CallCounts {
    by_caller: HashMap<Arc<str>, u64>,
}

impl CallCounts {
    fn charge(&mut self, caller: &Arc<str>) {
        *self.by_caller.entry(caller.clone()).or_default() += 1;
    }

    fn refund(&mut self, caller: &str) {
        if let Some(calls) = self.by_caller.get_mut(caller) {
            *calls = calls.saturating_sub(1);
        }
    }

    fn of(&self, caller: &str) -> u64 {
        self.by_caller.get(caller).copied().unwrap_or_default()
    }
}

/// Monotonic clock of a scheduler: a step of the wall clock does not change the ledger.
#[derive(Clone, Copy, Debug)]
struct SchedulerClock {
    epoch: Instant,
    /// Time of the epoch. Calls of processes before this one lie before it.
    epoch_time: MonotonicTime,
}

impl SchedulerClock {
    fn now(&self) -> MonotonicTime {
        self.epoch_time + self.epoch.elapsed()
    }

    fn instant(&self, time: MonotonicTime) -> Instant {
        self.epoch + time.saturating_sub(self.epoch_time)
    }
}

impl CallScheduler {
    /// A scheduler with an empty queue. The calls that `state_file` knows of count against the limits.
    pub fn new(
        account: &Arc<str>,
        limits: Vec<QuotaLimit>,
        quota: &config::QuotaConfig,
        max_concurrency: u32,
        state_file: Option<&StateFile>,
    ) -> Arc<Self> {
        let epoch_time = limits.iter().map(|limit| limit.per).max().unwrap_or_default() * 2;
        let clock = SchedulerClock { epoch: Instant::now(), epoch_time };
        let mut ledger = Ledger::new(limits.clone());
        let unknown_caller = Arc::from("");
        let restored =
            state_file.into_iter().flat_map(|file| file.restored(account).into_iter().chain(file.lost(&limits)));
        for call in restored {
            ledger.restore((epoch_time + call.ahead).saturating_sub(call.age), &unknown_caller);
        }
        let (reserve, queue_timeout) = (quota.interactive_reserve, quota.queue_timeout);
        let gates = Gates::new(ledger, &limits, max_concurrency, reserve, queue_timeout);
        Arc::new(Self {
            account: account.clone(),
            limits,
            queue_timeout,
            clock,
            state_file: state_file.cloned(),
            lease_link: LeaseLink::default(),
            remote_permits: Mutex::default(),
            savings: Savings::default(),
            state: Mutex::new(State { queue: CallQueue::default(), gates, calls_made: CallCounts::default() }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit for one call of the run that `waiters` wait for, at most `quota.queue_timeout`.
    ///
    /// # Errors
    /// [`AcquireError::Exhausted`] after the timeout, or at once when it is certain that no permit comes within it;
    /// [`AcquireError::Abandoned`] when no request waits for the run any more and it has made no call;
    /// [`AcquireError::NotLeader`] when another replica makes the calls.
    pub async fn acquire(self: &Arc<Self>, waiters: &Arc<RunWaiters>) -> Result<CallPermit, AcquireError> {
        let entered = self.clock.now();
        let deadline = entered + self.queue_timeout;
        let place = QueuePlace::enter(self, waiters);
        loop {
            let now = self.clock.now();
            let closed = match self.pass_gates(&place, entered, now) {
                Ok(permit) => return Ok(permit),
                Err(closed) => closed,
            };
            let ask_again = match closed {
                Closed::For(error) => return Err(error),
                Closed::Remote(leader) => {
                    // The calls behind this one leave the queue by themselves.
                    drop(place);
                    return self.acquire_remote(leader, waiters, entered).await;
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
                () = tokio::time::sleep_until(self.clock.instant(ask_again)) => {}
                () = place.woken.notified() => {}
                () = waiters.changed() => {}
            }
        }
    }

    /// Asks the gates, in the order of the module's documentation, and begins the call if all are open.
    fn pass_gates(
        self: &Arc<Self>,
        place: &QueuePlace<'_>,
        entered: MonotonicTime,
        now: MonotonicTime,
    ) -> Gate<CallPermit> {
        let mut state = self.lock();
        let State { queue, gates, .. } = &mut *state;
        if place.waiters.is_abandoned() {
            return Err(Closed::For(AcquireError::Abandoned));
        }
        gates.lease.admit_by_role(now)?;
        let first = queue.admit(place.ticket);
        if first.is_err() {
            gates.admit_by_backoff(now)?;
        }
        let priority = first?.priority;
        gates.admit_by_concurrency(priority)?;
        gates.admit_by_limits(now, priority)?;
        gates.admit_by_pacer(now, priority)?;
        let name = self.admit_by_lease(gates, now, &place.waiters.cause().caller)?;
        let waited = now.saturating_sub(entered);
        let permit = self.begin(&mut state, place.waiters, priority, waited, now, name)?;
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

    /// Begins a call that has passed all gates. `name` is its name among replicas.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        waiters: &Arc<RunWaiters>,
        priority: Priority,
        waited: Duration,
        now: MonotonicTime,
        name: Option<CallName>,
    ) -> Gate<CallPermit> {
        if !waiters.begin(waited) {
            state.gates.lease.refund(name.as_ref());
            return Err(Closed::For(AcquireError::Abandoned));
        }
        state.gates.begin(now, priority);
        let served = state.queue.charge(waiters);
        let cause = waiters.cause().clone();
        state.calls_made.charge(&cause.caller);
        // Before the call is made: if this process dies, the next one knows of the call.
        let record = self.state_file.as_ref().map(|file| file.begin(&self.account));
        Ok(CallPermit::new(self, cause, served, now, record, name))
    }
}
