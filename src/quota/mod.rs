//! Quota stage: a call goes to the stages below when its account's quota has room for it, and no rolling limit is ever
//! exceeded.
//!
//! | module | |
//! | --- | --- |
//! | `scheduler` | fair queue of one account, and the gates that each call passes |
//! | `limiter` | the pure parts: ledger, adaptive limits, pacer, backoff |
//! | `lease` | which replica makes the calls of an account, and the share of each without Redis |
//! | `lease_driver`, `pulse` | the tasks that carry exchanges, pulses and messages between a scheduler and Redis |
//! | `shared_accounts` | the accounts that these tasks serve |
//! | `cordons` | accounts and streams for which an operator has stopped the calls |
//! | `role` | the role of this replica, for the stages above |
//! | `state_file` | calls of a process that was killed, for the next one |
//! | `savings` | balance of calls spent and calls saved |
//! | `fuzz` | fuzz targets |
//!
//! This file has the stage itself ([`QuotaLayer`], [`QuotaStage`]) and the schedulers of all accounts
//! ([`QuotaManager`]).

mod cordons;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod lease;
mod lease_driver;
mod limiter;
mod pulse;
mod role;
mod savings;
mod scheduler;
mod shared_accounts;
mod state_file;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use tower::{Layer, Service, ServiceExt as _};

pub use self::cordons::{Cordon, Cordons};
pub use self::limiter::{CallerLimitExceeded, Ledger, LimitUsage, MonotonicTime, PacingWindow};
pub use self::role::Role;
pub use self::scheduler::{AcquireError, CallPermit, CallScheduler, Exhausted, QuotaShare, RefusalEffect};
pub use self::state_file::{StateFile, StateFileError};

use self::lease::LeaseChannel;
use self::shared_accounts::SharedAccounts;
use crate::config;
use crate::environment::Environment;
use crate::live::Live;
use crate::replicas::Mailbox;
use crate::telemetry;
use crate::token::TokenError;
use crate::traces::SpanKind;
use crate::upstream::{Page, PageRequest, RetryHint, UpstreamError};

/// Why a call was not made, or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QuotaError {
    /// The quota cannot serve the call within `quota.queue_timeout`.
    #[error("the quota is spent for another {} s", .0.retry_after.as_secs())]
    Exhausted(Exhausted),
    /// The upstream refused the call for its quota, although the ledger had room.
    #[error("the upstream says that the quota is spent, for another {} s", .exhausted.retry_after.as_secs())]
    Refused {
        /// The time until the quota can serve the call.
        exhausted: Exhausted,
        /// The upstream's status; `None` if another replica made the call.
        status: Option<StatusCode>,
    },
    /// The caller's own limit of upstream calls is spent.
    #[error("your own limit of upstream calls in {} s is spent for another {} s", .0.per.as_secs(), .0.retry_after.as_secs())]
    CallerLimit(CallerLimitExceeded),
    /// An operator has stopped the calls for the account or the stream.
    #[error("an operator has stopped the upstream calls for this account or stream; only what is cached is served")]
    Cordoned,
    /// No request waits for the run any more, and it has made no call yet.
    #[error("no request waits for the run any more")]
    Abandoned,
    /// Another replica makes the calls of the account.
    #[error("another replica makes the calls of this account now")]
    NotLeader,
    /// The call was made and failed, or could not be authorized.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl QuotaError {
    /// Whether and when another attempt can succeed.
    pub fn again(&self) -> RetryHint {
        match self {
            Self::Exhausted(_) | Self::CallerLimit(_) | Self::Cordoned | Self::Abandoned | Self::NotLeader => {
                RetryHint::Never
            }
            Self::Refused { .. } => RetryHint::WhenQuotaAllows,
            Self::Token(error) => error.again(),
        }
    }
}

impl From<AcquireError> for QuotaError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Exhausted(exhausted) => Self::Exhausted(exhausted),
            AcquireError::CallerLimit(exceeded) => Self::CallerLimit(exceeded),
            AcquireError::Abandoned => Self::Abandoned,
            AcquireError::NotLeader => Self::NotLeader,
        }
    }
}

/// Schedulers of all accounts; cheap to clone.
#[derive(Clone, Debug)]
pub struct QuotaManager {
    schedulers: Live<HashMap<Arc<str>, Arc<CallScheduler>>>,
    /// See [`QuotaManager::new`].
    max_concurrency: u32,
    /// `None` if calls are recorded in memory only.
    state_file: Option<StateFile>,
    /// `None` without other replicas.
    sharing: Option<Sharing>,
    cordons: Cordons,
}

