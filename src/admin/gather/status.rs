//! The state of all parts of the gateway, and its problems in words.

use tokio::time::Instant;

use crate::admin::state::{Admin, AdminInner, Phase};
use crate::admin::views::configuration::ConfigurationStatus;
use crate::admin::views::history::CallTotals;
use crate::admin::views::status::{
    AccountStatus, CacheStatus, CallsStatus, DiskStatus, QuotaStatus, RedisStatus, RoleStatus, Status, UpstreamFailure,
    UpstreamStatus, WaitingStatus,
};
use crate::quota::{CallScheduler, Role, StateFile};
use crate::redis_client::Health;
use crate::request::Priority;
use crate::units::seconds;
use crate::upstream::{CallFailure, CallResults};

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
            configuration: ConfigurationStatus::clone(&state.configuration.load()),
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
