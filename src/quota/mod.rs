//! The quota stage: a call goes on when its account's turn has come, and never passes a rolling limit.

mod lease;
mod limiter;
mod role;
mod savings;
mod scheduler;
mod state_file;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower::{Layer, Service, ServiceExt as _};

pub use self::limiter::{Ledger, LimitUsage, MonotonicTime, PacingWindow};
pub use self::role::Role;
pub use self::scheduler::{AcquireError, CallPermit, CallScheduler, Exhausted, Refused};
pub use self::state_file::{StateFile, StateFileError};

use self::lease::LeaseChannel;
use crate::clock::Clock;
use crate::config;
use crate::replicas::Mailbox;
use crate::telemetry;
use crate::token::TokenError;
use crate::upstream::{Page, PageRequest, RetryHint, UpstreamError};

/// Why a call was not made, or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QuotaError {
    /// The quota cannot serve the call within `quota.queue_timeout`.
    #[error("the quota is spent for another {} s", .0.retry_after.as_secs())]
    Exhausted(Exhausted),
    /// The upstream says that the quota is spent, in spite of the ledger.
    #[error("the upstream says that the quota is spent, for another {} s", .0.retry_after.as_secs())]
    Refused(Exhausted),
    /// Nobody wants the call any more, and its run has not begun.
    #[error("nobody wants it any more")]
    Abandoned,
    /// Another replica makes the calls of the account now.
    #[error("another replica makes the calls of this account now")]
    NotLeader,
    /// The call was made, or could not be authorized.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl QuotaError {
    /// Whether trying again can help.
    pub fn again(&self) -> RetryHint {
        match self {
            Self::Exhausted(_) | Self::Abandoned | Self::NotLeader => RetryHint::Never,
            Self::Refused(_) => RetryHint::WhenQuotaAllows,
            Self::Token(error) => error.again(),
        }
    }
}

/// The queues of all accounts; cheap to clone.
#[derive(Clone, Debug)]
pub struct QuotaManager {
    turns: Arc<HashMap<Arc<str>, Arc<CallScheduler>>>,
    /// The state file; `None` if what is spent is kept in memory only.
    journal: Option<StateFile>,
    /// How the other replicas are met; `None` if there are none.
    post: Option<Mailbox>,
}

impl QuotaManager {
    /// One queue for each account, with at most `max_concurrency` calls under way in each, none longer than `timeout`.
    ///
    /// # Errors
    /// If there is a `quota.state_file`, and it cannot be used.
    pub fn new(
        accounts: &[config::AccountConfig],
        quota: &config::QuotaConfig,
        max_concurrency: usize,
        timeout: Duration,
        clock: &Clock,
    ) -> Result<Self, StateFileError> {
        let longest = accounts.iter().flat_map(|account| &account.limits).map(|limit| limit.per).max();
        let keep = longest.unwrap_or_default() + limiter::GUARD;
        let journal = quota.state_file.as_deref().map(|path| StateFile::open(path, keep, timeout, clock));
        let journal = journal.transpose()?;
        let most = u32::try_from(max_concurrency).unwrap_or(u32::MAX);
        let turns = accounts.iter().map(|account| {
            let (id, limits) = (&account.account_id, account.limits.clone());
            (id.clone(), CallScheduler::new(id, limits, quota, most, journal.as_ref()))
        });
        Ok(Self { turns: Arc::new(turns.collect()), journal, post: None })
    }

    /// From now on the replicas that write to each other by `post` have these quotas in common. No call takes longer than
    /// `call`; until others have been heard of, `assumed` replicas are taken to be there. Must be called on a runtime.
    #[must_use]
    pub fn with_replicas(self, post: &Mailbox, assumed: usize, call: Duration) -> Self {
        let mut met = Vec::new();
        for (account, turns) in self.iter() {
            let meeting = LeaseChannel::new(post, account);
            turns.share(post.me(), &meeting, assumed, call);
            met.push((meeting.clone(), Arc::downgrade(turns)));
            tokio::spawn(lease::drive(Arc::downgrade(turns), meeting));
        }
        tokio::spawn(lease::keep_pulse(met.clone()));
        tokio::spawn(lease::listen(post.clone(), met));
        Self { post: Some(post.clone()), ..self }
    }

    /// Leaves the calls to the other replicas, if there are any: this process is about to end.
    pub async fn leave(&self) {
        let Some(post) = &self.post else { return };
        let leaving = self.iter().map(|(account, turns)| async move {
            lease::leave(turns, &LeaseChannel::new(post, account)).await;
        });
        futures_util::future::join_all(leaving).await;
    }

    /// The state file; `None` if what is spent is kept in memory only.
    pub fn state_file(&self) -> Option<&StateFile> {
        self.journal.as_ref()
    }

    /// The queue of an account.
    pub fn scheduler(&self, account: &str) -> Option<&Arc<CallScheduler>> {
        self.turns.get(account)
    }

    /// Each account with its queue.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<CallScheduler>)> {
        self.turns.iter()
    }
}

/// Puts the quota before the stages below.
#[derive(Clone, Debug)]
pub struct QuotaLayer(pub QuotaManager);

impl<S> Layer<S> for QuotaLayer {
    type Service = QuotaStage<S>;

    fn layer(&self, below: S) -> QuotaStage<S> {
        QuotaStage { quotas: self.0.clone(), below }
    }
}

/// See [`QuotaLayer`].
#[derive(Clone, Debug)]
pub struct QuotaStage<S> {
    quotas: QuotaManager,
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
        let turns = self.quotas.scheduler(&request.series.account).cloned();
        let below = self.below.clone();
        Box::pin(async move {
            let turns = turns.ok_or(TokenError::UnknownAccount)?;
            let demand = request.demand.clone();
            let turn = turns.acquire(&demand).await.map_err(|no_turn| match no_turn {
                AcquireError::Exhausted(exhausted) => QuotaError::Exhausted(exhausted),
                AcquireError::Abandoned => QuotaError::Abandoned,
                AcquireError::NotLeader => QuotaError::NotLeader,
            })?;
            telemetry::quota_wait(demand.class().label(), demand.last_wait());
            let account = request.series.account.clone();
            let calling = demand.calling();
            let result = below.oneshot(request).await;
            drop(calling);
            if !never_left(&result) {
                telemetry::call_spent(&account, &demand.cause().caller);
            }
            match &result {
                Ok(page) => turn.answered(page.allowance.as_ref()),
                _ if never_left(&result) => {
                    demand.take_back();
                    turn.refund();
                }
                Err(TokenError::Upstream(UpstreamError::RateLimited { limit, retry_after, allowance })) => {
                    let Refused { closed_for, retry_after, shrunk } =
                        turn.refused(*limit, *retry_after, allowance.as_ref());
                    let shrunk = shrunk.map(|shrunk| (shrunk.limit.per, shrunk.budget));
                    telemetry::quota_refused(&account, closed_for, shrunk);
                    return Err(QuotaError::Refused(Exhausted { retry_after }));
                }
                // Whether the upstream has counted it is not known: it counts.
                Err(_) => drop(turn),
            }
            Ok(result?)
        })
    }
}

/// Whether the upstream cannot have seen the call: no connection was opened for it.
fn never_left(result: &Result<Page, TokenError>) -> bool {
    matches!(result, Err(TokenError::Upstream(UpstreamError::Connect) | TokenError::Mint(_)))
}
