//! A fetch with its series.

use std::sync::Arc;

use crate::cache::series::{InFlightFetch, SeriesState, SharedSeriesState, Waiter};
use crate::request::Series;

/// A fetch and the series that it belongs to. Cheap to clone.
#[derive(Clone)]
pub(in crate::cache) struct FetchTask {
    /// The series as it is fetched, with or without `agenticActivities`.
    pub(in crate::cache) series: Arc<Series>,
    pub(in crate::cache) state: SharedSeriesState,
    pub(in crate::cache) fetch: Arc<InFlightFetch>,
}

impl FetchTask {
    /// Adds a new fetch and its waiters to the locked `state` of a series. A waiter that is added before the lock is
    /// released cannot be missed, which would abandon the fetch.
    pub(in crate::cache) fn new<'a>(
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        state: &mut SeriesState,
        fetch: Arc<InFlightFetch>,
        waiters: impl IntoIterator<Item = &'a Arc<Waiter>>,
    ) -> Self {
        for waiter in waiters {
            waiter.join(&fetch);
        }
        state.in_flight.push(fetch.clone());
        let agentic = fetch.spec.agentic;
        let series = if series.agentic == agentic {
            series.clone()
        } else {
            Arc::new(Series { agentic, ..Series::clone(series) })
        };
        Self { series, state: shared.clone(), fetch }
    }
}
