//! The paging stage: fetches a bounded run page by page until it is complete, or fails. No stage above sees a page.
//!
//! A run has one outcome, [`FetchedRun`]: complete and verified by counting, or an error. Unverified items stay private to
//! it. Its progress is published as a [`RunStatus`] on a watch channel, so that waiting requests can plan again when the
//! run becomes shorter or completes.
//!
//! | file | content |
//! | --- | --- |
//! | `concurrency` | how many runs may be under way, of which callers |
//! | `pager` | one run: its scans, and what is scanned again or halved where rows move |
//! | `scan` | one pass over the pages of a query by offset, and its verification (pure) |
//! | `sizing` | where a run of unknown density ends, and when a run has become too large (pure) |
//! | `checkpoint` | ending a scan early with a verifying call |
//! | `proven_duplicates` | items that the upstream holds several times, and their verification |
//! | `packing` | packs scanned items while the next pages are fetched |
//! | `page_source` | one page, when the quota grants it |
//! | `item` | timestamp and `segmentID` of an item |

mod checkpoint;
mod item;
mod packing;
mod pager;
mod sizing;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{Layer, Service};

pub use self::concurrency::{RunLimiter, RunLimiters};
pub use self::item::Item;
pub use self::scan::{Inconsistency, MisplacedItem, OffsetScan, PlacementCheck, RowOrder, TearDetection};
pub use self::sizing::{FIRST_RUN_ITEMS, RunBounds, is_worth_side_by_side};

use self::concurrency::{RunLength, RunPermit};
use self::pager::Pager;

use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaError;
use crate::request::{Priority, Requester, RunWaiters, Series};
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Density, Interval, Timestamp};

/// Limits of a short run: at most this many planned items or, with unknown density, at most this length.
const SHORT_RUN_ITEMS: f64 = 4.0 * PAGE_LIMIT as f64;
const SHORT_SPAN: Duration = Duration::from_hours(24);

/// A bounded interval to fetch completely.
#[derive(Debug)]
pub struct Run<P> {
    /// The rows to fetch.
    pub series: Arc<Series>,
    /// The interval to fetch; not empty.
    pub interval: Interval,
    /// Whether the items must lie within the interval, so that the answer can be cut by their timestamps.
    pub placed: PlacementCheck,
    /// Planned number of items. `None` if the density is unknown: then the first pages decide where the run ends.
    pub planned: Option<f64>,
    /// The requests that wait for the run, and the accounting of its calls.
    pub waiters: Arc<RunWaiters>,
    /// Receives the run's progress.
    pub status: watch::Sender<RunStatus>,
    /// Packs the fetched items.
    pub packer: P,
}

impl<P> Run<P> {
    fn length(&self) -> RunLength {
        let is_short = self.planned.map_or(self.interval.length() <= SHORT_SPAN, |items| items <= SHORT_RUN_ITEMS);
        if is_short { RunLength::Short } else { RunLength::Long }
    }
}

/// Packs a run's items while more of them are fetched. Packed items are private to the run until it is verified.
pub trait ItemPacker: Clone + Send + Sync + 'static {
    /// Packed items.
    type Packed: Send + Sync + 'static;

    /// Packs a part of a run. Called on a blocking thread, because it may take long.
    fn pack(&self, part: RunPart) -> Vec<Self::Packed>;

    /// Memory of packed items, in bytes.
    fn weight(packed: &Self::Packed) -> usize;
}

/// A part of a run, with all its items.
#[derive(Clone, Debug)]
pub struct RunPart {
    /// The interval of the part.
    pub interval: Interval,
    /// All items of the interval, in the order of the contract.
    pub items: Vec<Item>,
    /// When the scan that fetched them began.
    pub fetched_at: Timestamp,
}

/// The result of a run: all items of `interval`.
#[derive(Debug)]
pub struct FetchedRun<T> {
    /// The interval that was fetched: all of the run's, or one end of it if the run turned out too large.
    pub interval: Interval,
    /// All items, packed, in no promised order.
    pub packed: Vec<T>,
    /// The order of the upstream's rows, as far as it was observed.
    pub order: RowOrder,
    /// Whether rows moved, so that the interval was fetched in pieces of one page each.
    pub halved: bool,
}

/// Progress of a run.
#[derive(Clone, Debug)]
pub struct RunStatus {
    /// The interval that the run is going to fetch. Becomes shorter if the first pages of a run of unknown density show
    /// that it is too large.
    pub interval: Interval,
    /// Whether the run waits for the quota.
    pub phase: RunPhase,
    /// Number of pages fetched.
    pub pages: u32,
    /// Expected number of items in `interval`; `None` while the density is unknown.
    pub expected: Option<f64>,
    /// Observed density of the rows, if they come in order.
    pub density: Option<Arc<Density>>,
    /// Time that the last page took, including its wait for the quota.
    pub last_page: Duration,
}

