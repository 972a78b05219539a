//! A flight with all that fetching it takes.

use std::sync::Arc;

use super::in_flight::InFlightFetch;
use super::waiter::Waiter;
use crate::cache::series::{SeriesState, SharedSeriesState};
use crate::request::Series;

/// What one flight needs to know of its series.
#[derive(Clone)]
pub(in crate::cache) struct FetchTask {
    pub(in crate::cache) series: Arc<Series>,
    pub(in crate::cache) shelf: SharedSeriesState,
    pub(in crate::cache) flight: Arc<InFlightFetch>,
}

impl FetchTask {
    /// Puts a new flight on the shelf, with those who wait for it: who is known to it before the shelf's lock is let go
    /// cannot be taken for gone.
    pub(in crate::cache) fn new<'a>(
        series: &Arc<Series>,
        of: &SharedSeriesState,
        shelf: &mut SeriesState,
        flight: Arc<InFlightFetch>,
        seats: impl IntoIterator<Item = &'a Arc<Waiter>>,
    ) -> Self {
        for seat in seats {
            seat.join(&flight);
        }
        shelf.in_flight.push(flight.clone());
        let agentic = flight.spec.agentic;
        let series = if series.agentic == agentic {
            series.clone()
        } else {
            Arc::new(Series { agentic, ..Series::clone(series) })
        };
        Self { series, shelf: of.clone(), flight }
    }
}
