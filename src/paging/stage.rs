//! The paging stage: a run waits for its permit, then is fetched.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use super::concurrency::RunPermit;
use super::error::PagingError;
use super::layer::PagingLayer;
use super::pager::Pager;
use super::run::{FetchedRun, ItemPacker, Run};
use crate::quota::QuotaError;
use crate::request::Requester;
use crate::upstream::{Page, PageRequest};

impl<S> Layer<S> for PagingLayer {
    type Service = PagingStage<S>;

    fn layer(&self, below: S) -> PagingStage<S> {
        PagingStage { settings: self.clone(), below }
    }
}

/// See [`PagingLayer`].
#[derive(Clone, Debug)]
pub struct PagingStage<S> {
    settings: PagingLayer,
    below: S,
}

impl<S, P> Service<Run<P>> for PagingStage<S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + Sync + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    type Response = FetchedRun<P::Packed>;
    type Error = PagingError;
    type Future = BoxFuture<'static, Result<FetchedRun<P::Packed>, PagingError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PagingError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, run: Run<P>) -> Self::Future {
        let stage = self.clone();
        Box::pin(async move {
            let permit = stage.permit(&run).await?;
            Pager::new(&stage.settings, &stage.below, &run, permit).fetch().await
        })
    }
}

impl<S> PagingStage<S> {
    /// Waits for a permit while the run is wanted, in the queue of its most urgent waiter.
    async fn permit<P>(&self, run: &Run<P>) -> Result<Option<RunPermit>, PagingError> {
        let Some(limiter) = self.settings.limiters.of(&run.series.account) else { return Ok(None) };
        let waiters = &run.waiters;
        let length = run.length();
        let in_line = |priority| {
            let requester = Requester { priority, ..waiters.cause().clone() };
            let limiter = limiter.clone();
            Box::pin(async move { limiter.acquire(&requester, length).await })
        };
        let mut priority = waiters.priority();
        let mut permit = in_line(priority);
        loop {
            tokio::select! {
                biased;
                permit = &mut permit => return Ok(Some(permit)),
                () = waiters.changed() => {}
            }
            if waiters.is_abandoned() {
                return Err(PagingError::Quota(QuotaError::Abandoned));
            }
            if waiters.priority() < priority {
                priority = waiters.priority();
                permit = in_line(priority);
            }
        }
    }
}
