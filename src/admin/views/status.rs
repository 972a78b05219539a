//! The state of the gateway, as the status page and the JSON API show it.

use serde::Serialize;
use tokio::time::Instant;

use super::history::CallTotals;
use crate::admin::cordon::CordonStatus;
use crate::admin::state::{Admin, AdminInner, Phase};
use crate::quota::{CallScheduler, LimitUsage, Role, StateFile};
use crate::redis_client::Health;
use crate::request::Priority;
use crate::units::seconds;
use crate::upstream::{CallFailure, CallResults};

/// Content of the status page, except for the lists that have calls of their own.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the member of the JSON document")]
pub(in crate::admin) struct Status {
    /// `starting`, `ready`, `degraded` or `draining`.
    pub(in crate::admin) status: &'static str,
    pub(in crate::admin) problems: Vec<String>,
    pub(in crate::admin) version: &'static str,
    pub(in crate::admin) uptime_seconds: u64,
    /// The name of this replica among others; `null` without Redis.
    pub(in crate::admin) replica: Option<String>,
    pub(in crate::admin) calls: CallsStatus,
    pub(in crate::admin) cache: CacheStatus,
    pub(in crate::admin) redis: RedisStatus,
    pub(in crate::admin) accounts: Vec<AccountStatus>,
    /// The accounts and streams for which no upstream calls are made.
    pub(in crate::admin) cordons: Vec<CordonStatus>,
}

/// Upstream calls since the start.
#[derive(Serialize)]
pub(in crate::admin) struct CallsStatus {
    pub(in crate::admin) requests: u64,
    pub(in crate::admin) made: u64,
    pub(in crate::admin) saved: u64,
}

#[derive(Serialize)]
pub(in crate::admin) struct CacheStatus {
    pub(in crate::admin) memory_bytes: u64,
    pub(in crate::admin) memory_limit_bytes: u64,
    /// `null` without `cache.disk`.
    pub(in crate::admin) disk: Option<DiskStatus>,
}

#[derive(Serialize)]
pub(in crate::admin) struct DiskStatus {
    pub(in crate::admin) bytes: u64,
    pub(in crate::admin) limit_bytes: u64,
    /// `null` while it works.
    pub(in crate::admin) problem: Option<String>,
}

/// Whether Redis answers.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(in crate::admin) enum RedisStatus {
    /// There is no Redis.
    None,
    Up,
    Down {
        why: String,
        seconds: f64,
    },
}

#[derive(Serialize)]
pub(in crate::admin) struct AccountStatus {
    pub(in crate::admin) account_id: String,
    /// Queued calls.
    pub(in crate::admin) waiting: usize,
    pub(in crate::admin) waiting_by_priority: WaitingStatus,
    pub(in crate::admin) quota: Vec<QuotaStatus>,
    pub(in crate::admin) role: RoleStatus,
    pub(in crate::admin) upstream: UpstreamStatus,
}

/// Queued calls by the priority of those that wait for them.
#[derive(Serialize)]
pub(in crate::admin) struct WaitingStatus {
    pub(in crate::admin) interactive: u32,
    pub(in crate::admin) refresh: u32,
    pub(in crate::admin) background: u32,
}

/// The part that this replica takes in the calls of an account.
#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(in crate::admin) enum RoleStatus {
    /// There are no other replicas.
    Alone,
    /// This replica makes the calls of all.
    Leader,
    /// Another replica makes the calls.
    Follower { leader: String },
    /// The replicas cannot reach each other, and it uses this share of the quota.
    Partitioned { share: String },
    /// The leader is not known yet.
    Unknown,
}

/// How the last upstream calls of this replica ended.
#[derive(Serialize)]
pub(in crate::admin) struct UpstreamStatus {
    pub(in crate::admin) last_page: Option<String>,
    pub(in crate::admin) last_failure: Option<UpstreamFailure>,
    pub(in crate::admin) failures_in_a_row: u64,
    /// Seconds until the upstream's pause ends; `null` if there is none.
    pub(in crate::admin) closed_seconds: Option<f64>,
}

