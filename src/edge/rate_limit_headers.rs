//! `RateLimit-Policy` and `RateLimit`: a caller reads from each answer how much of its own limit is left, and need not
//! run into a 429 to find out.
//!
//! They are structured fields (RFC 9651), as draft-ietf-httpapi-ratelimit-headers-11 has them. There is one policy,
//! `"caller"`: it holds for all keys and all requests of the caller.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::request::RateLimitStatus;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Tells how the caller stands: `"caller";q=600;w=60`, so many requests in so many seconds, and `"caller";r=587;t=2`, so
/// many of them left, and all of them back after so many seconds without a request.
pub(super) fn tell(headers: &mut HeaderMap, standing: RateLimitStatus) {
    let RateLimitStatus { limit, left, full_in } = standing;
    for (name, value) in
        [(POLICY, format!("\"caller\";q={limit};w=60")), (LEFT, format!("\"caller\";r={left};t={}", seconds(full_in)))]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// Rounded up, as `Retry-After` is: whoever comes at the very second must find what it was promised.
fn seconds(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_read_as_the_draft_has_them() {
        for (full_in, expected) in [(0, 1), (1, 1), (1_999, 2), (2_000, 2), (59_001, 60)] {
            let mut headers = HeaderMap::new();
            tell(&mut headers, RateLimitStatus { limit: 600, left: 587, full_in: Duration::from_millis(full_in) });
            assert_eq!(headers["ratelimit-policy"], "\"caller\";q=600;w=60");
            assert_eq!(headers["ratelimit"], format!("\"caller\";r=587;t={expected}"));
        }
    }
}
