//! The state of the gateway, as the status page and the JSON API show it.

use serde::Serialize;

use super::configuration::ConfigurationStatus;
use crate::quota::LimitUsage;

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
    pub(in crate::admin) configuration: ConfigurationStatus,
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
    /// The replica that makes the calls of all.
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

impl From<LimitUsage> for QuotaStatus {
    fn from(LimitUsage { limit, budget, remaining, more_in: _ }: LimitUsage) -> Self {
        Self { requests: limit.requests, per_seconds: limit.per.as_secs(), budget, remaining }
    }
}

/// A cordon in a response and in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::admin) struct CordonStatus {
    pub(in crate::admin) account: String,
    /// `null` for all streams of the account.
    pub(in crate::admin) stream: Option<String>,
}

impl CordonStatus {
    /// The account, or the stream, in words.
    pub(in crate::admin) fn name(&self) -> String {
        let Self { account, stream } = self;
        stream
            .as_ref()
            .map_or_else(|| format!("account {account}"), |stream| format!("stream {stream} of account {account}"))
    }
}
