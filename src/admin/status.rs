//! The state of the gateway, as the status page and the JSON API show it.

use serde::Serialize;

use super::configuration::ConfigurationStatus;
use super::cordon::CordonStatus;
use super::state::{Admin, AdminInner, Phase};
use crate::quota::{CallScheduler, LimitUsage, StateFile};
use crate::redis_client::Health;

/// Content of the status page, except for the callers.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the member of the JSON document")]
pub(super) struct Status {
    /// `starting`, `ready`, `degraded` or `draining`.
    pub(super) status: &'static str,
    pub(super) problems: Vec<String>,
    pub(super) version: &'static str,
    pub(super) uptime_seconds: u64,
    pub(super) cache: CacheStatus,
    pub(super) accounts: Vec<AccountStatus>,
    /// The accounts and streams for which no upstream calls are made.
    pub(super) cordons: Vec<CordonStatus>,
    pub(super) configuration: ConfigurationStatus,
}

#[derive(Serialize)]
pub(super) struct CacheStatus {
    pub(super) memory_bytes: u64,
    pub(super) memory_limit_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct AccountStatus {
    pub(super) account_id: String,
    /// Queued calls.
    pub(super) waiting: usize,
    pub(super) quota: Vec<QuotaStatus>,
}

#[derive(Serialize)]
pub(super) struct QuotaStatus {
    pub(super) requests: u32,
    pub(super) per_seconds: u64,
    /// Calls in the window that this process may make: less than `requests` while another client spends the same quota.
    pub(super) budget: u32,
    pub(super) remaining: u32,
}

impl Admin {
    pub(super) fn status(&self) -> Status {
        let state = &*self.0;
        let problems = state.problems();
        Status {
            status: match self.phase() {
                Phase::Starting => "starting",
                Phase::Ready if problems.is_empty() => "ready",
                Phase::Ready => "degraded",
                Phase::Draining => "draining",
            },
            problems,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: state.clock.now().since(state.started).as_secs(),
            cache: CacheStatus {
                memory_bytes: state.handles.cache.memory.bytes() + state.hot_bytes(),
                memory_limit_bytes: state.memory_limit,
            },
            cordons: self.cordons(),
            configuration: ConfigurationStatus::clone(&state.configuration.load()),
            accounts: state.handles.quotas.iter().map(|(id, scheduler)| AccountStatus::of(&id, &scheduler)).collect(),
        }
    }
}

impl AccountStatus {
    fn of(account_id: &str, scheduler: &CallScheduler) -> Self {
        let quota = scheduler.limit_usage().into_iter().map(QuotaStatus::from).collect();
        Self { account_id: account_id.to_owned(), waiting: scheduler.queue_length(), quota }
    }
}

impl From<LimitUsage> for QuotaStatus {
    fn from(LimitUsage { limit, budget, remaining, more_in: _ }: LimitUsage) -> Self {
        Self { requests: limit.requests, per_seconds: limit.per.as_secs(), budget, remaining }
    }
}

impl AdminInner {
    /// Descriptions of everything that makes the gateway degraded.
    fn problems(&self) -> Vec<String> {
        let handles = &self.handles;
        let wrong = handles.cache.window_fields.wrong_fields();
        let wrong = wrong.iter().map(|(account, field)| {
            format!(
                "account {account}: window.field ({field}) is not the timestamp that the upstream selects on; only exact \
                 windows are served"
            )
        });
        let redis = handles.mailbox.as_ref().and_then(|mailbox| match mailbox.redis().health() {
            Health::Up => None,
            Health::Down { why, .. } => Some(format!("{why}; chunks are neither read from there nor written")),
        });
        let disk = handles.cache.disk.as_ref().and_then(|disk| disk.state().problem());
        let partitioned = handles.quotas.iter().filter_map(|(account, scheduler)| {
            let share = scheduler.quota_share()?;
            Some(format!("account {account}: the replicas cannot reach each other; this one makes do with {share}"))
        });
        let clock = self.clock.is_wrong().then(|| {
            "the clock of this machine differs from the upstream's by more than a minute; nothing is kept as settled"
                .to_owned()
        });
        let closed = handles.quotas.iter().filter_map(|(account, scheduler)| {
            let seconds = scheduler.closed_for()?.as_secs_f64().ceil();
            Some(format!(
                "account {account}: the upstream says that the quota is spent for another {seconds} s; one call now \
                 and then asks whether it still is"
            ))
        });
        let unwritten = handles.quotas.state_file().and_then(StateFile::problem).map(|(calls, why)| {
            format!(
                "quota.state_file: {calls} calls could not be written down, so a restart would not know of them: {why}"
            )
        });
        let reload = self.configuration.load().failed_reload.as_ref().map(|failed| {
            format!(
                "the configuration cannot be reloaded since {}: the log and /api/v1/status say why; what was in force \
                 before stays in force",
                failed.at
            )
        });
        let own = clock.into_iter().chain(closed).chain(unwritten).chain(reload);
        wrong.chain(redis).chain(disk).chain(partitioned).chain(own).collect()
    }
}
