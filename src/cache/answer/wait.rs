//! What a session waits for: runs that are planned, flights, and what the second tier has.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::session::{Joined, Mode, Next, Session};
use crate::cache::CacheError;
use crate::cache::fetch::Waiter;
use crate::paging::RunStatus;
use crate::quota::Exhausted;

/// Another replica says each second how far it is, and gives up by itself. One that says nothing for so much longer than
/// the patience lasts is not waited for.
const LEADER_SILENCE_TIMEOUT: Duration = Duration::from_secs(2);
/// Then whoever asks may come again after this: it is known who makes the calls instead.
const COME_AGAIN: Duration = Duration::from_secs(5);

impl Session {
    /// Waits for what a survey has found to be the next.
    pub(in crate::cache) async fn advance(&mut self, next: Next) -> Result<(), CacheError> {
        match next {
            Next::Begin(mut begun) => {
                drop(begun.changed().await);
                Ok(())
            }
            Next::Flights(flights) => self.await_flights(&flights).await,
            Next::List(intervals) => {
                self.list(&intervals).await;
                Ok(())
            }
            Next::Read(piece) => self.read_piece(&piece).await,
        }
    }

    /// Waits until there is news of one of these flights. An error if the quota grants none of them a call for too long.
    async fn await_flights(&mut self, flights: &[Joined]) -> Result<(), CacheError> {
        let mut statuses: Vec<_> = flights.iter().map(|joined| joined.flight.status().subscribe()).collect();
        let pages = |statuses: &[watch::Receiver<RunStatus>]| statuses.iter().map(|status| status.borrow().pages).sum();
        let mut seen: u32 = pages(&statuses);
        loop {
            statuses.iter_mut().for_each(watch::Receiver::mark_unchanged);
            // What has happened since they were looked at is not waited for.
            if flights.iter().any(|joined| joined.flight.has_changed(joined.known) || self.should_leave(joined)) {
                return Ok(());
            }
            let Waiter { asker, patience, .. } = &*self.seat;
            // What was begun beside the run that is needed next may be held up for longer.
            if let Some(first) = flights.iter().min_by_key(|joined| joined.need.start) {
                first.flight.check_queue_timeout(asker.class, patience)?;
            }
            tokio::select! {
                biased;
                // All at once: one that the quota holds is not found out only when a longer one has landed.
                _ = select_all(statuses.iter_mut().map(|status| Box::pin(status.changed()))) => {}
                error = self.impatience(flights) => return Err(error),
            }
            if pages(&statuses) > seen {
                // There may be room for a further run, and it may be known now that it takes long.
                seen = pages(&statuses);
                self.history.progress += 1;
                self.history.asked_further = false;
                if self.mode == Mode::MayStream || self.fetcher.spare_runs(&self.series, &self.seat.asker) > 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Whether what is needed of a flight had better be fetched separately.
    fn should_leave(&self, Joined { flight, need, .. }: &Joined) -> bool {
        let turns = self.fetcher.quotas.scheduler(&self.series.account);
        let expected_wait = turns.map(|turns| turns.expected_wait()).unwrap_or_default();
        flight.is_too_long_for(*need, self.seat.asker.class, expected_wait)
    }

    /// Ends when the quota has granted none of these flights a call for too long.
    async fn impatience(&self, flights: &[Joined]) -> CacheError {
        let Waiter { asker, patience, .. } = &*self.seat;
        let is_elsewhere = flights.iter().any(|joined| joined.flight.is_remote());
        patience.over(if is_elsewhere { LEADER_SILENCE_TIMEOUT } else { Duration::ZERO }).await;
        let turns = self.fetcher.quotas.scheduler(&self.series.account);
        let retry_after = match flights.iter().filter_map(|joined| joined.flight.paused_until(asker.class)).max() {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None if is_elsewhere => COME_AGAIN,
            None => turns.map_or(COME_AGAIN, |turns| turns.forecast(1, asker.class)),
        };
        // The quota was not what held it up.
        if retry_after.is_zero() {
            return CacheError::TooManyFetches { retry_after: COME_AGAIN };
        }
        CacheError::QuotaExhausted(Exhausted { retry_after })
    }
}
