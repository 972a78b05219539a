//! A run, its progress and its result.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::concurrency::RunLength;
use super::item::Item;
use super::scan::{PlacementCheck, RowOrder};
use crate::quota::CallerLimitExceeded;
use crate::request::{Priority, RunWaiters, Series};
use crate::upstream::PAGE_LIMIT;
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
    /// Whether the items must lie within the interval, so that the answer can be filtered by their timestamps.
    pub placement: PlacementCheck,
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
    pub(super) fn length(&self) -> RunLength {
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Paused: the own limits of upstream calls of all callers that wait are spent. The run resumes by itself, and when
    /// another request joins it.
    CallersSpent {
        /// When the run resumes, as far as is known.
        until: Instant,
        /// The limit that is free again first.
        exceeded: CallerLimitExceeded,
        /// The callers.
        callers: Arc<[Arc<str>]>,
    },
}

impl RunStatus {
    /// The status of a run that has not begun.
    pub fn new(interval: Interval, expected: Option<f64>) -> Self {
        Self { interval, phase: RunPhase::Fetching, pages: 0, expected, density: None, last_page: Duration::ZERO }
    }
}
