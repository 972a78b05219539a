//! A flight with all that flying it takes.

use std::sync::Arc;

use tokio::sync::watch;

use super::chunk::Chunk;
use super::flight::{Flight, Progress};
use super::seat::Seat;
use super::shelf::{SharedShelf, Shelf};
use crate::upstream::Series;
use crate::window::Span;

/// What one flight needs to know of its series.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) series: Arc<Series>,
    pub(super) shelf: SharedShelf,
    pub(super) flight: Arc<Flight>,
}

impl Work {
    /// Puts a new flight on the shelf, with those who wait for it: who is known to it before the shelf's lock is let go
    /// cannot be taken for gone.
    pub(super) fn new(
        series: &Arc<Series>,
        of: &SharedShelf,
        shelf: &mut Shelf,
        flight: Arc<Flight>,
        seats: &[(Arc<Seat>, Span)],
    ) -> Self {
        for (seat, need) in seats {
            seat.wait_for(&flight, *need);
        }
        shelf.flights.push(flight.clone());
        let rich = flight.rich;
        let series =
            if series.rich == rich { series.clone() } else { Arc::new(Series { rich, ..Series::clone(series) }) };
        Self { series, shelf: of.clone(), flight }
    }

    /// Lands the flight with the chunks that it has brought so far. Its run goes on with `rest`, on another flight.
    pub(super) fn hand_over(
        self,
        tell: &watch::Sender<Progress>,
        brought: Vec<Arc<Chunk>>,
        rest: Span,
    ) -> (Self, watch::Sender<Progress>) {
        let mut shelf = self.shelf.lock();
        let (next, tell_next) = self.flight.go_on_with(rest);
        shelf.flights.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
        shelf.flights.push(next.clone());
        let seats = self.flight.seats();
        // They have it in hand, however slowly they take it. Who wants all of it at once is not waited for.
        if rest.start > self.flight.span().start && seats.iter().all(|(seat, _)| seat.cursor_in(&next).is_some()) {
            next.sight.go_on_behind(&self.flight.sight, &brought, &seats);
        }
        for (seat, need) in seats {
            let need = need.intersection(rest);
            if !need.is_empty() {
                seat.wait_for(&next, need);
            }
        }
        let _ = tell.send(Progress::Landed(Ok(Arc::from(brought))));
        drop(shelf);
        (Self { flight: next, ..self }, tell_next)
    }
}
