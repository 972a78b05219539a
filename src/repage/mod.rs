//! The repage stage: walks a run in pages until it is whole, or fails. Nobody above it sees a page.

mod ahead;
mod handing;
mod item;
mod pager;
mod parting;
mod places;
mod read_ahead;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tower::{Layer, Service};

pub use item::Item;
pub use walk::{Broken, Order, Placed, Walk, Watch};

use self::pager::Pager;
use self::places::{Place, Places};

use crate::clock::Clock;
use crate::config;
use crate::quota::{Exhausted, QuotaError};
use crate::upstream::{Asker, Class, Demand, PAGE_LIMIT, Page, PageRequest, Series};
use crate::window::{Moment, Span};

/// A walk that holds more than this is cut: what is proven whole is handed on, and a new walk begins behind it.
const WALK_BYTES: usize = 512 << 20;
/// What a walk over settled time hands on is proven each time that it has seen so many rows more: 250 full pages. A proof
/// is a call, so that is 0.4 % more; and between two of them some 30 MB, deflated, wait to be kept.
const PROVEN_EACH: usize = 250 * PAGE_LIMIT as usize;

/// A piece of time to fetch, whole.
#[derive(Debug)]
pub struct Run {
    /// Which rows.
    pub series: Arc<Series>,
    /// Of which time; not empty.
    pub span: Span,
    /// Whether the answer may be cut by the items' timestamps.
    pub placed: Placed,
    /// Who wants it, and where its calls are counted.
    pub demand: Arc<Demand>,
    /// Takes what becomes of it, as it becomes known.
    pub deliver: mpsc::UnboundedSender<Delivery>,
}

/// What a run has to tell.
#[derive(Debug)]
pub enum Delivery {
    /// The upstream has answered with a first page: it is there, and takes the credential.
    Begun,
    /// It is going to take so many pages that nobody should wait for the last one before seeing the first.
    Long,
    /// A part of the run is whole. The parts of a run that succeeds tile it, but for what it has left to others.
    Stretch(Stretch),
    /// The walk has seen all of this part, as far as its order tells. Whether that is so is known when it is proven. There
    /// is no more of it before the permit is dropped.
    Seen(Stretch, OwnedSemaphorePermit),
    /// All that was seen is whole.
    Proven,
    /// It may not be: what was seen, and not proven since, is void. The walk begins again, or the run fails.
    Refuted,
    /// The run leaves `rest`, one of its ends, to other runs, because somebody waits for `wanted`, which may be empty.
    Parted {
        /// What it will not fetch.
        rest: Span,
        /// What of it somebody waits for.
        wanted: Span,
    },
    /// The quota holds the run up for so long, since no more urgent a class waits for it; it goes on by itself.
    Held(Exhausted, Class),
    /// It goes on.
    Resumed,
}

/// A part of a run, with all its items.
#[derive(Debug)]
pub struct Stretch {
    /// Of which time.
    pub span: Span,
    /// All its items, in the order of the contract.
    pub items: Vec<Item>,
    /// When the walk that brought it began.
    pub fetched_at: Moment,
}

/// Why a run failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RepageError {
    /// A page could not be fetched.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// No place for another run came free within the queue's deadline.
    #[error("too many runs are under way")]
    NoPlace(Exhausted),
    /// The items do not lie where they were asked for.
    #[error("the upstream does not select on the timestamp that window.field names")]
    WindowField,
    /// Some item has no timestamp, so the run cannot be cut; it can be served as a whole.
    #[error("an item has no timestamp to place it by")]
    Unplaced,
    /// The rows moved under the paging, again and again.
    #[error("the upstream's rows moved while they were paged")]
    Torn,
}

/// Re-pages, with places for so many runs of each caller at a time in each account.
#[derive(Clone, Debug)]
pub struct RepageLayer {
    window: config::Window,
    clock: Clock,
    queue_timeout: Duration,
    walk_bytes: usize,
    proven_each: usize,
    places: Arc<HashMap<Arc<str>, Arc<Places>>>,
}

impl RepageLayer {
    /// A run holds one of `max_concurrency` places from its first call to its last; see `places.rs`.
    pub fn new(
        accounts: &[config::Account],
        window: &config::Window,
        quota: &config::Quota,
        max_concurrency: usize,
        clock: &Clock,
    ) -> Self {
        let places = |account: &config::Account| (account.account_id.clone(), Places::new(max_concurrency));
        Self {
            window: window.clone(),
            clock: clock.clone(),
            queue_timeout: quota.queue_timeout,
            walk_bytes: WALK_BYTES,
            proven_each: PROVEN_EACH,
            places: Arc::new(accounts.iter().map(places).collect()),
        }
    }
}

#[cfg(test)]
impl RepageLayer {
    /// Proves what is handed on each time that a walk has seen so many rows more.
    pub(crate) fn proving_each(self, rows: usize) -> Self {
        Self { proven_each: rows, ..self }
    }
}

impl<S> Layer<S> for RepageLayer {
    type Service = RepageStage<S>;

    fn layer(&self, below: S) -> RepageStage<S> {
        RepageStage { settings: self.clone(), below }
    }
}

/// See [`RepageLayer`].
#[derive(Clone, Debug)]
pub struct RepageStage<S> {
    settings: RepageLayer,
    below: S,
}

impl<S> Service<Run> for RepageStage<S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = ();
    type Error = RepageError;
    type Future = BoxFuture<'static, Result<(), RepageError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), RepageError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, run: Run) -> Self::Future {
        let stage = self.clone();
        Box::pin(async move {
            let place = stage.place(&run).await?;
            let mut pager = Pager::new(&stage, &run, place.as_ref());
            match run.placed {
                Placed::Checked => pager.fetch(run.span).await,
                // What is served only as a whole is fetched as a whole.
                Placed::Unchecked => pager.fetch_indivisible(run.span).await,
            }
        })
    }
}

impl<S> RepageStage<S> {
    /// Waits for a place, as long as somebody wants the run: in the line of the most urgent who waits for it.
    async fn place(&self, run: &Run) -> Result<Option<Place>, RepageError> {
        let Some(places) = self.settings.places.get(&run.series.account) else { return Ok(None) };
        let (demand, patience) = (&run.demand, self.settings.queue_timeout);
        let in_line = |class| {
            let asker = Asker { class, ..demand.cause().clone() };
            Box::pin(async move { places.take(&asker).await })
        };
        let mut class = demand.class();
        let mut place = in_line(class);
        let mut held = false;
        let mut deadline = Instant::now() + patience;
        loop {
            tokio::select! {
                place = &mut place => {
                    if held {
                        let _ = run.deliver.send(Delivery::Resumed);
                    }
                    return Ok(Some(place));
                }
                () = demand.changed() => {}
                () = tokio::time::sleep_until(deadline) => {
                    let exhausted = Exhausted { retry_after: patience };
                    if !demand.has_begun() {
                        return Err(RepageError::NoPlace(exhausted));
                    }
                    held = true;
                    deadline += patience;
                    let _ = run.deliver.send(Delivery::Held(exhausted, demand.class()));
                }
            }
            if demand.is_abandoned() {
                return Err(RepageError::Quota(QuotaError::Unwanted));
            }
            if demand.class() < class {
                class = demand.class();
                place = in_line(class);
            }
        }
    }
}

#[cfg(test)]
mod tests;