/// Whether a run waits for the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// Fetching: waits for its permit, the scheduler or its page.
    Fetching,
    /// Paused: the quota is spent until `until` for runs of priority `priority`. The run resumes by itself.
    Paused {
        /// When the run resumes, as far as is known.
        until: Instant,
        /// Priority of the most urgent request that waited for it.
        priority: Priority,
    },
}

impl RunStatus {
    /// The status of a run that has not begun.
    pub fn new(interval: Interval, expected: Option<f64>) -> Self {
        Self { interval, phase: RunPhase::Fetching, pages: 0, expected, density: None, last_page: Duration::ZERO }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PagingError {
    /// A page could not be fetched.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The account's `window.field` was found to be wrong: none of its answers can be cut.
    #[error("the upstream does not select on the timestamp that window.field names")]
    WindowField,
    /// An item lies outside of the interval that was asked for, so the run cannot be cut; it can be served as a whole. The
    /// cause may be the item, the request, or a wrong `window.field`.
    #[error("an item does not lie where it was asked for")]
    MisplacedItem(MisplacedItem),
    /// An item has no timestamp, so the run cannot be cut; it can be served as a whole.
    #[error("an item has no timestamp to place it by")]
    Unplaced,
    /// No item has a timestamp, so the run cannot be cut; it can be served as a whole.
    #[error("no item has a timestamp to place it by")]
    NoneIsPlaced,
    /// The rows of this part of the run, which cannot be divided further, moved during every scan. Empty if the part is
    /// unknown.
    #[error("the upstream's rows moved while they were paged")]
    Torn(Interval),
    /// The run turned out much larger than planned, and its rows come in no order in which it could be cut: a shorter run
    /// is needed.
    #[error("the run is larger than planned, and cannot be cut")]
    Oversized,
    /// A window that must be fetched as a whole is larger than this many bytes.
    #[error("what must be fetched as a whole is larger than {limit} bytes")]
    TooLarge {
        /// Limit, in bytes.
        limit: u64,
    },
}

impl PagingError {
    /// Whether the run may be served as a whole, though not cut.
    pub fn is_uncut(&self) -> bool {
        matches!(self, Self::WindowField | Self::MisplacedItem(_) | Self::Unplaced | Self::NoneIsPlaced)
    }
}

/// Fetches runs, with a limit on concurrent runs per account and caller.
#[derive(Clone, Debug)]
pub struct PagingLayer {
    window: config::WindowConfig,
    clock: Clock,
    bounds: RunBounds,
    limiters: RunLimiters,
}

impl PagingLayer {
    /// Each run holds one of the permits of `limiters` from its first call to its last.
    pub fn new(window: &config::WindowConfig, limiters: &RunLimiters, clock: &Clock) -> Self {
        let (window, clock, limiters) = (window.clone(), clock.clone(), limiters.clone());
        Self { window, clock, bounds: RunBounds::default(), limiters }
    }

    /// Replaces the bounds of runs.
    #[must_use]
    pub fn bounded(self, bounds: RunBounds) -> Self {
        Self { bounds, ..self }
    }
}

impl<S> Layer<S> for PagingLayer {
    type Service = PagingStage<S>;

    fn layer(&self, below: S) -> PagingStage<S> {
        PagingStage { settings: self.clone(), below }
    }
}

/// See [`PagingLayer`].
#[derive(Clone, Debug)]
pub struct PagingStage<S> {
    settings: PagingLayer,
    below: S,
}

impl<S, P> Service<Run<P>> for PagingStage<S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + Sync + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    type Response = FetchedRun<P::Packed>;
    type Error = PagingError;
    type Future = BoxFuture<'static, Result<FetchedRun<P::Packed>, PagingError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PagingError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, run: Run<P>) -> Self::Future {
        let stage = self.clone();
        Box::pin(async move {
            let permit = stage.permit(&run).await?;
            Pager::new(&stage, &run, permit).fetch().await
        })
    }
}

impl<S> PagingStage<S> {
    /// Waits for a permit while the run is wanted, in the queue of its most urgent waiter.
    async fn permit<P>(&self, run: &Run<P>) -> Result<Option<RunPermit>, PagingError> {
        let Some(limiter) = self.settings.limiters.of(&run.series.account) else { return Ok(None) };
        let waiters = &run.waiters;
        let length = run.length();
        let in_line = |priority| {
            let requester = Requester { priority, ..waiters.cause().clone() };
            Box::pin(async move { limiter.acquire(&requester, length).await })
        };
        let mut priority = waiters.priority();
        let mut permit = in_line(priority);
        loop {
            tokio::select! {
                permit = &mut permit => return Ok(Some(permit)),
                () = waiters.changed() => {}
            }
            if waiters.is_abandoned() {
                return Err(PagingError::Quota(QuotaError::Abandoned));
            }
            if waiters.priority() < priority {
                priority = waiters.priority();
                permit = in_line(priority);
            }
        }
    }
}

mod concurrency;
mod page_source;
mod proven_duplicates;
mod scan;
#[cfg(test)]
mod tests;
