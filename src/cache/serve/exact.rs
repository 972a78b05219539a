//! A window that cannot be cut, or of an account whose windows cannot: it is kept and fetched as exactly that window.

use std::sync::Arc;

use super::{ROUNDS, Request};
use crate::cache::chunk::{Chunk, Slice};
use crate::cache::flight::Flight;
use crate::cache::parts::Part;
use crate::cache::{CacheError, Outcome};
use crate::repage::Placed;

impl Request {
    /// Exactly what the upstream says to this window, cut by nobody.
    pub(in crate::cache) async fn gather_exactly(&mut self) -> Result<(Vec<Part>, Outcome), CacheError> {
        self.flights.clear();
        self.streams = false;
        for _ in 0..ROUNDS {
            let found = self.find_exactly();
            self.arrival = None;
            let (chunk, outcome) = match found {
                Ok(chunk) => (chunk, Outcome::Hit),
                Err(flight) => {
                    self.await_flights(&[(flight.clone(), self.span)]).await?;
                    let chunks = flight.brought().ok_or(CacheError::Lost)??;
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
            return Ok((vec![Part { span: self.span, slice, fetched_at, copy, derived: false }], outcome));
        }
        Err(CacheError::Lost)
    }

    /// The window as it is kept, or the flight that is going to bring it.
    fn find_exactly(&self) -> Result<Arc<Chunk>, Arc<Flight>> {
        let key = (self.span, self.series.rich);
        let mut shelf = self.shelf.lock();
        if let Some(chunk) = shelf.exact.get(&key).and_then(|copy| copy.use_chunk(&self.fetcher.memory)) {
            return Ok(chunk);
        }
        let flight = shelf
            .flights
            .iter()
            .filter(|flight| (flight.span(), flight.rich, flight.placed) == (key.0, key.1, Placed::Unchecked))
            .find(|flight| self.seat.may_wait_for(flight) && self.seat.wait_for(flight, self.span))
            .cloned();
        Err(flight.unwrap_or_else(|| {
            self.fetcher.begin_exactly(&self.series, &self.shelf, &mut shelf, self.span, self.fresh_since, &self.seat)
        }))
    }
}
