//! The states of the limits that an answer's `RateLimit` fields describe: the caller's own, which travels with its
//! request, and those of the upstream, which travel with the answer.

use std::time::Duration;

/// The state of a caller's token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Capacity of the bucket: the requests that the caller may make in a minute.
    pub limit: u32,
    /// Requests that are left in the bucket.
    pub left: u32,
    /// Time until one more request is left; `None` if the bucket is full.
    pub more_in: Option<Duration>,
    /// Time until the bucket is full again, if nothing is taken from it.
    pub full_in: Duration,
}

/// The state of one rolling limit of an account at the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimit {
    /// Calls that any window of the length `per` may hold.
    pub requests: u32,
    /// The length of the rolling window.
    pub per: Duration,
    /// Calls that are left.
    pub remaining: u32,
    /// Time until one more call is left; `None` if all are.
    pub more_in: Option<Duration>,
}

/// The rolling limits of the account whose calls an answer has spent, or could not spend. An extension of the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamLimits(pub Vec<UpstreamLimit>);
