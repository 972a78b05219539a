//! Fetches one page of a run: waits until the quota grants the call, and pauses while the quota is spent.

use std::time::Duration;

use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use super::error::PagingError;
use super::pager::Pager;
use super::run::{ItemPacker, RunPhase};
use crate::quota::{CallerLimitExceeded, Exhausted, QuotaError};
use crate::upstream::{Page, PageRequest};
use crate::window::QueryBounds;

/// Longest pause of a run that has begun; an hourly limit clears within it.
const LONGEST_PAUSE: Duration = Duration::from_mins(61);

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Fetches a page. A run that has begun is not failed when the quota is spent: it pauses, and publishes that.
    pub(super) async fn page(&mut self, bounds: QueryBounds, offset: u64, limit: u32) -> Result<Page, PagingError> {
        let mut paused = Duration::ZERO;
        loop {
            let (series, waiters) = (self.run.series.clone(), self.run.waiters.clone());
            let request = PageRequest { series, bounds, offset, limit, waiters };
            let asked = Instant::now();
            match self.below.clone().oneshot(request).await {
                Ok(page) => {
                    let took = asked.elapsed();
                    self.run.status.send_modify(|status| {
                        status.pages += 1;
                        status.last_page = took;
                    });
                    if let Some(permit) = &self.permit {
                        permit.on_page(took.saturating_sub(self.run.waiters.last_wait()));
                    }
                    self.run.waiters.on_page();
                    return Ok(page);
                }
                Err(QuotaError::Exhausted(exhausted) | QuotaError::Refused { exhausted, .. })
                    if self.has_begun() && paused + exhausted.retry_after < LONGEST_PAUSE =>
                {
                    paused += self.pause(exhausted).await;
                }
                Err(QuotaError::CallerLimit(exceeded))
                    if self.has_begun() && paused + exceeded.retry_after < LONGEST_PAUSE =>
                {
                    paused += self.pause_for_callers(exceeded).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a page was fetched: failing the run now would waste the calls spent.
    fn has_begun(&self) -> bool {
        self.run.status.borrow().pages > 0
    }

    /// Waits until the quota should have room, or until a more urgent request joins the run. Returns the time waited.
    async fn pause(&self, exhausted: Exhausted) -> Duration {
        let (begun, waiters) = (Instant::now(), &self.run.waiters);
        let priority = waiters.priority();
        let until = begun + exhausted.retry_after;
        self.run.status.send_modify(|status| status.phase = RunPhase::Paused { until, priority });
        let more_urgent = async {
            while waiters.priority() >= priority {
                waiters.changed().await;
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => {}
            () = more_urgent => {}
        }
        self.run.status.send_modify(|status| status.phase = RunPhase::Fetching);
        begun.elapsed()
    }

    /// Waits until a caller that waits for the run may spend a call again, or until requests join or leave the run.
    /// Returns the time waited.
    async fn pause_for_callers(&self, exceeded: CallerLimitExceeded) -> Duration {
        let (begun, waiters) = (Instant::now(), &self.run.waiters);
        let until = begun + exceeded.retry_after;
        let callers = waiters.payers().into_iter().map(|requester| requester.caller).collect();
        self.run.status.send_modify(|status| status.phase = RunPhase::CallersSpent { until, exceeded, callers });
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => {}
            () = waiters.changed() => {}
        }
        self.run.status.send_modify(|status| status.phase = RunPhase::Fetching);
        begun.elapsed()
    }
}
