//! A fetch under way. It belongs to nobody: whoever waits may leave, and the others still get what they wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

use super::CacheError;
use super::chunk::Chunk;
use super::seat::Seat;
use super::sight::Sight;
use crate::quota::Exhausted;
use crate::repage::Placed;
use crate::upstream::{Class, Demand, Patience};
use crate::window::{Moment, Span};

/// How far a flight has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// It goes on.
    Flying,
    /// The quota holds it up until then; those who wait, and are no more urgent than this, are told to come again.
    Held(Instant, Class),
    /// It ended, with all its chunks or none.
    Landed(Result<Arc<[Arc<Chunk>]>, CacheError>),
}

/// A run on its way, or a part of one.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) rich: bool,
    pub(super) placed: Placed,
    pub(super) began_at: Moment,
    /// The last purge of the account that was known when its run began; of one that another replica is to bring, when it
    /// was asked for.
    pub(super) epoch: u64,
    pub(super) demand: Arc<Demand>,
    /// Of one that another replica is to bring: the only one who waits for it. Others send an errand of their own, and
    /// the one who calls joins them, as it knows what each of them wants.
    of: Option<Weak<Seat>>,
    route: Mutex<Route>,
    progress: watch::Receiver<Progress>,
    /// Whether somebody's answer has told of its calls: they are told of once.
    charged: AtomicBool,
    /// What it has seen for those who stream.
    pub(super) sight: Sight,
}

/// What changes of a flight while the shelf's lock is held; its own lock is held for a look only.
#[derive(Debug)]
struct Route {
    span: Span,
    /// Who waits for it, and what each needs of it.
    seats: Vec<(Weak<Seat>, Span)>,
    /// Whether something of what it brings was purged since it began: nobody else may wait for it.
    closed: bool,
}

impl Flight {
    /// A flight that begins now, and the end that tells of its progress.
    pub(super) fn begin(
        span: Span,
        rich: bool,
        placed: Placed,
        now: Moment,
        epoch: u64,
        demand: Arc<Demand>,
    ) -> (Arc<Self>, watch::Sender<Progress>) {
        Self::with(span, rich, placed, now, epoch, demand, None)
    }

    /// One that another replica is to bring, to this seat.
    pub(super) fn begin_elsewhere(
        span: Span,
        rich: bool,
        placed: Placed,
        now: Moment,
        epoch: u64,
        seat: &Arc<Seat>,
    ) -> (Arc<Self>, watch::Sender<Progress>) {
        Self::with(span, rich, placed, now, epoch, Demand::new(seat.asker.clone()), Some(Arc::downgrade(seat)))
    }

    fn with(
        span: Span,
        rich: bool,
        placed: Placed,
        now: Moment,
        epoch: u64,
        demand: Arc<Demand>,
        of: Option<Weak<Seat>>,
    ) -> (Arc<Self>, watch::Sender<Progress>) {
        let (tell, progress) = watch::channel(Progress::Flying);
        let (route, charged) = (Mutex::new(Route { span, seats: Vec::new(), closed: false }), AtomicBool::default());
        let sight = Sight::default();
        (Arc::new(Self { rich, placed, began_at: now, epoch, demand, of, route, progress, charged, sight }), tell)
    }

    /// Whether another replica is to bring it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.of.is_some()
    }

    /// Whether it is brought for this seat, or for whoever wants it.
    pub(super) fn is_for(&self, seat: &Seat) -> bool {
        self.of.as_ref().is_none_or(|of| std::ptr::eq(of.as_ptr(), seat))
    }

    /// The flight on which its run goes on with `rest`.
    pub(super) fn go_on_with(&self, rest: Span) -> (Arc<Self>, watch::Sender<Progress>) {
        // Still the same run: what was purged since it began is not in what it has yet to bring either.
        let (next, tell) = Self::begin(rest, self.rich, self.placed, self.began_at, self.epoch, self.demand.clone());
        if self.is_closed() {
            next.close();
        }
        // It says so once.
        if self.sight.is_long() {
            next.sight.set_long();
        }
        (next, tell)
    }

    fn route<T>(&self, look: impl FnOnce(&mut Route) -> T) -> T {
        look(&mut self.route.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it brings.
    pub(super) fn span(&self) -> Span {
        self.route(|route| route.span)
    }

    /// From now on it brings only this.
    pub(super) fn shorten(&self, span: Span) {
        self.route(|route| route.span = span);
    }

    /// Lets nobody else wait for it. Those who do asked before, and still get what it brings.
    pub(super) fn close(&self) {
        self.route(|route| route.closed = true);
    }

    /// See [`Flight::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.route(|route| route.closed)
    }

    /// Somebody waits for `need` of it.
    pub(super) fn remember(&self, seat: &Arc<Seat>, need: Span) {
        self.route(|route| route.seats.push((Arc::downgrade(seat), need)));
        self.sight.look_again();
    }

    /// Those who still wait, with what each needs of it.
    pub(super) fn seats(&self) -> Vec<(Arc<Seat>, Span)> {
        self.route(|route| route.seats.iter().filter_map(|(seat, need)| Some((seat.upgrade()?, *need))).collect())
    }

    /// Whether one who wants `span` with or without richness can wait for it.
    pub(super) fn serves(&self, span: Span, rich: bool) -> bool {
        // One whose task is gone without a word would keep everybody waiting for nothing.
        let is_lost = self.progress.has_changed().is_err();
        self.placed == Placed::Checked && (self.rich || !rich) && self.span().overlaps(span) && !is_lost
    }

    /// What it brought, if it has landed: all its chunks. They may be of a part of its span only, when the rest goes on on
    /// another flight.
    pub(super) fn brought(&self) -> Option<Result<Arc<[Arc<Chunk>]>, CacheError>> {
        match &*self.progress.borrow() {
            Progress::Landed(result) => Some(result.clone()),
            Progress::Flying | Progress::Held(..) => None,
        }
    }

    /// Ends when something has changed.
    pub(super) fn changed(&self) -> watch::Receiver<Progress> {
        let mut progress = self.progress.clone();
        progress.mark_unchanged();
        progress
    }

    /// Until when the quota holds it up, for one of this class.
    pub(super) fn held_until(&self, class: Class) -> Option<Instant> {
        match &*self.progress.borrow() {
            Progress::Held(until, held) if *held <= class => Some(*until),
            _ => None,
        }
    }

    /// Ends when it has landed, or has become shorter than `known`, the span that it had when the waiting was decided
    /// upon; or has turned out to be long, for one who `streams`. An error as soon as it is held for longer than `patience`
    /// lasts.
    pub(super) async fn news(
        &self,
        known: Span,
        class: Class,
        patience: &Patience,
        streams: bool,
    ) -> Result<(), CacheError> {
        let mut progress = self.progress.clone();
        let is_long = || streams && self.sight.is_long();
        let news = progress.wait_for(|progress| match progress {
            _ if is_long() => true,
            Progress::Flying => self.span() != known,
            Progress::Held(until, held) => (*held <= class && *until > patience.end()) || self.span() != known,
            Progress::Landed(_) => true,
        });
        match news.await.as_deref() {
            Ok(Progress::Landed(_)) => Ok(()),
            Ok(_) if self.span() != known || is_long() => Ok(()),
            Ok(Progress::Held(until, _)) => {
                Err(CacheError::Held(Exhausted { retry_after: until.saturating_duration_since(Instant::now()) }))
            }
            // The task that told of it is gone without a word.
            Ok(Progress::Flying) | Err(_) => Err(CacheError::Lost),
        }
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
