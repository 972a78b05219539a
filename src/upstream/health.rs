//! How the last calls of each account ended, for the status page: a layer around the client, which changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use super::client::AuthorizedRequest;
use super::error::UpstreamError;
use super::page::Page;
use crate::clock::Clock;
use crate::window::Timestamp;

/// How the last calls of an account ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallResults {
    /// When the last page arrived; `None` if none has arrived since the start.
    pub last_page: Option<Timestamp>,
    /// The last call that brought no page; `None` if there was none.
    pub last_failure: Option<CallFailure>,
    /// Number of failed calls since the last page.
    pub failures_in_a_row: u64,
}

/// A call that brought no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// When it ended.
    pub at: Timestamp,
    /// The failure in words, without anything of items or secrets.
    pub why: String,
}

/// The results of all accounts, as many as the configuration has. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct UpstreamHealth(Arc<Mutex<HashMap<Arc<str>, CallResults>>>);

impl UpstreamHealth {
    /// How the last calls of an account ended.
    pub fn of(&self, account: &str) -> CallResults {
        self.lock().get(account).cloned().unwrap_or_default()
    }

    fn record(&self, account: &Arc<str>, at: Timestamp, failure: Option<&UpstreamError>) {
        let mut all = self.lock();
        let results = all.entry(account.clone()).or_default();
        match failure {
            None => (results.last_page, results.failures_in_a_row) = (Some(at), 0),
            Some(error) => {
                results.last_failure = Some(CallFailure { at, why: error.to_string() });
                results.failures_in_a_row += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, CallResults>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer that records how calls end.
#[derive(Clone, Debug)]
pub struct HealthLayer {
    /// Where the results are recorded.
    pub health: UpstreamHealth,
    /// The clock of the results.
    pub clock: Clock,
}

impl<S> Layer<S> for HealthLayer {
    type Service = RecordedCalls<S>;

    fn layer(&self, below: S) -> RecordedCalls<S> {
        RecordedCalls { layer: self.clone(), below }
    }
}

/// See [`HealthLayer`].
#[derive(Clone, Debug)]
pub struct RecordedCalls<S> {
    layer: HealthLayer,
    below: S,
}

impl<S> Service<AuthorizedRequest> for RecordedCalls<S>
where
    S: Service<AuthorizedRequest, Response = Page, Error = UpstreamError>,
    S::Future: Send + 'static,
{
    type Response = Page;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<Page, UpstreamError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        self.below.poll_ready(context)
    }

    fn call(&mut self, request: AuthorizedRequest) -> Self::Future {
        let HealthLayer { health, clock } = self.layer.clone();
        let account = request.page.series.account.clone();
        let call = self.below.call(request);
        Box::pin(async move {
            let result = call.await;
            // Arguments that Kore refuses are the caller's, and say nothing of the upstream.
            if !matches!(result, Err(UpstreamError::InvalidArguments { .. })) {
                health.record(&account, clock.now(), result.as_ref().err());
            }
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_ends_the_failures_in_a_row_and_keeps_the_last() {
        let (health, account, at) = (UpstreamHealth::default(), Arc::from("a"), Timestamp::from_seconds);
        assert_eq!(health.of("a"), CallResults::default());
        health.record(&account, at(1), Some(&UpstreamError::Timeout));
        health.record(&account, at(2), Some(&UpstreamError::Connect));
        let failure = |at| Some(CallFailure { at, why: "the upstream cannot be reached".to_owned() });
        let failed = CallResults { last_page: None, last_failure: failure(at(2)), failures_in_a_row: 2 };
        assert_eq!(health.of("a"), failed);
        health.record(&account, at(3), None);
        assert_eq!(health.of("a"), CallResults { last_page: Some(at(3)), failures_in_a_row: 0, ..failed });
        assert_eq!(health.of("b"), CallResults::default());
    }
}
