//! Somebody who waits: for spans that are being gathered, and for flights. It is gone when the request is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::CacheError;
use super::chunk::Chunk;
use super::flight::Flight;
use crate::upstream::{Asker, Patience, Waiting};
use crate::window::{Moment, Span};

/// What a flight that has ended has brought.
pub(super) type Landed = (Arc<Flight>, Result<Arc<[Arc<Chunk>]>, CacheError>);

/// One request's seat: as long as it is there, somebody wants what it waits for.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) asker: Asker,
    /// How long it waits for the quota without anything coming of what it waits for.
    pub(super) patience: Arc<Patience>,
    /// The flights that it waits for. They are kept until somebody looks, so that nothing that they bring is missed: what
    /// is not kept in memory is nowhere else. Held for bookkeeping only, never across an await.
    waiting: Mutex<Vec<(Arc<Flight>, Waiting)>>,
    /// How far it has come, if it streams.
    cursor: Mutex<Option<Cursor>>,
    /// What was found for it in the second tier, and not looked at yet: memory may be too small to keep it until then.
    found: Mutex<Vec<Found>>,
}

/// How far somebody who streams has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) at: Moment,
    /// It takes only what is as rich as this before it has landed.
    pub(super) rich: bool,
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
        let (waiting, cursor, found) = Default::default();
        Arc::new(Self { asker, patience, waiting, cursor, found })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<Flight>, Waiting)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on waits for this flight too, for `need` of it. `false` if nobody wanted it just now, and it has gone.
    pub(super) fn wait_for(self: &Arc<Self>, flight: &Arc<Flight>, need: Span) -> bool {
        let mut waiting = self.lock();
        if waiting.iter().any(|(known, _)| Arc::ptr_eq(known, flight)) {
            return true;
        }
        let Some(joined) = flight.demand.join_with(&self.patience, self.asker.clone(), need) else { return false };
        flight.remember(self, need);
        waiting.push((flight.clone(), joined));
        true
    }

    /// Whether it may wait for this flight: it is not somebody else's own, and one that was closed by a purge is only for
    /// those who do already.
    pub(super) fn may_wait_for(&self, flight: &Arc<Flight>) -> bool {
        flight.is_for(self) && (!flight.is_closed() || self.lock().iter().any(|(known, _)| Arc::ptr_eq(known, flight)))
    }

    /// From now on it takes what there is from `cursor` on, as it comes, and gives back what lies before.
    pub(super) fn stream_from(&self, cursor: Cursor) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor);
        self.lock().iter().for_each(|(flight, _)| flight.sight.look_again());
    }

    /// How far it has come, if it streams.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if it takes what this flight brings as it comes; else it waits until that has landed.
    pub(super) fn cursor_in(&self, flight: &Flight) -> Option<Moment> {
        self.cursor().filter(|cursor| cursor.rich == flight.rich).map(|cursor| cursor.at)
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
    pub(super) fn wait_only_for(&self, flights: &[(Arc<Flight>, Span)]) {
        self.lock().retain(|(known, _)| flights.iter().any(|(flight, _)| Arc::ptr_eq(known, flight)));
    }

    /// Those that have ended since the last look; it does not wait for them any more.
    pub(super) fn landed(&self) -> Vec<Landed> {
        let landed = |(flight, _): &mut (Arc<Flight>, Waiting)| flight.brought().is_some();
        let landed: Vec<_> = self.lock().extract_if(.., landed).collect();
        landed.into_iter().filter_map(|(flight, _)| flight.brought().map(|brought| (flight, brought))).collect()
    }
}
