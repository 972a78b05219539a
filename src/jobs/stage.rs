//! The stage: passes requests for windows on, and takes those about jobs.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

use super::command::JobCommand;
use super::error::JobError;
use super::handle::Jobs;
use super::record::JobRecord;
use crate::cache::{CacheError, CachedQuery, Cost, CostQuery, WindowAnswer, WindowQuery};

/// Adds jobs in front of the stages below.
#[derive(Clone, Debug)]
pub struct JobsLayer(pub Jobs);

impl<S> Layer<S> for JobsLayer
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError>,
    S: Service<CostQuery, Response = Cost, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    <S as Service<WindowQuery>>::Future: Send + 'static,
    <S as Service<CostQuery>>::Future: Send + 'static,
{
    type Service = JobsStage<S>;

    fn layer(&self, below: S) -> JobsStage<S> {
        self.0.start((BoxCloneSyncService::new(below.clone()), BoxCloneSyncService::new(below.clone())));
        JobsStage { jobs: self.0.clone(), below }
    }
}

/// The service of [`JobsLayer`].
#[derive(Clone)]
pub struct JobsStage<S> {
    jobs: Jobs,
    below: S,
}

impl<S: Service<WindowQuery>> Service<WindowQuery> for JobsStage<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.below.poll_ready(context)
    }

    fn call(&mut self, query: WindowQuery) -> S::Future {
        self.below.call(query)
    }
}

impl<S: Service<CachedQuery>> Service<CachedQuery> for JobsStage<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.below.poll_ready(context)
    }

    fn call(&mut self, query: CachedQuery) -> S::Future {
        self.below.call(query)
    }
}

impl<S: Service<CostQuery>> Service<CostQuery> for JobsStage<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.below.poll_ready(context)
    }

    fn call(&mut self, query: CostQuery) -> S::Future {
        self.below.call(query)
    }
}

impl<S> Service<JobCommand> for JobsStage<S> {
    type Response = JobRecord;
    type Error = JobError;
    type Future = BoxFuture<'static, Result<JobRecord, JobError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JobError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, command: JobCommand) -> Self::Future {
        Box::pin(self.jobs.run(command))
    }
}
