//! A fetch in flight: one bounded run, and whoever waits for it. It belongs to nobody: whoever waits may leave, and the
//! others still get what they wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::waiter::Waiter;
use crate::cache::CacheError;
use crate::cache::chunk::Chunk;
use crate::cache::store::ReadAheadPermit;
use crate::paging::{PlacementCheck, RunBounds, RunPhase, RunStatus};
use crate::quota::{CallScheduler, Exhausted};
use crate::request::{Priority, QueueTimeout, RunWaiters};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Interval, Timestamp};

/// Fetching a part of a run separately costs about a call, so it must spare so many pages of waiting to be worth it.
const PAGES_WORTH_A_CALL: f64 = 12.0;
/// For somebody more urgent than the run itself, fewer will do.
const PAGES_WORTH_A_CALL_TO_THE_URGENT: f64 = 5.0;
/// Where pages come quickly, there is nothing to spare.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// What a fetch has brought: all that there is of `interval`.
#[derive(Clone, Debug)]
pub(in crate::cache) struct FetchedInterval {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) chunks: Arc<[Arc<Chunk>]>,
}

impl FetchedInterval {
    /// Nothing: whoever waits looks again.
    pub(in crate::cache) fn nothing() -> Self {
        Self { interval: Interval::default(), chunks: Arc::default() }
    }
}

/// What identifies a flight when it begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct FetchSpec {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) agentic: bool,
    pub(in crate::cache) placed: PlacementCheck,
    pub(in crate::cache) began_at: Timestamp,
    /// The last purge of the account that was known when its run began; of one that another replica is to bring, when it
    /// was asked for.
    pub(in crate::cache) epoch: u64,
}

/// A fetch in flight.
#[derive(Debug)]
pub(in crate::cache) struct InFlightFetch {
    pub(in crate::cache) spec: FetchSpec,
    pub(in crate::cache) waiters: Arc<RunWaiters>,
    /// Of one that another replica is to bring: the only one who waits for it. Others send an errand of their own, and
    /// the one who calls joins them, as it knows what each of them wants.
    of: Option<Weak<Waiter>>,
    /// Told of each page, and when the flight has landed.
    status: watch::Sender<RunStatus>,
    landed: OnceLock<Result<FetchedInterval, CacheError>>,
    /// Whether something of what it brings was purged since it began: nobody else may wait for it.
    closed: AtomicBool,
    /// Whether somebody's answer has told of its calls: they are told of once.
    charged: AtomicBool,
    /// The room that was set aside for what it brings ahead of somebody who streams.
    ahead: Mutex<Option<ReadAheadPermit>>,
    /// Told of calls that no answer tells of.
    turns: Option<Arc<CallScheduler>>,
}

impl Drop for InFlightFetch {
    fn drop(&mut self) {
        // All who waited have left, or it has failed.
        if let Some((turns, calls)) = self.turns.clone().zip(self.charge()).filter(|(_, calls)| *calls > 0) {
            turns.add_unsettled(calls);
        }
    }
}

impl InFlightFetch {
    /// A flight that begins now; so many items are expected of it.
    pub(in crate::cache) fn begin(
        spec: FetchSpec,
        expected: Option<f64>,
        waiters: Arc<RunWaiters>,
        turns: Option<&Arc<CallScheduler>>,
    ) -> Arc<Self> {
        Self::with(spec, expected, waiters, turns, None)
    }

    /// One that another replica is to bring, to this seat.
    pub(in crate::cache) fn new_remote(
        spec: FetchSpec,
        expected: Option<f64>,
        seat: &Arc<Waiter>,
        turns: Option<&Arc<CallScheduler>>,
    ) -> Arc<Self> {
        Self::with(spec, expected, RunWaiters::new(seat.asker.clone()), turns, Some(Arc::downgrade(seat)))
    }

    fn with(
        spec: FetchSpec,
        expected: Option<f64>,
        waiters: Arc<RunWaiters>,
        turns: Option<&Arc<CallScheduler>>,
        of: Option<Weak<Waiter>>,
    ) -> Arc<Self> {
        let status = watch::Sender::new(RunStatus::new(spec.interval, expected));
        let (landed, closed, charged, ahead) = Default::default();
        Arc::new(Self { spec, waiters, of, status, landed, closed, charged, ahead, turns: turns.cloned() })
    }

    /// Whether another replica is to bring it.
    pub(in crate::cache) fn is_remote(&self) -> bool {
        self.of.is_some()
    }

    /// Whether it is brought for this seat, or for whoever wants it.
    pub(in crate::cache) fn serves_waiter(&self, seat: &Waiter) -> bool {
        self.of.as_ref().is_none_or(|of| std::ptr::eq(of.as_ptr(), seat))
    }

