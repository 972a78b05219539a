//! The quota stage: a call goes on when its account's turn has come, and never passes a rolling limit.

mod budget;
mod journal;
mod ledger;
mod pace;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tower::{Layer, Service, ServiceExt as _};

pub use budget::Budget;
pub use journal::{Journal, JournalError, Restored, Slot};
pub use ledger::{Ledger, LimitStanding, Shrunk, Tick};
pub use pace::{Bucket, Pace, Standing};
pub use turns::{Exhausted, Turn, Turns};

use crate::config;
use crate::telemetry;
use crate::token::TokenError;
use crate::upstream::{Again, Page, PageRequest, UpstreamError};

/// Why a call was not made, or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QuotaError {
    /// The quota cannot serve the call within `quota.queue_timeout`.
    #[error("the quota is spent for another {} s", .0.retry_after.as_secs())]
    Exhausted(Exhausted),
    /// The call was made, or could not be authorized.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl QuotaError {
    /// Whether trying again can help.
    pub fn again(&self) -> Again {
        match self {
            Self::Exhausted(_) => Again::Never,
            Self::Token(error) => error.again(),
        }
    }
}

/// The queues of all accounts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Quotas(Arc<HashMap<Arc<str>, Arc<Turns>>>);

impl Quotas {
    /// One queue for each account.
    pub fn new(accounts: &[config::Account], quota: &config::Quota) -> Self {
        let turns = accounts.iter().map(|a| (a.account_id.clone(), Turns::new(a.limits.clone(), quota)));
        Self(Arc::new(turns.collect()))
    }

    /// Each account with its queue.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Turns>)> {
        self.0.iter()
    }
}

/// Puts the quota before the stages below.
#[derive(Clone, Debug)]
pub struct QuotaLayer(pub Quotas);

impl<S> Layer<S> for QuotaLayer {
    type Service = QuotaStage<S>;

    fn layer(&self, below: S) -> QuotaStage<S> {
        QuotaStage { quotas: self.0.clone(), below }
    }
}

/// See [`QuotaLayer`].
#[derive(Clone, Debug)]
pub struct QuotaStage<S> {
    quotas: Quotas,
    below: S,
}

impl<S> Service<PageRequest> for QuotaStage<S>
where
    S: Service<PageRequest, Response = Page, Error = TokenError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Page;
    type Error = QuotaError;
    type Future = BoxFuture<'static, Result<Page, QuotaError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), QuotaError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: PageRequest) -> Self::Future {
        let turns = self.quotas.0.get(&request.series.account).cloned();
        let below = self.below.clone();
        Box::pin(async move {
            let turns = turns.ok_or(TokenError::UnknownAccount)?;
            let asked = Instant::now();
            let turn = turns.take().await.map_err(QuotaError::Exhausted)?;
            telemetry::quota_wait(asked.elapsed());
            let (account, spent) = (request.series.account.clone(), request.spent.clone());
            spent.add();
            let result = below.oneshot(request).await;
            match &result {
                Err(TokenError::Upstream(UpstreamError::Connect) | TokenError::Mint(_)) => {
                    spent.take_back();
                    turn.refund();
                }
                Err(TokenError::Upstream(UpstreamError::RateLimited { limit, retry_after, .. })) => {
                    let closed_for = turns.close(*limit, *retry_after);
                    telemetry::account_closed(&account, closed_for);
                }
                _ => {}
            }
            Ok(result?)
        })
    }
}
