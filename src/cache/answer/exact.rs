//! A window that cannot be cut, or of an account whose windows cannot: it is kept and fetched as exactly that window.

use std::sync::Arc;

use super::segments::Segment;
use super::session::{Joined, MAX_SURVEYS_WITHOUT_PROGRESS, Mode, Next, Session};
use crate::cache::chunk::{Chunk, Slice};
use crate::cache::fetch::InFlightFetch;
use crate::cache::{CacheError, Outcome};
use crate::paging::{PagingError, PlacementCheck};

impl Session {
    /// Exactly what the upstream says to this window, cut by nobody.
    pub(in crate::cache) async fn gather_exactly(&mut self) -> Result<(Vec<Segment>, Outcome), CacheError> {
        self.flights.clear();
        self.seat.wait_only_for(&[]);
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
                        self.seat.patience.attempt_again();
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
            self.fetcher.fetch_exactly(
                &self.series,
                &self.shelf,
                &mut shelf,
                self.interval,
                self.fresh_since,
                &self.seat,
            )
        })))
    }
}
