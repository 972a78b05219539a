//! A fetch in flight: one bounded run, which all requests for overlapping windows share (single-flight of intervals).
//! It belongs to no request: a waiter may leave, and the others still get the result.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::waiter::Waiter;
use crate::cache::chunk::Chunk;
use crate::cache::error::CacheError;
use crate::cache::store::ReadAheadPermit;
use crate::paging::{PagingError, PlacementCheck, RunBounds, RunPhase, RunStatus};
use crate::quota::{CallScheduler, CallerLimitExceeded, Exhausted, QuotaError};
use crate::request::{QueueTimeout, Requester, RunWaiters};
use crate::sync::{AtomicBool, Mutex, OnceLock};
use crate::traces::SpanKind;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Interval, Timestamp};

/// The least pages that a separate fetch must save a waiter, as it costs about a call.
const MIN_PAGES_SAVED: f64 = 12.0;
/// The least pages that it must save a waiter that is more urgent than the run.
const MIN_PAGES_SAVED_IF_URGENT: f64 = 5.0;
/// The least time that it must save.
const MIN_TIME_SAVED: Duration = Duration::from_secs(5);

/// Result of a fetch: the items of `interval`, complete.
#[derive(Clone, Debug)]
pub(in crate::cache) struct FetchedInterval {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) chunks: Arc<[Arc<Chunk>]>,
}

impl FetchedInterval {
    /// No items of no interval: waiters plan again.
    pub(in crate::cache) fn nothing() -> Self {
        Self { interval: Interval::default(), chunks: Arc::default() }
    }
}

/// Parameters with which a fetch was started.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct FetchSpec {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) agentic: bool,
    pub(in crate::cache) placement: PlacementCheck,
    pub(in crate::cache) began_at: Timestamp,
    /// The last purge of the account that was known when the run began, or when the leader was asked for it.
    pub(in crate::cache) epoch: u64,
}

/// A fetch in flight.
#[derive(Debug)]
pub(in crate::cache) struct InFlightFetch {
    pub(in crate::cache) spec: FetchSpec,
    started_at: Instant,
    pub(in crate::cache) waiters: Arc<RunWaiters>,
    /// The only waiter of a fetch that another replica makes. Other requests send a remote fetch each, and the leader
    /// joins them, as it knows what each of them needs.
    remote_waiter: Option<Weak<Waiter>>,
    /// Notified of each page, and when the fetch has finished.
    status: watch::Sender<RunStatus>,
    result: OnceLock<Result<FetchedInterval, CacheError>>,
    /// Whether a part of its interval was purged since it began: no further request may wait for it.
    closed: AtomicBool,
    /// Whether an answer has reported its calls, which are reported once.
    charged: AtomicBool,
    /// Memory that is reserved for its result if it was started ahead of a streamed answer.
    read_ahead: Mutex<Option<ReadAheadPermit>>,
    /// Notified of calls that no answer reports.
    scheduler: Option<Arc<CallScheduler>>,
}

impl Drop for InFlightFetch {
    fn drop(&mut self) {
        // All waiters have left, or the fetch has failed.
        if let Some((scheduler, calls)) = self.scheduler.clone().zip(self.charge()).filter(|(_, calls)| *calls > 0) {
            scheduler.add_unsettled(calls);
        }
    }
}

impl InFlightFetch {
    /// A fetch that begins now; `expected` is the number of items, if anything is known.
    pub(in crate::cache) fn new(
        spec: FetchSpec,
        expected: Option<f64>,
        waiters: Arc<RunWaiters>,
        scheduler: Option<&Arc<CallScheduler>>,
    ) -> Arc<Self> {
        Self::with(spec, expected, waiters, scheduler, None)
    }

    /// A fetch that another replica makes for `waiter`.
    pub(in crate::cache) fn new_remote(
        spec: FetchSpec,
        expected: Option<f64>,
        waiter: &Arc<Waiter>,
        scheduler: Option<&Arc<CallScheduler>>,
    ) -> Arc<Self> {
        let span = waiter.span.child(SpanKind::Client, "remote fetch");
        let waiters = RunWaiters::traced(waiter.requester.clone(), span);
        Self::with(spec, expected, waiters, scheduler, Some(Arc::downgrade(waiter)))
    }

    fn with(
        spec: FetchSpec,
        expected: Option<f64>,
        waiters: Arc<RunWaiters>,
        scheduler: Option<&Arc<CallScheduler>>,
        remote_waiter: Option<Weak<Waiter>>,
    ) -> Arc<Self> {
        let status = watch::Sender::new(RunStatus::new(spec.interval, expected));
        let (result, closed, charged, read_ahead) = Default::default();
        let (started_at, scheduler) = (Instant::now(), scheduler.cloned());
        Arc::new(Self {
            spec,
            started_at,
            waiters,
            remote_waiter,
            status,
            result,
            closed,
            charged,
            read_ahead,
            scheduler,
        })
    }

    /// When the fetch was started.
    pub(in crate::cache) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Whether the fetch began after the request came, so that it was begun for this request.
    pub(in crate::cache) fn began_after(&self, waiter: &Waiter) -> bool {
        self.started_at > waiter.asked_at
    }

    /// Whether another replica makes the fetch.
    pub(in crate::cache) fn is_remote(&self) -> bool {
        self.remote_waiter.is_some()
    }

    /// Whether the fetch is made for all requests, or for this one.
    pub(in crate::cache) fn serves_waiter(&self, waiter: &Waiter) -> bool {
        self.remote_waiter.as_ref().is_none_or(|only| std::ptr::eq(only.as_ptr(), waiter))
    }

