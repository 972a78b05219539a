//! Why a call gets no permit.

use std::time::Duration;

use crate::quota::limiter::CallerLimitExceeded;

/// The quota cannot serve a call within `quota.queue_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Time until it can, as far as is known now.
    pub retry_after: Duration,
}

/// Why a call gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// The quota has no room within `quota.queue_timeout`.
    Exhausted(Exhausted),
    /// The upstream calls of all callers that wait for the run are spent by their own limits.
    CallerLimit(CallerLimitExceeded),
    /// No request waits for the run any more, and it has made no call yet.
    Abandoned,
    /// Another replica makes the calls of the account.
    NotLeader,
}

impl AcquireError {
    /// The label in traces.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Exhausted(_) => "quota_exhausted",
            Self::CallerLimit(_) => "caller_limit",
            Self::Abandoned => "abandoned",
            Self::NotLeader => "not_leader",
        }
    }
}
