//! The retry stage: how often a failed call is made again, and after which pause. Whether it is, [`RetryHint`]
//! (`upstream/error.rs`) decides. The stage stands above the quota, so each attempt is counted.

use std::task::{Context, Poll};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tower::{Layer, Service, ServiceExt as _};

use crate::quota::QuotaError;
use crate::telemetry;
use crate::upstream::{Page, PageRequest, RetryHint};

/// Most attempts after the first one.
const RETRIES: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Retries failed calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryLayer;

impl<S> Layer<S> for RetryLayer {
    type Service = RetryStage<S>;

    fn layer(&self, below: S) -> RetryStage<S> {
        RetryStage { below }
    }
}

/// See [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct RetryStage<S> {
    below: S,
}

impl<S> Service<PageRequest> for RetryStage<S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Page;
    type Error = QuotaError;
    type Future = BoxFuture<'static, Result<Page, QuotaError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), QuotaError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: PageRequest) -> Self::Future {
        Box::pin(attempts(self.below.clone(), request))
    }
}

async fn attempts<S>(below: S, request: PageRequest) -> Result<Page, QuotaError>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone,
{
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_factor(4.0)
        .with_jitter()
        .with_max_times(RETRIES)
        .build();
    let mut tried_once_more = false;
    loop {
        let error = match below.clone().oneshot(request.clone()).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let Some(pause) = pauses.next() else { return Err(error) };
        match error.again() {
            RetryHint::Once if !tried_once_more => tried_once_more = true,
            RetryHint::AfterPause => tokio::time::sleep(pause).await,
            // No pause: the quota stage waits until the account opens, or fails if that takes too long.
            RetryHint::WhenQuotaAllows => {}
            RetryHint::Once | RetryHint::Never => return Err(error),
        }
        telemetry::upstream_retry(&request.series.account, &error);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use tower::service_fn;

    use super::*;
    use crate::request::{Requester, RunWaiters};
    use crate::token::TokenError;
    use crate::upstream::{BadPage, UpstreamError};

    const PAGE: Result<Page, UpstreamError> = Ok(Page { items: Vec::new(), has_more: false, allowance: None });

    /// The outcome of a call to an upstream that gives these answers in turn, and the number of attempts.
    async fn outcome(answers: Vec<Result<Page, UpstreamError>>) -> (bool, usize) {
        let count = answers.len();
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let left = answers.clone();
        let below = service_fn(move |_: PageRequest| {
            let answer = answers.lock().unwrap().pop_front().expect("asked too often");
            async move { answer.map_err(|error| QuotaError::Token(TokenError::Upstream(error))) }
        });
        let request = PageRequest {
            series: Arc::new(crate::request::Series {
                account: "a".into(),
                stream: "s".into(),
                filter: crate::request::Filter::None,
                parameters: Vec::new(),
                agentic: false,
            }),
            bounds: crate::window::UpperBound::Inclusive.query_for(crate::window::Interval::default()),
            offset: 0,
            limit: 100,
            waiters: RunWaiters::new(Requester::anyone()),
        };
        let result = RetryLayer.layer(below).oneshot(request).await;
        (result.is_ok(), count - left.lock().unwrap().len())
    }

    #[tokio::test(start_paused = true)]
    async fn transient_fault_is_retried_to_success() {
        assert_eq!(outcome(vec![Err(UpstreamError::BrokenOff), PAGE]).await, (true, 2));
        assert_eq!(outcome(vec![Err(BadPage::NotAPage.into()), Err(UpstreamError::Connect), PAGE]).await, (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_fault_fails_after_three_calls() {
        let broken = || Err(UpstreamError::BrokenOff);
        assert_eq!(outcome(vec![broken(), broken(), broken(), PAGE]).await, (false, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credential_is_retried_once() {
        let refused = || Err(UpstreamError::Unauthorized { message: None });
        assert_eq!(outcome(vec![refused(), PAGE]).await, (true, 2));
        assert_eq!(outcome(vec![refused(), refused(), PAGE]).await, (false, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn bad_request_is_not_retried() {
        let status = http::StatusCode::PRECONDITION_FAILED;
        assert_eq!(outcome(vec![Err(UpstreamError::Status { status, message: None }), PAGE]).await, (false, 1));
    }
}
