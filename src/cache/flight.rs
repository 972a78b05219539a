//! A fetch in flight: one bounded run, and whoever waits for it. It belongs to nobody: whoever waits may leave, and the
//! others still get what they wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::CacheError;
use super::chunk::Chunk;
use super::memory::AheadPermit;
use super::seat::Seat;
use crate::quota::{Exhausted, Turns};
use crate::repage::{Placed, RunBounds, RunPhase, RunStatus};
use crate::upstream::{Class, Demand, PAGE_LIMIT, Patience};
use crate::window::{Moment, Span};

/// Fetching a part of a run separately costs about a call, so it must spare so many pages of waiting to be worth it.
const PAGES_WORTH_A_CALL: f64 = 12.0;
/// For somebody more urgent than the run itself, fewer will do.
const PAGES_WORTH_A_CALL_TO_THE_URGENT: f64 = 5.0;
/// Where pages come quickly, there is nothing to spare.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// What a fetch has brought: all that there is of `span`.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) span: Span,
    pub(super) chunks: Arc<[Arc<Chunk>]>,
}

impl Delivered {
    /// Nothing: whoever waits looks again.
    pub(super) fn nothing() -> Self {
        Self { span: Span::default(), chunks: Arc::default() }
    }
}

/// What identifies a flight when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) span: Span,
    pub(super) rich: bool,
    pub(super) placed: Placed,
    pub(super) began_at: Moment,
    /// The last purge of the account that was known when its run began; of one that another replica is to bring, when it
    /// was asked for.
    pub(super) epoch: u64,
}

/// A fetch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) route: Route,
    pub(super) demand: Arc<Demand>,
    /// Of one that another replica is to bring: the only one who waits for it. Others send an errand of their own, and
    /// the one who calls joins them, as it knows what each of them wants.
    of: Option<Weak<Seat>>,
    /// Told of each page, and when the flight has landed.
    status: watch::Sender<RunStatus>,
    landed: OnceLock<Result<Delivered, CacheError>>,
    /// Whether something of what it brings was purged since it began: nobody else may wait for it.
    closed: AtomicBool,
    /// Whether somebody's answer has told of its calls: they are told of once.
    charged: AtomicBool,
    /// The room that was set aside for what it brings ahead of somebody who streams.
    ahead: Mutex<Option<AheadPermit>>,
    /// Told of calls that no answer tells of.
    turns: Option<Arc<Turns>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // All who waited have left, or it has failed.
        if let Some((turns, calls)) = self.turns.clone().zip(self.charge()).filter(|(_, calls)| *calls > 0) {
            turns.add_unsettled(calls);
        }
    }
}

impl Flight {
    /// A flight that begins now; so many items are expected of it.
    pub(super) fn begin(
        route: Route,
        expected: Option<f64>,
        demand: Arc<Demand>,
        turns: Option<&Arc<Turns>>,
    ) -> Arc<Self> {
        Self::with(route, expected, demand, turns, None)
    }

    /// One that another replica is to bring, to this seat.
    pub(super) fn begin_elsewhere(
        route: Route,
        expected: Option<f64>,
        seat: &Arc<Seat>,
        turns: Option<&Arc<Turns>>,
    ) -> Arc<Self> {
        Self::with(route, expected, Demand::new(seat.asker.clone()), turns, Some(Arc::downgrade(seat)))
    }

    fn with(
        route: Route,
        expected: Option<f64>,
        demand: Arc<Demand>,
        turns: Option<&Arc<Turns>>,
        of: Option<Weak<Seat>>,
    ) -> Arc<Self> {
        let status = watch::Sender::new(RunStatus::new(route.span, expected));
        let (landed, closed, charged, ahead) = Default::default();
        Arc::new(Self { route, demand, of, status, landed, closed, charged, ahead, turns: turns.cloned() })
    }

