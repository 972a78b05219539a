//! Somebody who waits: for spans that are being gathered, and for flights. It is gone when the request is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::CacheError;
use super::chunk::Chunk;
use super::flight::{Delivered, Flight};
use super::session::Joined;
use crate::upstream::{Asker, Patience, Waiting};
use crate::window::Span;

/// A flight that has landed, and what it has brought.
pub(super) type Landed = (Arc<Flight>, Result<Delivered, CacheError>);

/// One request's seat: as long as it is there, somebody wants what it waits for.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) asker: Asker,
    /// How long it waits for the quota without anything coming of what it waits for.
    pub(super) patience: Arc<Patience>,
    /// The flights that it waits for. They are kept until somebody looks, so that nothing that they bring is missed: what
    /// is not kept in memory is nowhere else. Held for bookkeeping only, never across an await.
    waiting: Mutex<Vec<(Arc<Flight>, Waiting)>>,
    /// What was found for it in the second tier, and not looked at yet: memory may be too small to keep it until then.
    found: Mutex<Vec<Found>>,
}

/// A chunk of the second tier, as far as it serves somebody.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) span: Span,
    pub(super) chunk: Arc<Chunk>,
    pub(super) rich: bool,
    /// Whether the filter is still to be applied to it.
    pub(super) is_unfiltered: bool,
}

impl Seat {
    pub(super) fn new(asker: Asker, patience: Arc<Patience>) -> Arc<Self> {
        let (waiting, found) = Default::default();
        Arc::new(Self { asker, patience, waiting, found })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<Flight>, Waiting)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on waits for this flight too. `false` if nobody wanted it just now, and it has gone.
    pub(super) fn wait_for(self: &Arc<Self>, flight: &Arc<Flight>) -> bool {
        let mut waiting = self.lock();
        if waiting.iter().any(|(known, _)| Arc::ptr_eq(known, flight)) {
            return true;
        }
        let Some(joined) = flight.demand.join(self.asker.clone(), Some(&self.patience)) else { return false };
        waiting.push((flight.clone(), joined));
        true
    }

    /// Whether it waits for this flight.
    pub(super) fn waits_for(&self, flight: &Arc<Flight>) -> bool {
        self.lock().iter().any(|(known, _)| Arc::ptr_eq(known, flight))
    }

    /// Whether it may wait for this flight: it is not somebody else's own, and one that was closed by a purge is only for
    /// those who do already.
    pub(super) fn may_wait_for(&self, flight: &Arc<Flight>) -> bool {
        flight.is_for(self) && (!flight.is_closed() || self.waits_for(flight))
    }

    /// This was found for it.
    pub(super) fn find(&self, found: Found) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }

    /// What was found for it since the last look.
    pub(super) fn found(&self) -> Vec<Found> {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for these flights only.
    pub(super) fn wait_only_for(&self, flights: &[Joined]) {
        self.lock().retain(|(known, _)| flights.iter().any(|joined| Arc::ptr_eq(known, &joined.flight)));
    }

    /// Those that have landed since the last look; it does not wait for them any more.
    pub(super) fn landed(&self) -> Vec<Landed> {
        let landed = |(flight, _): &mut (Arc<Flight>, Waiting)| flight.delivered().is_some();
        let landed: Vec<_> = self.lock().extract_if(.., landed).collect();
        landed.into_iter().filter_map(|(flight, _)| flight.delivered().map(|delivered| (flight, delivered))).collect()
    }
}
