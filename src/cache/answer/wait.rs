//! The wait between two planning rounds of a session: for the start of runs, for news of fetches, or for Redis.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::query::Delivery;
use super::session::{Session, WaitFor};
use super::snapshot::JoinedFetch;
use crate::cache::error::CacheError;
use crate::cache::series::Waiter;
use crate::paging::RunStatus;
use crate::quota::Exhausted;

/// The time beyond the queue timeout after which a remote fetch is not waited for any more. A leader reports each
/// second, and applies the queue timeout itself, so by then it is gone.
const LEADER_SILENCE_TIMEOUT: Duration = Duration::from_secs(2);
/// The `Retry-After` of a request whose leader is silent: by then there is a new one.
const RETRY_AFTER_SILENCE: Duration = Duration::from_secs(5);

impl Session {
    /// Waits for what a planning round has found to be next.
    ///
    /// # Errors
    /// If the quota grants no call within the queue timeout, or the window turns out to need an exact fetch.
    pub(super) async fn wait(&mut self, next: WaitFor) -> Result<(), CacheError> {
        let span = self.waiter.span.clone();
        span.scope(self.wait_for(next)).await
    }

    async fn wait_for(&mut self, next: WaitFor) -> Result<(), CacheError> {
        match next {
            WaitFor::Batch(mut started) => {
                // The channel closes when the runs have started.
                drop(started.changed().await);
                Ok(())
            }
            WaitFor::Fetches(fetches) => self.wait_for_fetches(&fetches).await,
            WaitFor::DiskChunks(piece) => {
                self.read_disk(&piece).await;
                Ok(())
            }
            WaitFor::RedisNames(intervals) => {
                self.list_redis(&intervals).await;
                Ok(())
            }
            WaitFor::RedisChunks(piece) => self.read_redis(&piece).await,
        }
    }

    /// Waits until one of these fetches has finished, brings less than it did, or is not worth waiting for any more; or
    /// until a page has come, if that may change the delivery or leave room for an additional run.
    async fn wait_for_fetches(&mut self, fetches: &[JoinedFetch]) -> Result<(), CacheError> {
        let mut statuses: Vec<_> = fetches.iter().map(|joined| joined.fetch.status().subscribe()).collect();
        let pages = |statuses: &[watch::Receiver<RunStatus>]| statuses.iter().map(|status| status.borrow().pages).sum();
        let mut known_pages: u32 = pages(&statuses);
        loop {
            // Marked before they are looked at, so that no later change is missed.
            statuses.iter_mut().for_each(watch::Receiver::mark_unchanged);

            if fetches
                .iter()
                .any(|joined| joined.fetch.has_changed(joined.joined_interval) || self.should_leave(joined))
            {
                return Ok(());
            }
            let Waiter { requester, queue_timeout, .. } = &*self.waiter;
            // Only the fetch that brings the next missing time must keep the timeout; others may be paused for longer.
            if let Some(next) = fetches.iter().min_by_key(|joined| joined.needed.start) {
                next.fetch.check_queue_timeout(requester, queue_timeout)?;
            }
            tokio::select! {
                biased;
                _ = select_all(statuses.iter_mut().map(|status| Box::pin(status.changed()))) => {}
                error = self.queue_timeout_error(fetches) => return Err(error),
            }
            if pages(&statuses) > known_pages {
                known_pages = pages(&statuses);
                self.progress.count_event();
                self.progress.has_requested_additional_run = false;
                if self.progress.delivery == Delivery::WholeOrStreamed
                    || self.fetcher.spare_runs(&self.query.series, &self.query.requester) > 0
                {
                    return Ok(());
                }
            }
        }
    }

    /// Whether it is faster now to fetch separately what is needed of a fetch.
    fn should_leave(&self, JoinedFetch { fetch, needed, .. }: &JoinedFetch) -> bool {
        let scheduler = self.fetcher.quotas.scheduler(&self.query.series.account);
        let expected_wait = scheduler.map(|scheduler| scheduler.expected_wait()).unwrap_or_default();
        fetch.is_too_long_for(*needed, &self.waiter, expected_wait)
    }

    /// Ends with an error when the quota has granted none of these fetches a call within the queue timeout.
    async fn queue_timeout_error(&self, fetches: &[JoinedFetch]) -> CacheError {
        let Waiter { requester, queue_timeout, .. } = &*self.waiter;
        let is_remote = fetches.iter().any(|joined| joined.fetch.is_remote());
        queue_timeout.over(if is_remote { LEADER_SILENCE_TIMEOUT } else { Duration::ZERO }).await;
        let scheduler = self.fetcher.quotas.scheduler(&self.query.series.account);
        let paused = fetches.iter().filter_map(|joined| joined.fetch.pause_for(requester));
        if let Some((until, error)) = paused.max_by_key(|(until, _)| *until)
            && until > Instant::now()
        {
            return error;
        }
        let retry_after = match scheduler {
            _ if is_remote => RETRY_AFTER_SILENCE,
            None => RETRY_AFTER_SILENCE,
            Some(scheduler) => scheduler.forecast(1, requester.priority),
        };
        // If the quota could grant a call at once, the permits for runs were what was waited for.
        if retry_after.is_zero() {
            return CacheError::TooManyFetches { retry_after: RETRY_AFTER_SILENCE };
        }
        CacheError::QuotaExhausted(Exhausted { retry_after })
    }
}
