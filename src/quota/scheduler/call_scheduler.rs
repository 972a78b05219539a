//! The scheduler of one account: its queue, its gates, and the permits that replicas lend each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gates::Gates;
use super::lease_link::LeaseLink;
use super::permit::RemotePermits;
use super::queue::CallQueue;
use crate::config;
use crate::config::QuotaLimit;
use crate::quota::limiter::{CallerBudgets, Ledger, MonotonicTime};
use crate::quota::savings::Savings;
use crate::quota::state_file::StateFile;
use crate::sync::{Mutex, MutexGuard};

/// Scheduler of the upstream calls of one account.
#[derive(Debug)]
pub struct CallScheduler {
    pub(super) account: Arc<str>,
    pub(super) queue_timeout: Duration,
    pub(super) clock: SchedulerClock,
    pub(super) state_file: Option<StateFile>,
    pub(super) lease_link: LeaseLink,
    /// Held for bookkeeping only, never across an await. May be taken while `state` is held, not the other way round.
    pub(super) remote_permits: Mutex<RemotePermits>,
    pub(super) savings: Savings,
    /// Whether a reload has not removed the account.
    is_configured: AtomicBool,
    /// Held for arithmetic, and for the line in the state file; never across an await.
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: CallQueue,
    pub(super) gates: Gates,
    pub(super) calls_made: CallerCallCounts,
    pub(super) budgets: CallerBudgets,
}

/// Calls since the start of the process, by the caller that is charged for them.
#[derive(Debug, Default)]
pub(super) struct CallerCallCounts {
    by_caller: HashMap<Arc<str>, u64>,
}

impl CallerCallCounts {
    pub(super) fn charge(&mut self, caller: &Arc<str>) {
        *self.by_caller.entry(caller.clone()).or_default() += 1;
    }

    pub(super) fn refund(&mut self, caller: &str) {
        if let Some(calls) = self.by_caller.get_mut(caller) {
            *calls = calls.saturating_sub(1);
        }
    }

    pub(super) fn of(&self, caller: &str) -> u64 {
        self.by_caller.get(caller).copied().unwrap_or_default()
    }
}

/// Monotonic clock of a scheduler: a step of the wall clock does not change the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct SchedulerClock {
    epoch: Instant,
    /// Time of the epoch. Calls of processes before this one lie before it.
    epoch_time: MonotonicTime,
}

impl SchedulerClock {
    pub(super) fn now(&self) -> MonotonicTime {
        self.epoch_time + self.epoch.elapsed()
    }

    pub(super) fn instant(&self, time: MonotonicTime) -> Instant {
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
        let gates = Gates::new(ledger, limits, max_concurrency, reserve, queue_timeout);
        Arc::new(Self {
            account: account.clone(),
            queue_timeout,
            clock,
            state_file: state_file.cloned(),
            lease_link: LeaseLink::default(),
            remote_permits: Mutex::default(),
            savings: Savings::default(),
            is_configured: AtomicBool::new(true),
            state: Mutex::new(State {
                queue: CallQueue::default(),
                gates,
                calls_made: CallerCallCounts::default(),
                budgets: CallerBudgets::default(),
            }),
        })
    }

    /// Sets the callers' own limits of calls.
    pub fn limit_callers(&self, callers: &[config::CallerConfig]) {
        let mut state = self.lock();
        state.budgets.set(callers);
        state.queue.wake_all();
    }

    /// Sets the limits, and the share that background calls leave free.
    pub fn configure(&self, limits: &[QuotaLimit], interactive_reserve: f64) {
        let mut state = self.lock();
        if state.gates.limits != limits {
            self.announce_limits();
        }
        state.gates.configure(limits.to_vec(), interactive_reserve);
        state.queue.wake_all();
    }

    /// Whether a reload has not removed the account.
    pub fn is_configured(&self) -> bool {
        self.is_configured.load(Ordering::Relaxed)
    }

    /// Notes whether the account is configured. The limits of one that is not bind no other replica.
    pub fn set_configured(&self, is_configured: bool) {
        if self.is_configured.swap(is_configured, Ordering::Relaxed) != is_configured {
            self.announce_limits();
        }
    }

    fn announce_limits(&self) {
        self.lease_link.limits_changed.store(true, Ordering::Relaxed);
        self.lease_link.exchange_wanted.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
