//! The paging stage: fetches a bounded run, page by page, until it is whole, or fails. Nobody above it sees a page.
//!
//! A run has one outcome, [`FetchedRun`]: whole and proven by counting, or an error. What it has seen before is private to
//! it. What others want to know on the way stands in its [`RunStatus`].
//!
//! | file | what |
//! | --- | --- |
//! | `limiter` | how many runs may be under way, and whose |
//! | `pager` | one run: what is scanned again, and halved, where rows move |
//! | `walk` | one scan over the pages of a query, and its proof (pure) |
//! | `sizing` | where a run of unknown density ends, and when a run has become too large (pure) |
//! | `checkpoint` | where a scan is cut and proven before its end |
//! | `multiples` | what stands twice in the upstream, and the proof of it |
//! | `packing` | items that a scan has passed are packed at once |
//! | `page` | one page, when the quota grants it |

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
pub use self::sizing::{FIRST_RUN_ITEMS, RunBounds};

use self::concurrency::{RunLength, RunPermit};
use self::pager::Pager;

use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaError;
use crate::request::{Priority, Requester, RunWaiters, Series};
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Density, Interval, Timestamp};

/// A run that is planned to bring no more items is short; so is one of unknown density that is of no more time.
const SHORT_RUN_ITEMS: f64 = 4.0 * PAGE_LIMIT as f64;
const SHORT_SPAN: Duration = Duration::from_hours(24);

/// A bounded piece of time to fetch, whole.
#[derive(Debug)]
pub struct Run<P> {
    /// Which rows.
    pub series: Arc<Series>,
    /// Of which time; not empty.
    pub interval: Interval,
    /// Whether the answer may be cut by the items' timestamps.
    pub placed: PlacementCheck,
    /// How many items it was planned to bring. `None` if nothing is known of its density: then its first pages decide
    /// where it ends.
    pub planned: Option<f64>,
    /// Who wants it, and where its calls are counted.
    pub demand: Arc<RunWaiters>,
    /// Tells how far it is.
    pub status: watch::Sender<RunStatus>,
    /// Packs what it brings.
    pub packer: P,
}

impl<P> Run<P> {
    fn length(&self) -> RunLength {
        let is_short = self.planned.map_or(self.interval.length() <= SHORT_SPAN, |items| items <= SHORT_RUN_ITEMS);
        if is_short { RunLength::Short } else { RunLength::Long }
    }
}

/// Packs items for whoever asked for the run, while more of them are fetched. What comes of it is private to the run
/// until the run is proven.
pub trait ItemPacker: Clone + Send + Sync + 'static {
    /// Items, packed.
    type Packed: Send + Sync + 'static;

    /// Packs a part of a run. It may take long enough to hold up others of its thread.
    fn pack(&self, part: RunPart) -> Vec<Self::Packed>;

    /// How many bytes of memory a packed piece takes.
    fn weight(packed: &Self::Packed) -> usize;
}

/// A part of a run, with all its items.
#[derive(Clone, Debug)]
pub struct RunPart {
    /// Of which time.
    pub interval: Interval,
    /// All its items, in the order of the contract.
    pub items: Vec<Item>,
    /// When the scan that brought it began.
    pub fetched_at: Timestamp,
}

/// What a run has brought: all of `interval`.
#[derive(Debug)]
pub struct FetchedRun<T> {
    /// Of which time: all that was asked for, or, if that turned out too large, one end of it.
    pub interval: Interval,
    /// All its items, packed, in no promised order.
    pub packed: Vec<T>,
    /// In which order the upstream brings its rows, as far as it was seen.
    pub order: RowOrder,
    /// Whether its rows moved, so that it was fetched in pieces of a page each: a shorter run would have cost less.
    pub halved: bool,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct RunStatus {
    /// What it is going to bring. It becomes shorter if the first pages of a run of unknown density show that it is too
    /// large.
    pub interval: Interval,
    /// Whether the quota holds it up.
    pub phase: RunPhase,
    /// How many pages have come.
    pub pages: u32,
    /// How many items are expected of `interval`; `None` before anything is known.
    pub expected: Option<f64>,
    /// What has been seen of the density of its rows, if they come in order.
    pub density: Option<Arc<Density>>,
    /// How long the last page took, with its wait for the quota.
    pub last_page: Duration,
}

/// Whether the quota holds a run up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// It waits for its permit, its turn or its page.
    Fetching,
    /// No call is granted before `until`, since nobody more urgent than `class` waits for it; it goes on by itself.
    Paused {
        /// When it goes on, as far as is known.
        until: Instant,
        /// The most urgent who waited for it.
        class: Priority,
    },
}

impl RunStatus {
    /// That of a run that has not begun.
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
    /// The account was found to have a wrong `window.field`: nothing of it can be cut.
    #[error("the upstream does not select on the timestamp that window.field names")]
    WindowField,
    /// An item does not lie where it was asked for, so the run cannot be cut; it can be served as a whole. This may be
    /// the item's fault, the request's, or that of `window.field`.
    #[error("an item does not lie where it was asked for")]
    MisplacedItem(MisplacedItem),
    /// Some item has no timestamp, so the run cannot be cut; it can be served as a whole.
    #[error("an item has no timestamp to place it by")]
    Unplaced,
    /// The same, and no item has one.
    #[error("no item has a timestamp to place it by")]
    NoneIsPlaced,
    /// The rows of this piece of the run, which cannot be divided, moved under the paging, again and again. The piece is
    /// empty if it is not known.
    #[error("the upstream's rows moved while they were paged")]
    Torn(Interval),
    /// The run turned out much larger than planned, and its rows come in no order by which it could be cut: a shorter one
    /// is to be asked for.
    #[error("the run is larger than planned, and cannot be cut")]
    Oversized,
    /// What must be fetched as a whole is larger than this many bytes.
    #[error("what must be fetched as a whole is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
}

impl PagingError {
    /// Whether the run may be served as a whole, though not cut.
    pub fn is_uncut(&self) -> bool {
        matches!(self, Self::WindowField | Self::MisplacedItem(_) | Self::Unplaced | Self::NoneIsPlaced)
    }
}

/// Fetches runs, so many of each caller at a time in each account.
#[derive(Clone, Debug)]
pub struct PagingLayer {
    window: config::WindowConfig,
    clock: Clock,
    bounds: RunBounds,
    limiters: RunLimiters,
}

impl PagingLayer {
    /// A run holds one of the permits of `limiters` from its first call to its last.
    pub fn new(window: &config::WindowConfig, limiters: &RunLimiters, clock: &Clock) -> Self {
        let (window, clock, limiters) = (window.clone(), clock.clone(), limiters.clone());
        Self { window, clock, bounds: RunBounds::default(), limiters }
    }

    /// The same with other bounds.
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
    /// Waits for a permit, as long as somebody wants the run: in the line of the most urgent who waits for it.
    async fn permit<P>(&self, run: &Run<P>) -> Result<Option<RunPermit>, PagingError> {
        let Some(limiter) = self.settings.limiters.of(&run.series.account) else { return Ok(None) };
        let demand = &run.demand;
        let length = run.length();
        let in_line = |class| {
            let asker = Requester { class, ..demand.cause().clone() };
            Box::pin(async move { limiter.acquire(&asker, length).await })
        };
        let mut class = demand.class();
        let mut permit = in_line(class);
        loop {
            tokio::select! {
                permit = &mut permit => return Ok(Some(permit)),
                () = demand.changed() => {}
            }
            if demand.is_abandoned() {
                return Err(PagingError::Quota(QuotaError::Abandoned));
            }
            if demand.class() < class {
                class = demand.class();
                permit = in_line(class);
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