    /// Where the run tells how far it is.
    pub(in crate::cache) fn status(&self) -> &watch::Sender<RunStatus> {
        &self.status
    }

    /// What it brings.
    pub(in crate::cache) fn interval(&self) -> Interval {
        self.status.borrow().interval
    }

    /// How many items are expected of it, if anything is known.
    pub(in crate::cache) fn expected(&self) -> Option<f64> {
        self.status.borrow().expected
    }

    /// Lets nobody else wait for it. Those who do asked before, and still get what it brings.
    pub(in crate::cache) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// See [`InFlightFetch::close`].
    pub(in crate::cache) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sets room aside until whoever streams has taken what it brings.
    pub(in crate::cache) fn hold_read_ahead(&self, permit: ReadAheadPermit) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// The room that was set aside.
    pub(in crate::cache) fn take_read_ahead(&self) -> Option<ReadAheadPermit> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether one who wants `interval` with or without richness can wait for it.
    pub(in crate::cache) fn serves(&self, interval: Interval, agentic: bool) -> bool {
        let FetchSpec { placed, agentic: is_rich, .. } = self.spec;
        placed == PlacementCheck::Checked && (is_rich || !agentic) && self.interval().overlaps(interval)
    }

    /// It has landed: those who wait are told. The caller holds the shelf's lock and has taken it off the shelf.
    pub(in crate::cache) fn land(&self, result: Result<FetchedInterval, CacheError>) {
        // It lands once.
        let _ = self.landed.set(result);
        self.status.send_modify(|_| {});
    }

    /// What it brought, if it has landed.
    pub(in crate::cache) fn result(&self) -> Option<Result<FetchedInterval, CacheError>> {
        self.landed.get().cloned()
    }

    /// Until when the quota holds it up, for one of this class.
    pub(in crate::cache) fn paused_until(&self, class: Priority) -> Option<Instant> {
        match self.status.borrow().phase {
            RunPhase::Paused { until, class: paused } if paused <= class => Some(until),
            RunPhase::Paused { .. } | RunPhase::Fetching => None,
        }
    }

    /// Whether one who knew it to bring `known` has to look again: it has landed, or brings less.
    pub(in crate::cache) fn has_changed(&self, known: Interval) -> bool {
        self.landed.get().is_some() || self.interval() != known
    }

    /// An error if the quota holds it up for longer than `patience` lasts.
    pub(in crate::cache) fn check_queue_timeout(
        &self,
        class: Priority,
        patience: &QueueTimeout,
    ) -> Result<(), CacheError> {
        match self.paused_until(class).filter(|until| *until > patience.end()) {
            Some(until) => Err(CacheError::QuotaExhausted(Exhausted {
                retry_after: until.saturating_duration_since(Instant::now()),
            })),
            None => Ok(()),
        }
    }

    /// Whether one of this class who needs only `need` of it had better fetch that separately: while the quota is
    /// contended, and each call waits for `expected_wait`, its other pages would be waited for much longer. A slow
    /// upstream counts too, for somebody more urgent than the run.
    pub(in crate::cache) fn is_too_long_for(&self, need: Interval, class: Priority, expected_wait: Duration) -> bool {
        let RunStatus { interval, pages, expected, last_page, .. } = *self.status.borrow();
        let Some(expected) = expected.filter(|_| !self.is_remote()) else { return false };
        let all = expected / f64::from(PAGE_LIMIT);
        // One that has brought more than was expected of it may be as large as any.
        let all = if f64::from(pages) < all { all } else { f64::from(RunBounds::PRODUCT.pages) };
        let share = need.intersection(interval).length().as_secs_f64() / interval.length().as_secs_f64().max(1.0);
        let spared = all - f64::from(pages) - all * share;
        let is_urgent = class < self.waiters.cause().class;
        let wait = expected_wait.max(self.waiters.last_wait());
        let (worth, page) = if is_urgent {
            (PAGES_WORTH_A_CALL_TO_THE_URGENT, wait.max(last_page))
        } else {
            (PAGES_WORTH_A_CALL, wait)
        };
        spared >= worth && page.as_secs_f64() * spared >= SHORT_WAIT.as_secs_f64()
    }

    /// Another replica has brought it, at the cost of so many calls; `told` if somebody's answer there has told of them
    /// all.
    pub(in crate::cache) fn add_remote_calls(&self, calls: u32, told: bool) {
        self.waiters.add(calls);
        self.charged.store(told, Ordering::Relaxed);
    }

    /// Whether its calls have been told of.
    pub(in crate::cache) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed)
    }

    /// The calls it spent, for the first who asks; nothing for all others.
    pub(in crate::cache) fn charge(&self) -> Option<u32> {
        (!self.charged.swap(true, Ordering::Relaxed)).then(|| self.waiters.charge())
    }
}
