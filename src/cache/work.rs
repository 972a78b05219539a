//! A flight with all that fetching it takes.

use std::sync::Arc;

use super::flight::Flight;
use super::seat::Seat;
use super::shelf::{SharedShelf, Shelf};
use crate::upstream::Series;

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
    pub(super) fn new<'a>(
        series: &Arc<Series>,
        of: &SharedShelf,
        shelf: &mut Shelf,
        flight: Arc<Flight>,
        seats: impl IntoIterator<Item = &'a Arc<Seat>>,
    ) -> Self {
        for seat in seats {
            seat.wait_for(&flight);
        }
        shelf.flights.push(flight.clone());
        let rich = flight.route.rich;
        let series =
            if series.rich == rich { series.clone() } else { Arc::new(Series { rich, ..Series::clone(series) }) };
        Self { series, shelf: of.clone(), flight }
    }
}