/// How the quotas are shared with other replicas.
#[derive(Clone, Debug)]
struct Sharing {
    mailbox: Mailbox,
    /// The replicas that are taken to be alive until others have been seen.
    assumed: usize,
    /// The longest time that a call takes.
    call_timeout: Duration,
    channels: SharedAccounts,
}

impl QuotaManager {
    /// A scheduler for each account, with at most `max_concurrency` calls in flight each, none longer than
    /// `call_timeout`.
    ///
    /// # Errors
    /// [`StateFileError`] if there is a `quota.state_file`, and it cannot be used.
    pub fn new(
        accounts: &[config::AccountConfig],
        quota: &config::QuotaConfig,
        max_concurrency: usize,
        call_timeout: Duration,
        environment: &Environment,
    ) -> Result<Self, StateFileError> {
        let keep = longest_window(accounts);
        let state_file = quota.state_file.as_deref().map(|path| StateFile::open(path, keep, call_timeout, environment));
        let state_file = state_file.transpose()?;
        let max_concurrency = u32::try_from(max_concurrency).unwrap_or(u32::MAX);
        let schedulers = accounts.iter().map(|account| {
            let (id, limits) = (&account.account_id, account.limits.clone());
            (id.clone(), CallScheduler::new(id, limits, quota, max_concurrency, state_file.as_ref()))
        });
        let (schedulers, cordons) = (Live::new(schedulers.collect()), Cordons::default());
        Ok(Self { schedulers, max_concurrency, state_file, sharing: None, cordons })
    }

    /// Shares the quotas with the replicas that `mailbox` reaches. No call takes longer than `call_timeout`; until
    /// other replicas have been seen, `assumed` replicas are taken to be alive. Must be called on a runtime: it spawns
    /// the tasks of the lease.
    #[must_use]
    pub fn with_replicas(self, mailbox: &Mailbox, assumed: usize, call_timeout: Duration) -> Self {
        let sharing = Sharing { mailbox: mailbox.clone(), assumed, call_timeout, channels: Live::default() };
        sharing.channels.replace(self.iter().map(|(account, scheduler)| sharing.share(&account, &scheduler)).collect());
        tokio::spawn(pulse::keep_pulse(sharing.channels.clone()));
        tokio::spawn(lease_driver::listen(mailbox.clone(), sharing.channels.clone()));
        Self { sharing: Some(sharing), ..self }
    }

    /// Returns all leases to the other replicas, if there are any. For a process that is about to end.
    pub async fn leave(&self) {
        let Some(sharing) = &self.sharing else { return };
        let leaving = self.all().map(|(account, scheduler)| sharing.leave(account, scheduler));
        futures_util::future::join_all(leaving).await;
    }

    /// Sets accounts, limits and callers as a reload has found them. The calls that were made go on counting, and calls
    /// that wait keep their places. An account that is gone is only hidden: it still counts its calls, in case it comes
    /// back, and makes those that other replicas need. Must be called on a runtime.
    pub fn configure(
        &self,
        accounts: &[config::AccountConfig],
        callers: &[config::CallerConfig],
        quota: &config::QuotaConfig,
    ) {
        if let Some(state_file) = &self.state_file {
            state_file.keep_for(longest_window(accounts));
        }
        let mut schedulers = HashMap::clone(&self.schedulers.load());
        for (account, scheduler) in &schedulers {
            scheduler.set_configured(accounts.iter().any(|configured| configured.account_id == *account));
        }
        for account in accounts {
            let id = &account.account_id;
            if let Some(scheduler) = schedulers.get(id) {
                scheduler.configure(&account.limits, quota.interactive_reserve);
                continue;
            }
            let limits = account.limits.clone();
            let new = CallScheduler::new(id, limits, quota, self.max_concurrency, self.state_file.as_ref());
            if let Some(sharing) = &self.sharing {
                let shared = sharing.share(id, &new);
                sharing.channels.replace(sharing.channels.load().iter().cloned().chain([shared]).collect());
            }
            schedulers.insert(id.clone(), new);
        }
        self.schedulers.replace(schedulers);
        self.limit_callers(callers);
    }

    /// Sets the callers' own limits of upstream calls, for each account.
    pub fn limit_callers(&self, callers: &[config::CallerConfig]) {
        self.schedulers.load().values().for_each(|scheduler| scheduler.limit_callers(callers));
    }

    /// The accounts and streams for which this replica makes no calls.
    pub fn cordons(&self) -> &Cordons {
        &self.cordons
    }