    /// Whether another replica is to bring it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.of.is_some()
    }

    /// Whether it is brought for this seat, or for whoever wants it.
    pub(super) fn is_for(&self, seat: &Seat) -> bool {
        self.of.as_ref().is_none_or(|of| std::ptr::eq(of.as_ptr(), seat))
    }

    /// Where the run tells how far it is.
    pub(super) fn status(&self) -> &watch::Sender<RunStatus> {
        &self.status
    }

    /// What it brings.
    pub(super) fn span(&self) -> Span {
        self.status.borrow().span
    }

    /// How many items are expected of it, if anything is known.
    pub(super) fn expected(&self) -> Option<f64> {
        self.status.borrow().expected
    }

    /// Lets nobody else wait for it. Those who do asked before, and still get what it brings.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// See [`Flight::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sets room aside until whoever streams has taken what it brings.
    pub(super) fn hold_room(&self, permit: AheadPermit) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// The room that was set aside.
    pub(super) fn take_room(&self) -> Option<AheadPermit> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether one who wants `span` with or without richness can wait for it.
    pub(super) fn serves(&self, span: Span, rich: bool) -> bool {
        let Route { placed, rich: is_rich, .. } = self.route;
        placed == Placed::Checked && (is_rich || !rich) && self.span().overlaps(span)
    }

    /// It has landed: those who wait are told. The caller holds the shelf's lock and has taken it off the shelf.
    pub(super) fn land(&self, result: Result<Delivered, CacheError>) {
        // It lands once.
        let _ = self.landed.set(result);
        self.status.send_modify(|_| {});
    }

    /// What it brought, if it has landed.
    pub(super) fn delivered(&self) -> Option<Result<Delivered, CacheError>> {
        self.landed.get().cloned()
    }

    /// Until when the quota holds it up, for one of this class.
    pub(super) fn paused_until(&self, class: Class) -> Option<Instant> {
        match self.status.borrow().phase {
            RunPhase::Paused { until, class: paused } if paused <= class => Some(until),
            RunPhase::Paused { .. } | RunPhase::Fetching => None,
        }
    }

    /// Whether one who knew it to bring `known` has to look again: it has landed, or brings less.
    pub(super) fn has_news(&self, known: Span) -> bool {
        self.landed.get().is_some() || self.span() != known
    }

    /// An error if the quota holds it up for longer than `patience` lasts.
    pub(super) fn check_patience(&self, class: Class, patience: &Patience) -> Result<(), CacheError> {
        match self.paused_until(class).filter(|until| *until > patience.end()) {
            Some(until) => {
                Err(CacheError::Held(Exhausted { retry_after: until.saturating_duration_since(Instant::now()) }))
            }
            None => Ok(()),
        }
    }

    /// Whether one of this class who needs only `need` of it had better fetch that separately: while the quota is
    /// contended, and each call waits for `expected_wait`, its other pages would be waited for much longer. A slow
    /// upstream counts too, for somebody more urgent than the run.
    pub(super) fn is_too_long_for(&self, need: Span, class: Class, expected_wait: Duration) -> bool {
        let RunStatus { span, pages, expected, last_page, .. } = *self.status.borrow();
        let Some(expected) = expected.filter(|_| !self.is_elsewhere()) else { return false };
        let all = expected / f64::from(PAGE_LIMIT);
        // One that has brought more than was expected of it may be as large as any.
        let all = if f64::from(pages) < all { all } else { f64::from(RunBounds::PRODUCT.pages) };
        let share = need.intersection(span).length().as_secs_f64() / span.length().as_secs_f64().max(1.0);
        let spared = all - f64::from(pages) - all * share;
        let is_urgent = class < self.demand.cause().class;
        let wait = expected_wait.max(self.demand.last_wait());
        let (worth, page) = if is_urgent {
            (PAGES_WORTH_A_CALL_TO_THE_URGENT, wait.max(last_page))
        } else {
            (PAGES_WORTH_A_CALL, wait)
        };
        spared >= worth && page.as_secs_f64() * spared >= SHORT_WAIT.as_secs_f64()
    }

    /// Another replica has brought it, at the cost of so many calls; `told` if somebody's answer there has told of them
    /// all.
    pub(super) fn spent_elsewhere(&self, calls: u32, told: bool) {
        self.demand.add(calls);
        self.charged.store(told, Ordering::Relaxed);
    }

    /// Whether its calls have been told of.
    pub(super) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed)
    }

    /// The calls it spent, for the first who asks; nothing for all others.
    pub(super) fn charge(&self) -> Option<u32> {
        (!self.charged.swap(true, Ordering::Relaxed)).then(|| self.demand.charge())
    }
}
