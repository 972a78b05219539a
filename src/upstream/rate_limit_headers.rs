//! The rate-limit headers of upstream answers (`X-RateLimit-*`).

use std::time::Duration;

use http::HeaderMap;

use crate::window::Timestamp;

/// Spellings of the headers, the most common first. Kore documents none; a proxy in front of Kore may add them.
///
/// The last spelling is that of the older drafts, three headers with a plain number each. The structured field
/// `RateLimit` of later drafts is ignored.
const SPELLINGS: [[&str; 3]; 3] = [
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"],
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
];

/// The state of one rolling limit according to one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitHeader {
    /// The limit, in calls.
    pub limit: Option<u32>,
    /// Calls left.
    pub remaining: u32,
    /// Time until more calls are granted; at most a day.
    pub reset: Option<Duration>,
}

impl RateLimitHeader {
    /// Parses the headers of an answer that arrived at `now`; `None` if they are missing or contradictory.
    pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> Option<Self> {
        SPELLINGS.iter().find_map(|[limit, remaining, reset]| {
            let remaining = u32::try_from(number(headers, remaining)?).ok()?;
            let limit = number(headers, limit).and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
            // More calls left than the limit allows: neither number can be trusted.
            let sane = limit.is_none_or(|limit| remaining <= limit);
            let reset = number(headers, reset).map(|reset| until(reset, now));
            sane.then_some(Self { limit, remaining, reset })
        })
    }

    /// The wait that these headers imply for a refused call.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.reset.filter(|_| self.remaining == 0)
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// A reset is given as seconds to wait, or as a time in seconds or milliseconds since the epoch. The three differ so
/// much in size that they cannot be confused: no wait is as long as 30 years, and no time in milliseconds lies before
/// 1973.
fn until(reset: u64, now: Timestamp) -> Duration {
    let signed = i64::try_from(reset).unwrap_or(i64::MAX);
    let wait = match reset {
        0..1_000_000_000 => Duration::from_secs(reset),
        1_000_000_000..100_000_000_000 => Timestamp::from_seconds(signed).since(now),
        _ => Timestamp::from_millis(signed).since(now),
    };
    wait.min(Duration::from_hours(24))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<RateLimitHeader> {
        let named = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let now = "2026-11-22T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        RateLimitHeader::read(&headers.iter().map(named).collect(), now)
    }

    #[test]
    fn each_header_spelling_is_parsed() {
        for [limit, remaining, reset] in SPELLINGS {
            let told = RateLimitHeader { limit: Some(60), remaining: 7, reset: Some(Duration::from_secs(9)) };
            assert_eq!(read(&[(limit, "60"), (remaining, "7"), (reset, "9")]), Some(told), "{limit}");
        }
    }

    #[test]
    fn reset_format_follows_its_size() {
        for (reset, seconds) in [
            ("0", Some(0)),
            ("59", Some(59)),
            ("1795341609", Some(9)),
            ("1795341609000", Some(9)),
            ("1795341000", Some(0)),
            ("99999999", Some(24 * 3600)),
            ("18446744073709551615", Some(24 * 3600)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let told = read(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)]).unwrap();
            assert_eq!(told.reset, seconds.map(Duration::from_secs), "{reset}");
        }
    }

    #[test]
    fn contradictory_headers_are_ignored() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("x-ratelimit-limit", "60"), ("x-ratelimit-reset", "1")]), None);
        for remaining in ["", "many", "-1", "7;w=60", "4294967296"] {
            assert_eq!(read(&[("x-ratelimit-remaining", remaining)]), None, "{remaining}");
        }
        assert_eq!(read(&[("x-ratelimit-limit", "60"), ("x-ratelimit-remaining", "61")]), None);
        assert_eq!(read(&[("ratelimit-limit", "100;w=60"), ("ratelimit-remaining", "1")]).unwrap().limit, None);
    }
}
