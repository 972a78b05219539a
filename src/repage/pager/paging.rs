//! How a page is got: one that was asked for ahead, or one that the quota grants now, later, or when it is there again.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use super::Pager;
use crate::quota::{Exhausted, QuotaError};
use crate::repage::read_ahead::ReadAhead;
use crate::repage::{Delivery, RepageError};
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::QueryBounds;

/// The longest that a run which has begun waits for the quota; an hourly limit clears within it.
const LONGEST_HOLD: Duration = Duration::from_mins(61);

impl<S> Pager<'_, S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
{
    /// The next page of a walk: one that was asked for ahead, or one that is asked for now. While it is waited for, others
    /// further on are asked for.
    pub(super) async fn next_page(
        &mut self,
        ahead: &mut ReadAhead<'_, S>,
        bounds: QueryBounds,
        offset: u64,
    ) -> Result<Page, RepageError> {
        loop {
            if let Some((page, took)) = ahead.take(offset) {
                self.last_page = took;
                return Ok(page);
            }
            if !ahead.is_asked(offset) {
                break;
            }
            ahead.ask(bounds, offset, 0);
            ahead.land().await;
        }
        let page = {
            let mut page = pin!(self.page(bounds, offset, PAGE_LIMIT));
            // The walk's own call takes its place in the queue first.
            let mut come = poll!(&mut page);
            loop {
                if let Poll::Ready(page) = come {
                    break page?;
                }
                ahead.ask(bounds, offset, 1);
                come = tokio::select! {
                    page = &mut page => Poll::Ready(page),
                    () = ahead.land(), if ahead.is_waiting() => Poll::Pending,
                };
            }
        };
        // How long the upstream took: what waits for the quota does not come sooner for being asked for ahead.
        let took = self.last_page.saturating_sub(self.run.demand.last_wait());
        self.last_page /= ahead.under_way() + 1;
        ahead.saw(offset, &page, took);
        Ok(page)
    }

    /// Fetches a page. A run that has begun is not given up because the quota is spent: it is held, and says so.
    pub(super) async fn page(&mut self, bounds: QueryBounds, offset: u64, limit: u32) -> Result<Page, RepageError> {
        let mut held = Duration::ZERO;
        loop {
            let (series, demand) = (self.run.series.clone(), self.run.demand.clone());
            let request = PageRequest { series, bounds, offset, limit, demand, ahead: false };
            let asked = Instant::now();
            match self.stage.below.clone().oneshot(request).await {
                Ok(page) => {
                    self.last_page = asked.elapsed();
                    if !std::mem::replace(&mut self.begun, true) {
                        let _ = self.run.deliver.send(Delivery::Begun);
                    }
                    return Ok(page);
                }
                Err(QuotaError::Exhausted(exhausted) | QuotaError::Refused(exhausted))
                    if self.begun && held + exhausted.retry_after < LONGEST_HOLD =>
                {
                    held += self.hold(exhausted).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the quota is said to have room, or until somebody more urgent waits for the run. Gives how long.
    async fn hold(&self, exhausted: Exhausted) -> Duration {
        let (begun, demand) = (Instant::now(), &self.run.demand);
        let class = demand.class();
        let _ = self.run.deliver.send(Delivery::Held(exhausted, class));
        let more_urgent = async {
            while demand.class() >= class {
                demand.changed().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(exhausted.retry_after) => {}
            () = more_urgent => {}
        }
        let _ = self.run.deliver.send(Delivery::Resumed);
        begun.elapsed()
    }
}
