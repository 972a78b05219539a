//! A request that waits: for its batch, and for fetches in flight. It is dropped with the request.

use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::in_flight::{FetchedInterval, InFlightFetch};
use crate::cache::chunk::Chunk;
use crate::cache::error::CacheError;
use crate::request::{QueueTimeout, Requester, WaiterGuard};
use crate::sync::{Mutex, MutexGuard};
use crate::traces::Span;
use crate::window::Interval;

/// A finished fetch and its result.
pub(in crate::cache) type FinishedFetch = (Arc<InFlightFetch>, Result<FetchedInterval, CacheError>);

/// A request that waits. As long as it exists, the data that it waits for is wanted.
#[derive(Debug)]
pub(in crate::cache) struct Waiter {
    pub(in crate::cache) requester: Requester,
    /// The span of the request.
    pub(in crate::cache) span: Span,
    /// When the request came.
    pub(in crate::cache) asked_at: Instant,
    /// How long the request waits for the quota without progress.
    pub(in crate::cache) queue_timeout: Arc<QueueTimeout>,
    /// The fetches that the request waits for. A finished one stays until the request takes its result, which may be
    /// stored nowhere else. Locked for bookkeeping only, never across an await.
    fetches: Mutex<Vec<(Arc<InFlightFetch>, WaiterGuard)>>,
    /// Chunks that were found in Redis and not taken yet: memory may be too small to hold them until then.
    redis_hits: Mutex<Vec<TierHit>>,
}

/// A chunk from disk or Redis, and the part of it that serves the request.
#[derive(Clone, Debug)]
pub(in crate::cache) struct TierHit {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) chunk: Arc<Chunk>,
    pub(in crate::cache) agentic: bool,
    /// Whether the filter is still to be applied to the items.
    pub(in crate::cache) is_unfiltered: bool,
}

impl Waiter {
    pub(in crate::cache) fn new(requester: Requester, span: Span, queue_timeout: Arc<QueueTimeout>) -> Arc<Self> {
        let (fetches, redis_hits) = Default::default();
        Arc::new(Self { requester, span, asked_at: Instant::now(), queue_timeout, fetches, redis_hits })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<InFlightFetch>, WaiterGuard)>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this fetch too. `false` if its last waiter has just left, so that it is being cancelled.
    pub(in crate::cache) fn join(self: &Arc<Self>, fetch: &Arc<InFlightFetch>) -> bool {
        let mut fetches = self.lock();
        if fetches.iter().any(|(known, _)| Arc::ptr_eq(known, fetch)) {
            return true;
        }
        let Some(guard) = fetch.waiters.join(self.requester.clone(), Some(&self.queue_timeout)) else { return false };
        self.span.link(fetch.waiters.span());
        fetches.push((fetch.clone(), guard));
        true
    }

    /// Whether the request waits for this fetch.
    pub(in crate::cache) fn waits_for(&self, fetch: &Arc<InFlightFetch>) -> bool {
        self.lock().iter().any(|(known, _)| Arc::ptr_eq(known, fetch))
    }

    /// Whether the request may wait for this fetch: not if a remote fetch serves another waiter, and, once a purge has
    /// closed the fetch, only if the request waits for it already.
    pub(in crate::cache) fn may_join(&self, fetch: &Arc<InFlightFetch>) -> bool {
        fetch.serves_waiter(self) && (!fetch.is_closed() || self.waits_for(fetch))
    }

    /// Hands a chunk from Redis to the request.
    pub(in crate::cache) fn add_redis_hit(&self, hit: TierHit) {
        self.redis_hits.lock().unwrap_or_else(PoisonError::into_inner).push(hit);
    }

    /// Takes the chunks that were found in Redis since the last call.
    pub(in crate::cache) fn take_redis_hits(&self) -> Vec<TierHit> {
        std::mem::take(&mut *self.redis_hits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leaves all fetches for which `keep` returns false.
    pub(in crate::cache) fn retain_fetches(&self, keep: impl Fn(&Arc<InFlightFetch>) -> bool) {
        self.lock().retain(|(fetch, _)| keep(fetch));
    }

    /// Takes the fetches that have finished since the last call.
    pub(in crate::cache) fn take_finished(&self) -> Vec<FinishedFetch> {
        let is_finished = |(fetch, _): &mut (Arc<InFlightFetch>, WaiterGuard)| fetch.result().is_some();
        let finished: Vec<_> = self.lock().extract_if(.., is_finished).collect();
        finished.into_iter().filter_map(|(fetch, _)| fetch.result().map(|result| (fetch, result))).collect()
    }
}
