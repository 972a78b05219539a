//! The types of `[[callers]]`.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::{CacheControlGrants, NamePatterns};
use crate::window::Bound;

/// Requests in a minute of a caller whose limit is not set.
pub(super) const DEFAULT_REQUESTS_PER_MINUTE: u32 = 600;

/// A `[[callers]]`
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// SHA-256 digests of the API keys, none of which another caller has; none only with `certificate_san`.
    pub api_key_sha256: Vec<[u8; 32]>,
    /// The subject alternative name by which a client certificate stands for the caller.
    pub certificate_san: Option<Arc<str>>,
    /// The accounts that the caller may use.
    pub accounts: NamePatterns,
    /// The streams that the caller may use.
    pub streams: NamePatterns,
    /// Weight of the caller when callers compete for the quota; at least 1.
    pub weight: u32,
    /// The directives of `Cache-Control` that are followed for the caller.
    pub cache_control: CacheControlGrants,
    /// The most urgent class that the caller may claim.
    pub max_priority: PriorityClass,
    /// The time from which the caller is refused.
    pub not_after: Option<Bound>,
    /// Limits on the requests and the calls of the caller.
    pub limits: CallerLimits,
}

/// The limits of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests in a minute.
    pub requests_per_minute: NonZeroU32,
    /// Requests whose answers have not ended.
    pub max_concurrent_requests: Option<NonZeroU32>,
    /// Calls to the upstream in any hour that are charged to the caller, for each account.
    pub upstream_calls_per_hour: Option<NonZeroU32>,
    /// The same in any 24 hours.
    pub upstream_calls_per_day: Option<NonZeroU32>,
    /// Whether the limits refuse anything.
    pub mode: LimitMode,
}

impl Default for CallerLimits {
    fn default() -> Self {
        let (max_concurrent_requests, upstream_calls_per_hour, upstream_calls_per_day) = (None, None, None);
        Self {
            requests_per_minute: const { NonZeroU32::new(DEFAULT_REQUESTS_PER_MINUTE).unwrap() },
            max_concurrent_requests,
            upstream_calls_per_hour,
            upstream_calls_per_day,
            mode: LimitMode::Enforce,
        }
    }
}

/// Whether the limits of a caller refuse anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMode {
    /// Requests and calls beyond a limit are refused.
    Enforce,
    /// Requests and calls beyond a limit are counted, and not refused.
    Shadow,
}

impl LimitMode {
    /// The keyword, which is also the label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// The class of a request in the queue for the quota, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityClass {
    /// Someone waits for the answer.
    Interactive,
    /// Data is kept fresh.
    Refresh,
    /// A backfill or an export.
    Background,
}
