//! Interface through which `fetch` and `cluster` have a window assembled by `answer`, which lies above both.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cache::chunk::Slice;
use crate::cache::error::CacheError;
use crate::cache::outcome::Outcome;
use crate::cache::series::BatchGuard;
use crate::cache::types::WindowQuery;
use crate::paging::PlacementCheck;
use crate::request::QueueTimeout;
use crate::window::{Interval, Timestamp};

/// Function that assembles a window for a remote fetch or a check of `window.field`, by the means of a fetcher `F`.
pub(in crate::cache) type AssembleWindow<F> =
    fn(Arc<F>, AssemblyRequest) -> BoxFuture<'static, Result<AssembledWindow, CacheError>>;

/// A window to be assembled.
pub(in crate::cache) struct AssemblyRequest {
    pub(in crate::cache) query: WindowQuery,
    pub(in crate::cache) queue_timeout: Arc<QueueTimeout>,
    /// `Unchecked` has exactly the window fetched. `Checked` has it assembled from chunks; of a window longer
    /// than a day, possibly only the beginning.
    pub(in crate::cache) placement: PlacementCheck,
    /// Dropped when the missing time of the window has been requested, or nothing is missing.
    pub(in crate::cache) batch_guard: Option<Arc<BatchGuard>>,
}

/// An assembled window.
pub(in crate::cache) struct AssembledWindow {
    /// Ascending and adjacent, from the beginning of the window on.
    pub(in crate::cache) segments: Vec<Segment>,
    pub(in crate::cache) outcome: Outcome,
    /// Kept until the segments have been delivered: dropped, the request waits for no fetch any more.
    pub(in crate::cache) calls: Box<dyn UnreportedCalls>,
}

/// The upstream calls of an assembled window.
pub(in crate::cache) trait UnreportedCalls: Send + Sync {
    /// The calls that no other answer has reported; from now on they count as reported.
    fn charge(&self) -> u32;
}

/// A part of a window, with the rows of the chunk that serve it.
pub(in crate::cache) struct Segment {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) slice: Slice,
    /// The time of the fetch.
    pub(in crate::cache) fetched_at: Timestamp,
    /// Whether it was cached before the request.
    pub(in crate::cache) is_cached: bool,
    /// Whether the chunk was derived from another one for this answer.
    pub(in crate::cache) is_derived: bool,
}
