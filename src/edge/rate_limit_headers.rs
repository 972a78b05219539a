//! The response fields `RateLimit-Policy` and `RateLimit`, from which a caller learns how much of its own limit and of
//! Kore's limits is left before it runs into a 429 or a 503.
//!
//! They are structured fields (RFC 9651) as in draft-ietf-httpapi-ratelimit-headers-11: lists of the names of policies.
//!
//! | field | parameter | meaning |
//! | --- | --- | --- |
//! | `RateLimit-Policy` | `q` | the quota: requests, or calls to Kore, that a window of the length `w` may hold |
//! | | `w` | the window, in seconds |
//! | `RateLimit` | `r` | what is left of the quota now |
//! | | `t` | the seconds until one more is left; absent if the whole quota is |
//!
//! `t` is not the time until the quota is whole. Both kinds of limits roll, so that more becomes available long before a
//! window has passed: a client that has spent 600 requests of 600 a minute need not wait 60 s, but 0.1 s.
//!
//! `"caller"` is the caller's own limit: requests to koregate, over all keys of the caller. It is on each answer to a
//! known caller. `"kore-minute"`, `"kore-hour"` and the like are the rolling limits of the account, in calls to Kore,
//! which all callers share. They are on answers that have spent calls or could not spend any; a hit has none, because
//! they have nothing to do with it.
//!
//! The fields are hints: nothing is reserved. Where `Retry-After` is sent too, it takes precedence.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::request::{RateLimitStatus, UpstreamLimit};
use crate::units::ceil_seconds;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The policy of the caller's own limit.
pub(super) const CALLER_POLICY: &str = "caller";
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The name of the policy of a rolling limit of Kore's, by the length of its window: `kore-minute`, `kore-hour`, or the
/// length, as in `kore-90s` and `kore-1500ms`.
pub(super) fn upstream_policy(per: Duration) -> String {
    match per {
        MINUTE => "kore-minute".to_owned(),
        HOUR => "kore-hour".to_owned(),
        _ if per.subsec_nanos() == 0 => format!("kore-{}s", per.as_secs()),
        _ => format!("kore-{}ms", per.as_millis()),
    }
}

/// A policy and its state.
struct Policy {
    name: String,
    quota: u32,
    window: Duration,
    remaining: u32,
    more_in: Option<Duration>,
}

impl From<RateLimitStatus> for Policy {
    fn from(RateLimitStatus { limit, left, more_in, full_in: _ }: RateLimitStatus) -> Self {
        Self { name: CALLER_POLICY.to_owned(), quota: limit, window: MINUTE, remaining: left, more_in }
    }
}

impl From<&UpstreamLimit> for Policy {
    fn from(UpstreamLimit { requests, per, remaining, more_in }: &UpstreamLimit) -> Self {
        let (quota, window, remaining, more_in) = (*requests, *per, *remaining, *more_in);
        Self { name: upstream_policy(window), quota, window, remaining, more_in }
    }
}

/// Adds both fields, unless there is no policy.
pub(super) fn add_rate_limit_fields(
    headers: &mut HeaderMap,
    caller: Option<RateLimitStatus>,
    upstream: &[UpstreamLimit],
) {
    if caller.is_none() && upstream.is_empty() {
        return;
    }
    let (mut policies, mut states) = (String::new(), String::new());
    for policy in caller.map(Policy::from).into_iter().chain(upstream.iter().map(Policy::from)) {
        let Policy { name, quota, window, remaining, more_in } = policy;
        let separator = if policies.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={}", ceil_seconds(window));
        let _ = write!(states, "{separator}\"{name}\";r={remaining}");
        if let Some(more_in) = more_in {
            let _ = write!(states, ";t={}", ceil_seconds(more_in));
        }
    }
    for (name, value) in [(RATELIMIT_POLICY, policies), (RATELIMIT, states)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(caller: Option<RateLimitStatus>, upstream: &[UpstreamLimit]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        add_rate_limit_fields(&mut headers, caller, upstream);
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        text("ratelimit-policy").zip(text("ratelimit"))
    }

    fn caller(left: u32, more_in: Option<u64>) -> RateLimitStatus {
        let full_in = Duration::from_secs(59);
        RateLimitStatus { limit: 600, left, more_in: more_in.map(Duration::from_millis), full_in }
    }

    fn upstream(per: u64, remaining: u32, more_in: Option<u64>) -> UpstreamLimit {
        let per = Duration::from_millis(per);
        UpstreamLimit { requests: 60, per, remaining, more_in: more_in.map(Duration::from_millis) }
    }

    #[test]
    fn time_until_more_is_rounded_up_to_whole_seconds() {
        for (more_in, expected) in [(0, 1), (1, 1), (100, 1), (1_999, 2), (2_000, 2), (59_001, 60)] {
            let (policy, state) = fields(Some(caller(587, Some(more_in))), &[]).unwrap();
            assert_eq!(policy, "\"caller\";q=600;w=60");
            assert_eq!(state, format!("\"caller\";r=587;t={expected}"));
        }
    }

    #[test]
    fn each_limit_is_a_policy_of_the_lists() {
        let limits = [upstream(60_000, 12, Some(3_100)), upstream(3_600_000, 60, None), upstream(90_000, 0, Some(1))];
        let (policy, state) = fields(Some(caller(600, None)), &limits).unwrap();
        assert_eq!(
            policy,
            "\"caller\";q=600;w=60, \"kore-minute\";q=60;w=60, \"kore-hour\";q=60;w=3600, \"kore-90s\";q=60;w=90"
        );
        assert_eq!(state, "\"caller\";r=600, \"kore-minute\";r=12;t=4, \"kore-hour\";r=60, \"kore-90s\";r=0;t=1");
        let (policy, _) = fields(None, &[upstream(1_500, 1, None)]).unwrap();
        assert_eq!(policy, "\"kore-1500ms\";q=60;w=2");
    }

    #[test]
    fn answer_without_a_policy_has_no_fields() {
        assert_eq!(fields(None, &[]), None);
    }
}
