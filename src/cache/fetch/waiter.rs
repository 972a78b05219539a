//! Somebody who waits: for spans that are being gathered, and for flights. It is gone when the request is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::in_flight::{FetchedInterval, InFlightFetch};
use crate::cache::CacheError;
use crate::cache::answer::Joined;
use crate::cache::chunk::Chunk;
use crate::request::{QueueTimeout, Requester, WaiterGuard};
use crate::window::Interval;

/// A flight that has landed, and what it has brought.
pub(in crate::cache) type FinishedFetch = (Arc<InFlightFetch>, Result<FetchedInterval, CacheError>);

/// One request's seat: as long as it is there, somebody wants what it waits for.
#[derive(Debug)]
pub(in crate::cache) struct Waiter {
    pub(in crate::cache) asker: Requester,
    /// How long it waits for the quota without anything coming of what it waits for.
    pub(in crate::cache) patience: Arc<QueueTimeout>,
    /// The flights that it waits for. They are kept until somebody looks, so that nothing that they bring is missed: what
    /// is not kept in memory is nowhere else. Held for bookkeeping only, never across an await.
    waiting: Mutex<Vec<(Arc<InFlightFetch>, WaiterGuard)>>,
    /// What was found for it in the second tier, and not looked at yet: memory may be too small to keep it until then.
    found: Mutex<Vec<RedisHit>>,
}

/// A chunk of the second tier, as far as it serves somebody.
#[derive(Clone, Debug)]
pub(in crate::cache) struct RedisHit {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) chunk: Arc<Chunk>,
    pub(in crate::cache) agentic: bool,
    /// Whether the filter is still to be applied to it.
    pub(in crate::cache) is_unfiltered: bool,
}

impl Waiter {
    pub(in crate::cache) fn new(asker: Requester, patience: Arc<QueueTimeout>) -> Arc<Self> {
        let (waiting, found) = Default::default();
        Arc::new(Self { asker, patience, waiting, found })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<InFlightFetch>, WaiterGuard)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on waits for this flight too. `false` if nobody wanted it just now, and it has gone.
    pub(in crate::cache) fn join(self: &Arc<Self>, flight: &Arc<InFlightFetch>) -> bool {
        let mut waiting = self.lock();
        if waiting.iter().any(|(known, _)| Arc::ptr_eq(known, flight)) {
            return true;
        }
        let Some(joined) = flight.waiters.join(self.asker.clone(), Some(&self.patience)) else { return false };
        waiting.push((flight.clone(), joined));
        true
    }

    /// Whether it waits for this flight.
    pub(in crate::cache) fn waits_for(&self, flight: &Arc<InFlightFetch>) -> bool {
        self.lock().iter().any(|(known, _)| Arc::ptr_eq(known, flight))
    }

    /// Whether it may wait for this flight: it is not somebody else's own, and one that was closed by a purge is only for
    /// those who do already.
    pub(in crate::cache) fn may_join(&self, flight: &Arc<InFlightFetch>) -> bool {
        flight.serves_waiter(self) && (!flight.is_closed() || self.waits_for(flight))
    }

    /// This was found for it.
    pub(in crate::cache) fn find(&self, found: RedisHit) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }

    /// What was found for it since the last look.
    pub(in crate::cache) fn found(&self) -> Vec<RedisHit> {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for these flights only.
    pub(in crate::cache) fn wait_only_for(&self, flights: &[Joined]) {
        self.lock().retain(|(known, _)| flights.iter().any(|joined| Arc::ptr_eq(known, &joined.flight)));
    }

    /// Those that have landed since the last look; it does not wait for them any more.
    pub(in crate::cache) fn landed(&self) -> Vec<FinishedFetch> {
        let landed = |(flight, _): &mut (Arc<InFlightFetch>, WaiterGuard)| flight.result().is_some();
        let landed: Vec<_> = self.lock().extract_if(.., landed).collect();
        landed.into_iter().filter_map(|(flight, _)| flight.result().map(|delivered| (flight, delivered))).collect()
    }
}
