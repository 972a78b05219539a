//! The batch of missing intervals of a series: what requests register within one batch window is fetched in as few runs
//! as possible.

use std::fmt;
use std::sync::Weak;

use tokio::sync::watch;

use super::waiter::Waiter;
use crate::window::{FreshnessDemand, IntervalSet, Timestamp};

/// Missing intervals that are collected for one batch window before their fetches start.
#[derive(Debug)]
pub(in crate::cache) struct PendingBatch {
    pub(in crate::cache) requests: Vec<PendingRequest>,
    /// Closed when the fetches have started.
    pub(in crate::cache) started: watch::Receiver<()>,
}

/// The missing intervals of one request.
#[derive(Debug)]
pub(in crate::cache) struct PendingRequest {
    pub(in crate::cache) intervals: IntervalSet,
    pub(in crate::cache) agentic: bool,
    /// The request, unless it was cancelled.
    pub(in crate::cache) waiter: Weak<Waiter>,
    /// Entries fetched since then are fresh enough for the request.
    pub(in crate::cache) fresh_since: Timestamp,
    /// The demand of the request on the age of entries that were fetched before.
    pub(in crate::cache) freshness: FreshnessDemand,
    /// Whether the intervals were looked up in Redis.
    pub(in crate::cache) redis_checked: bool,
    /// The next need of the request, if no fetch in flight brings it.
    pub(in crate::cache) next_need: Option<NextNeed>,
    /// Whether further runs may start for the request beside the run that it needs next.
    pub(in crate::cache) more_runs: bool,
}

/// The next need of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct NextNeed {
    /// The first timestamp that is missing.
    pub(in crate::cache) start: Timestamp,
    /// Whether it is the beginning of an answer, to be sent as soon as possible.
    pub(in crate::cache) early: bool,
}

/// Guard of a batch on another replica whose requests are being registered here; calls a function when it is dropped.
pub(in crate::cache) struct BatchGuard(Option<Box<dyn FnOnce() + Send + Sync>>);

impl BatchGuard {
    /// A guard that calls `on_drop` when all requests of the batch are registered.
    pub(in crate::cache) fn new(on_drop: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(on_drop)))
    }
}

impl Drop for BatchGuard {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.take() {
            on_drop();
        }
    }
}

impl fmt::Debug for BatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchGuard").finish_non_exhaustive()
    }
}
