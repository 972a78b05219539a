//! The response fields `RateLimit-Policy` and `RateLimit`, from which a caller learns how much of its own limit is left
//! before it runs into a 429.
//!
//! They are structured fields (RFC 9651) as in draft-ietf-httpapi-ratelimit-headers-11. There is one policy,
//! `"caller"`, for all keys and all requests of a caller.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::request::RateLimitStatus;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds both fields: `"caller";q=600;w=60` (quota and window in seconds) and `"caller";r=587;t=2` (requests left, and
/// seconds until all are available again).
pub(super) fn add_rate_limit_fields(headers: &mut HeaderMap, limit_status: RateLimitStatus) {
    let RateLimitStatus { limit, left, full_in } = limit_status;
    for (name, value) in [
        (RATELIMIT_POLICY, format!("\"caller\";q={limit};w=60")),
        (RATELIMIT, format!("\"caller\";r={left};t={}", seconds(full_in))),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// Seconds, rounded up like `Retry-After`: a request at the very second must be admitted.
fn seconds(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_drafts_syntax() {
        for (full_in, expected) in [(0, 1), (1, 1), (1_999, 2), (2_000, 2), (59_001, 60)] {
            let mut headers = HeaderMap::new();
            add_rate_limit_fields(
                &mut headers,
                RateLimitStatus { limit: 600, left: 587, full_in: Duration::from_millis(full_in) },
            );
            assert_eq!(headers["ratelimit-policy"], "\"caller\";q=600;w=60");
            assert_eq!(headers["ratelimit"], format!("\"caller\";r=587;t={expected}"));
        }
    }
}
