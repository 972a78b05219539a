//! The state of a caller's own rate limit, which travels with its request to the answer's `RateLimit` fields.

use std::time::Duration;

/// The state of a caller's token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Capacity of the bucket: the requests that the caller may make in a minute.
    pub limit: u32,
    /// Requests that are left in the bucket.
    pub left: u32,
    /// Time until the bucket is full again, if nothing is taken from it.
    pub full_in: Duration,
}