    /// Progress of the run.
    pub(in crate::cache) fn status(&self) -> &watch::Sender<RunStatus> {
        &self.status
    }

    /// The interval that the fetch is going to bring. It becomes shorter when the run turns out too large.
    pub(in crate::cache) fn interval(&self) -> Interval {
        self.status.borrow().interval
    }

    /// How many items are expected, if anything is known.
    pub(in crate::cache) fn expected(&self) -> Option<f64> {
        self.status.borrow().expected
    }

    /// Admits no further waiters. Those that wait have asked before the purge, and still get the result.
    pub(in crate::cache) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// See [`InFlightFetch::close`].
    pub(in crate::cache) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Keeps a reservation of memory until the streamed answer has taken the result.
    pub(in crate::cache) fn hold_read_ahead(&self, permit: ReadAheadPermit) {
        *self.read_ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// Takes the reservation of memory.
    pub(in crate::cache) fn take_read_ahead(&self) -> Option<ReadAheadPermit> {
        self.read_ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a request for `interval`, with or without `agenticActivities`, can use the result.
    pub(in crate::cache) fn serves(&self, interval: Interval, agentic: bool) -> bool {
        let FetchSpec { placement, agentic: is_agentic, .. } = self.spec;
        placement == PlacementCheck::Checked && (is_agentic || !agentic) && self.interval().overlaps(interval)
    }

    /// Sets the result and notifies the waiters. The caller holds the lock of the series and has removed the fetch from
    /// it.
    pub(in crate::cache) fn complete(&self, result: Result<FetchedInterval, CacheError>) {
        // Called once.
        let _ = self.result.set(result);
        self.status.send_modify(|_| {});
    }

    /// The result, if the fetch has finished.
    pub(in crate::cache) fn result(&self) -> Option<Result<FetchedInterval, CacheError>> {
        self.result.get().cloned()
    }

    /// Until when the quota, or the limit of its caller, pauses the run for this requester, and the error of a request
    /// that does not wait for so long.
    pub(in crate::cache) fn pause_for(&self, requester: &Requester) -> Option<(Instant, CacheError)> {
        match &self.status.borrow().phase {
            RunPhase::Paused { until, priority } if *priority <= requester.priority => {
                let retry_after = until.saturating_duration_since(Instant::now());
                Some((*until, CacheError::QuotaExhausted(Exhausted { retry_after })))
            }
            RunPhase::CallersSpent { until, exceeded, callers } if callers.contains(&requester.caller) => {
                let retry_after = until.saturating_duration_since(Instant::now());
                let exceeded = CallerLimitExceeded { retry_after, ..*exceeded };
                Some((*until, CacheError::Paging(PagingError::Quota(QuotaError::CallerLimit(exceeded)))))
            }
            RunPhase::Paused { .. } | RunPhase::CallersSpent { .. } | RunPhase::Fetching => None,
        }
    }

    /// Whether a waiter that expected the interval `known` must plan again: the fetch has finished, or brings less.
    pub(in crate::cache) fn has_changed(&self, known: Interval) -> bool {
        self.result.get().is_some() || self.interval() != known
    }

    /// An error if the quota, or the limit of its caller, pauses the run beyond the end of `queue_timeout`.
    pub(in crate::cache) fn check_queue_timeout(
        &self,
        requester: &Requester,
        queue_timeout: &QueueTimeout,
    ) -> Result<(), CacheError> {
        match self.pause_for(requester).filter(|(until, _)| *until > queue_timeout.end()) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether a waiter that needs only `need` should fetch it separately. While the quota is contended, and each call
    /// waits for `expected_wait`, the other pages of the run would take much longer than a separate call. A slow
    /// upstream counts too, for a waiter that is more urgent than the run. A fetch that began after the request came is
    /// not left: it is the separate fetch, and leaving it too would begin one after the other.
    pub(in crate::cache) fn is_too_long_for(&self, need: Interval, waiter: &Waiter, expected_wait: Duration) -> bool {
        if self.began_after(waiter) {
            return false;
        }
        let RunStatus { interval, pages, expected, last_page, .. } = self.status.borrow().clone();
        let Some(expected) = expected.filter(|_| !self.is_remote()) else { return false };
        let planned = expected / f64::from(PAGE_LIMIT);
        // A run that has exceeded what was expected may be as large as any.
        let all = if f64::from(pages) < planned { planned } else { f64::from(RunBounds::PRODUCT.pages) };
        let share = need.intersection(interval).length().as_secs_f64() / interval.length().as_secs_f64().max(1.0);
        let pages_saved = all - f64::from(pages) - all * share;
        let is_urgent = waiter.requester.priority < self.waiters.cause().priority;
        let wait = expected_wait.max(self.waiters.last_wait());
        let (min_pages_saved, page) =
            if is_urgent { (MIN_PAGES_SAVED_IF_URGENT, wait.max(last_page)) } else { (MIN_PAGES_SAVED, wait) };
        pages_saved >= min_pages_saved && page.as_secs_f64() * pages_saved >= MIN_TIME_SAVED.as_secs_f64()
    }

    /// Adds the calls that another replica has made for the fetch; `reported` if an answer there has reported all of
    /// them.
    pub(in crate::cache) fn add_remote_calls(&self, calls: u32, reported: bool) {
        self.waiters.add(calls);
        self.charged.store(reported, Ordering::Relaxed);
    }

    /// Whether the calls of the fetch have been reported.
    pub(in crate::cache) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed)
    }

    /// The calls of the fetch, for the first answer that reports them; `None` for all others.
    pub(in crate::cache) fn charge(&self) -> Option<u32> {
        (!self.charged.swap(true, Ordering::Relaxed)).then(|| self.waiters.charge())
    }
}
