//! A window that cannot be cut, or of an account whose windows cannot: it is kept and fetched as exactly that window.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::segments::Segment;
use super::session::{Joined, MAX_SURVEYS_WITHOUT_PROGRESS, Mode, Next, Session};
use crate::cache::chunk::{Chunk, Slice};
use crate::cache::fetch::{ExactWindow, Fetcher};
use crate::cache::series::InFlightFetch;
use crate::cache::{CacheError, Outcome, WindowQuery};
use crate::paging::{PagingError, PlacementCheck};
use crate::request::QueueTimeout;

/// Reads a window as a whole, not cut by time.
pub(in crate::cache) fn read_exactly(
    fetcher: Arc<Fetcher>,
    query: WindowQuery,
) -> BoxFuture<'static, Result<Vec<Slice>, CacheError>> {
    Box::pin(async move {
        let queue_timeout = Arc::new(QueueTimeout::new(fetcher.settings.queue_timeout));
        let mut session = Session::new(fetcher, query, queue_timeout, None);
        let (segments, _) = session.gather_exactly().await?;
        Ok(segments.into_iter().map(|segment| segment.slice).collect())
    })
}

impl Session {
    /// Waits while the field of the account is being checked.
    ///
    /// # Errors
    /// [`PagingError::WindowField`] if the window must not be cut by time.
    pub(in crate::cache) async fn check_field(&self) -> Result<(), CacheError> {
        self.fetcher.window_fields.check_finished(&self.series.account).await;
        let is_wrong = self.fetcher.window_fields.is_wrong(&self.series);
        if is_wrong { Err(CacheError::Paging(PagingError::WindowField)) } else { Ok(()) }
    }

    /// Exactly what the upstream says to this window, cut by nobody.
    pub(in crate::cache) async fn gather_exactly(&mut self) -> Result<(Vec<Segment>, Outcome), CacheError> {
        self.flights.clear();
        self.seat.retain_fetches(|_| false);
        self.mode = Mode::Whole;
        for _ in 0..MAX_SURVEYS_WITHOUT_PROGRESS {
            let found = self.find_exactly()?;
            self.arrival = None;
            let (chunk, outcome) = match found {
                Ok(chunk) => (chunk, Outcome::Hit),
                Err(flight) => {
                    while flight.result().is_none() {
                        let (flight, known, need) = (flight.clone(), flight.interval(), self.interval);
                        self.advance(Next::Flights(vec![Joined { flight, known, need }])).await?;
                    }
                    let chunks = flight.result().ok_or(CacheError::FetchLost)??.chunks;
                    self.flights.push(flight);
                    // One that was left, as another replica makes the calls now, brings nothing.
                    let Some(chunk) = chunks.first() else {
                        self.seat.queue_timeout.attempt_again();
                        continue;
                    };
                    (chunk.clone(), Outcome::Bypass)
                }
            };
            let (fetched_at, copy) = (chunk.fetched_at(), outcome == Outcome::Hit);
            let slice = Slice { rows: 0..chunk.len(), chunk };
            return Ok((vec![Segment { interval: self.interval, slice, fetched_at, copy, derived: false }], outcome));
        }
        Err(CacheError::FetchLost)
    }

    /// The window as it is kept, or the flight that is going to bring it.
    fn find_exactly(&self) -> Result<Result<Arc<Chunk>, Arc<InFlightFetch>>, CacheError> {
        let key = (self.interval, self.series.agentic);
        let mut shelf = self.shelf.lock();
        if let Some(chunk) = shelf.exact.get(&key).and_then(|copy| copy.use_chunk(&self.fetcher.memory)) {
            return Ok(Ok(chunk));
        }
        if shelf.is_torn(self.interval) {
            return Err(CacheError::Paging(PagingError::Torn(self.interval)));
        }
        let flight = shelf
            .in_flight
            .iter()
            .filter(|flight| {
                (flight.interval(), flight.spec.agentic, flight.spec.placed)
                    == (key.0, key.1, PlacementCheck::Unchecked)
            })
            .find(|flight| self.seat.may_join(flight) && self.seat.join(flight))
            .cloned();
        Ok(Err(flight.unwrap_or_else(|| {
            self.fetcher.fetch_exactly(ExactWindow {
                series: &self.series,
                shared: &self.shelf,
                state: &mut shelf,
                interval: self.interval,
                fresh_since: self.fresh_since,
                waiter: &self.seat,
            })
        })))
    }
}