#[derive(Serialize)]
pub(in crate::admin) struct UpstreamFailure {
    pub(in crate::admin) at: String,
    pub(in crate::admin) why: String,
}

#[derive(Serialize)]
pub(in crate::admin) struct QuotaStatus {
    pub(in crate::admin) requests: u32,
    pub(in crate::admin) per_seconds: u64,
    /// Calls in the window that this process may make: less than `requests` while another client spends the same quota.
    pub(in crate::admin) budget: u32,
    pub(in crate::admin) remaining: u32,
}

impl Admin {
    pub(in crate::admin) fn status(&self) -> Status {
        let state = &*self.0;
        let problems = state.problems();
        let CallTotals { requests, made, saved } = self.totals();
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
            replica: state.handles.mailbox.as_ref().map(|mailbox| mailbox.me().to_string()),
            calls: CallsStatus { requests, made, saved },
            cache: state.cache_status(),
            redis: state.redis_status(),
            cordons: self.cordons(),
            accounts: self.schedulers().iter().map(|(id, scheduler)| self.account_status(id, scheduler)).collect(),
        }
    }

    fn account_status(&self, account_id: &str, scheduler: &CallScheduler) -> AccountStatus {
        let waiting = |class| scheduler.queue_length_of(class);
        let CallResults { last_page, last_failure, failures_in_a_row } = self.0.handles.upstream_health.of(account_id);
        let failure = |CallFailure { at, why }| UpstreamFailure { at: at.to_string(), why };
        AccountStatus {
            account_id: account_id.to_owned(),
            waiting: scheduler.queue_length(),
            waiting_by_priority: WaitingStatus {
                interactive: waiting(Priority::Interactive),
                refresh: waiting(Priority::Refresh),
                background: waiting(Priority::Background),
            },
            quota: scheduler.limit_usage().into_iter().map(QuotaStatus::from).collect(),
            role: self.role(scheduler),
            upstream: UpstreamStatus {
                last_page: last_page.map(|at| at.to_string()),
                last_failure: last_failure.map(failure),
                failures_in_a_row,
                closed_seconds: scheduler.closed_for().map(seconds),
            },
        }
    }

    fn role(&self, scheduler: &CallScheduler) -> RoleStatus {
        if self.0.handles.mailbox.is_none() {
            return RoleStatus::Alone;
        }
        if let Some(share) = scheduler.quota_share() {
            return RoleStatus::Partitioned { share: share.to_string() };
        }
        let role = scheduler.role().borrow().clone();
        match role {
            Role::Unknown => RoleStatus::Unknown,
            Role::Leader => RoleStatus::Leader,
            Role::Follower(leader) => RoleStatus::Follower { leader: leader.to_string() },
        }
    }
}

impl From<LimitUsage> for QuotaStatus {
    fn from(LimitUsage { limit, budget, remaining, more_in: _ }: LimitUsage) -> Self {
        Self { requests: limit.requests, per_seconds: limit.per.as_secs(), budget, remaining }
    }
}

impl AdminInner {
    fn cache_status(&self) -> CacheStatus {
        let disk = self.handles.cache.disk.as_ref().map(|disk| DiskStatus {
            bytes: disk.bytes(),
            limit_bytes: disk.limit(),
            problem: disk.state().problem(),
        });
        let memory_bytes = self.handles.cache.memory.bytes() + self.hot_bytes();
        CacheStatus { memory_bytes, memory_limit_bytes: self.memory_limit, disk }
    }

    fn redis_status(&self) -> RedisStatus {
        match self.handles.mailbox.as_ref().map(|mailbox| mailbox.redis().health()) {
            None => RedisStatus::None,
            Some(Health::Up) => RedisStatus::Up,
            Some(Health::Down { since, why }) => RedisStatus::Down {
                why: why.to_string(),
                seconds: seconds(Instant::now().saturating_duration_since(since)),
            },
        }
    }

    /// Descriptions of everything that makes the gateway degraded.
    pub(in crate::admin) fn problems(&self) -> Vec<String> {
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
        wrong.chain(redis).chain(disk).chain(partitioned).chain(clock).chain(closed).chain(unwritten).collect()
    }
}
