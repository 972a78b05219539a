//! Somebody who waits: for spans that are being gathered, and for flights. It is gone when the request is.

use std::sync::{Arc, Mutex, PoisonError};

use super::flight::Flight;
use crate::upstream::{Asker, Waiting};
use crate::window::Span;

/// One request's seat: as long as it is there, somebody wants what it waits for.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) asker: Asker,
    /// Held for bookkeeping only, never across an await.
    waiting: Mutex<Vec<Waiting>>,
}

impl Seat {
    pub(super) fn new(asker: Asker) -> Arc<Self> {
        Arc::new(Self { asker, waiting: Mutex::default() })
    }

    /// From now on waits for this flight too, for `need` of it. `false` if nobody wanted it just now, and it has gone.
    pub(super) fn wait_for(self: &Arc<Self>, flight: &Flight, need: Span) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.iter().any(|waiting| waiting.is_for(&flight.demand)) {
            return true;
        }
        let Some(joined) = flight.demand.join(self.asker.clone(), need) else { return false };
        flight.remember(self, need);
        waiting.push(joined);
        true
    }

    /// Waits for these flights only.
    pub(super) fn wait_only_for(&self, flights: &[(Arc<Flight>, Span)]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waiting| flights.iter().any(|(flight, _)| waiting.is_for(&flight.demand)));
    }
}