    /// The state file; `None` if calls are recorded in memory only.
    pub fn state_file(&self) -> Option<&StateFile> {
        self.state_file.as_ref()
    }

    /// Scheduler of an account; `None` if the account has never been configured.
    pub fn scheduler(&self, account: &str) -> Option<Arc<CallScheduler>> {
        self.schedulers.load().get(account).cloned()
    }

    /// The configured accounts with their schedulers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<str>, Arc<CallScheduler>)> + use<> {
        self.all().filter(|(_, scheduler)| scheduler.is_configured())
    }

    /// The same with accounts that a reload has removed.
    pub fn all(&self) -> impl Iterator<Item = (Arc<str>, Arc<CallScheduler>)> + use<> {
        HashMap::clone(&self.schedulers.load()).into_iter()
    }
}

/// The longest time for which a call counts against a limit of one of the accounts.
fn longest_window(accounts: &[config::AccountConfig]) -> Duration {
    let windows = accounts.iter().flat_map(|account| &account.limits).map(|limit| limit.per);
    windows.max().unwrap_or_default() + limiter::GUARD
}

impl Sharing {
    /// Shares the quota of an account, and starts the tasks of its lease.
    fn share(&self, account: &Arc<str>, scheduler: &Arc<CallScheduler>) -> (LeaseChannel, Weak<CallScheduler>) {
        let channel = LeaseChannel::new(&self.mailbox, account);
        scheduler.share(self.mailbox.me(), &channel, self.assumed, self.call_timeout);
        tokio::spawn(lease_driver::drive(Arc::downgrade(scheduler), channel.clone()));
        (channel, Arc::downgrade(scheduler))
    }

    /// Returns the lease of an account.
    async fn leave(&self, account: Arc<str>, scheduler: Arc<CallScheduler>) {
        lease_driver::leave(&scheduler, &LeaseChannel::new(&self.mailbox, &account)).await;
    }
}

/// Layer of the quota stage.
#[derive(Clone, Debug)]
pub struct QuotaLayer(pub QuotaManager);

impl<S> Layer<S> for QuotaLayer {
    type Service = QuotaStage<S>;

    fn layer(&self, below: S) -> QuotaStage<S> {
        QuotaStage { quotas: self.0.clone(), below }
    }
}

/// Service of the quota stage: acquires a permit for each call, makes the call, and reports its end to the scheduler.
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
        let scheduler = self.quotas.scheduler(&request.series.account);
        let (cordons, series) = (self.quotas.cordons.clone(), request.series.clone());
        let below = self.below.clone();
        Box::pin(async move {
            let scheduler = scheduler.ok_or(TokenError::UnknownAccount)?;
            let waiters = request.waiters.clone();
            cordons.check(&series)?;
            let queued = waiters.span().child(SpanKind::Internal, "queue");
            let permit = scheduler.acquire(&waiters).await.inspect_err(|error| queued.fail(error.label()))?;
            queued.set("koregate.class", waiters.priority().label());
            drop(queued);
            // It may have waited for long.
            if let Err(cordoned) = cordons.check(&series) {
                waiters.take_back();
                permit.refund();
                return Err(cordoned);
            }
            telemetry::quota_wait(waiters.priority().label(), waiters.last_wait());
            let (account, payer) = (series.account.clone(), permit.payer().clone());
            let calling = waiters.calling();
            let result = below.oneshot(request).await;
            drop(calling);
            if is_not_sent(&result) {
                waiters.take_back();
                permit.refund();
                return Ok(result?);
            }
            telemetry::call_spent(&account, &payer);
            match &result {
                Ok(page) => permit.answered(page.allowance.as_ref()),
                Err(TokenError::Upstream(UpstreamError::RateLimited { status, limit, retry_after, allowance })) => {
                    let RefusalEffect { closed_for, retry_after, reduced } =
                        permit.refused(*limit, *retry_after, allowance.as_ref());
                    let reduced = reduced.map(|reduced| (reduced.limit.per, reduced.budget));
                    telemetry::quota_refused(&account, closed_for, reduced);
                    return Err(QuotaError::Refused { exhausted: Exhausted { retry_after }, status: Some(*status) });
                }
                // The upstream may have counted the call, so it counts.
                Err(_) => drop(permit),
            }
            Ok(result?)
        })
    }
}

/// Whether the call certainly did not reach the upstream: no connection was opened for it.
fn is_not_sent(result: &Result<Page, TokenError>) -> bool {
    matches!(result, Err(TokenError::Upstream(UpstreamError::Connect) | TokenError::Mint(_)))
}

#[cfg(test)]
mod tests;
