//! A window that cannot be cut, or of an account whose windows cannot: it is kept and fetched as exactly that window.

use std::sync::Arc;

use crate::cache::chunk::{Chunk, Slice};
use crate::cache::flight::Flight;
use crate::cache::parts::Part;
use crate::cache::session::{Joined, MAX_SURVEYS_WITHOUT_PROGRESS, Mode, Next, Session};
use crate::cache::{CacheError, Outcome};
use crate::repage::{Placed, RepageError};

impl Session {
    /// Exactly what the upstream says to this window, cut by nobody.
    pub(in crate::cache) async fn gather_exactly(&mut self) -> Result<(Vec<Part>, Outcome), CacheError> {
        self.flights.clear();
        self.seat.wait_only_for(&[]);
        self.mode = Mode::Whole;
        for _ in 0..MAX_SURVEYS_WITHOUT_PROGRESS {
            let found = self.find_exactly()?;
            self.arrival = None;
            let (chunk, outcome) = match found {
                Ok(chunk) => (chunk, Outcome::Hit),
                Err(flight) => {
                    while flight.delivered().is_none() {
                        let (flight, known, need) = (flight.clone(), flight.span(), self.span);
                        self.advance(Next::Flights(vec![Joined { flight, known, need }])).await?;
                    }
                    let chunks = flight.delivered().ok_or(CacheError::Lost)??.chunks;
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
    fn find_exactly(&self) -> Result<Result<Arc<Chunk>, Arc<Flight>>, CacheError> {
        let key = (self.span, self.series.rich);
        let mut shelf = self.shelf.lock();
        if let Some(chunk) = shelf.exact.get(&key).and_then(|copy| copy.use_chunk(&self.fetcher.memory)) {
            return Ok(Ok(chunk));
        }
        if shelf.has_torn(self.span) {
            return Err(CacheError::Repage(RepageError::Torn(self.span)));
        }
        let flight = shelf
            .flights
            .iter()
            .filter(|flight| {
                (flight.span(), flight.route.rich, flight.route.placed) == (key.0, key.1, Placed::Unchecked)
            })
            .find(|flight| self.seat.may_wait_for(flight) && self.seat.wait_for(flight))
            .cloned();
        Ok(Err(flight.unwrap_or_else(|| {
            self.fetcher.begin_exactly(&self.series, &self.shelf, &mut shelf, self.span, self.fresh_since, &self.seat)
        })))
    }
}
