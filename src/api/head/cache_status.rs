//! `Cache-Status` (RFC 9211) of answers with a window. Errors have theirs from `edge/cache_status.rs`.
//!
//! | parameter | meaning here |
//! | --- | --- |
//! | `hit`, `fwd`, `collapsed` | [`Outcome`] |
//! | `fwd-status` | 200 where Kore was asked: without it, the status of the answer would be taken for Kore's, also that of a 304. Absent in a streamed answer, whose calls are still to be made |
//! | `ttl` | seconds until the first part of the window is fetched again. [`SETTLED_TTL`] for settled windows, which have no end |
//! | `detail` | chunks, hits, and upstream calls charged to the answer |

use std::fmt;
use std::fmt::Write as _;

use http::HeaderValue;

use crate::cache::{Cost, Outcome, WindowAnswer};
use crate::window::Timestamp;

/// `ttl` of a settled window, in seconds: a year. It stays fresh for good, and the field has no word for that.
const SETTLED_TTL: i64 = 365 * 24 * 3600;
/// Bytes of nearly all values.
const CAPACITY: usize = 128;

/// `Cache-Status` of a complete answer at `now`.
pub(in crate::api) fn cache_status(window: &WindowAnswer, now: Timestamp) -> HeaderValue {
    let WindowAnswer { outcome, chunks, hits, calls, .. } = *window;
    let fwd_status = if outcome == Outcome::Hit { "" } else { "; fwd-status=200" };
    status(outcome, fwd_status, ttl(window, now), format_args!("chunks={chunks} hits={hits} calls={calls}"))
}

/// `Cache-Status` of a streamed answer at `now`.
pub(in crate::api) fn streamed_cache_status(window: &WindowAnswer, now: Timestamp) -> HeaderValue {
    status(window.outcome, "", ttl(window, now), format_args!("streamed"))
}

/// `Cache-Status` of HEAD for a window that is not cached as a whole: what GET would do.
pub(in crate::api) fn expected_status(cost: &Cost) -> HeaderValue {
    let Cost { outcome, chunks, hits, .. } = *cost;
    status(outcome, "", None, format_args!("chunks={chunks} hits={hits} calls=0"))
}

fn status(outcome: Outcome, fwd_status: &str, ttl: Option<i64>, detail: fmt::Arguments<'_>) -> HeaderValue {
    let handling = match outcome {
        Outcome::Hit => "hit",
        Outcome::Miss => "fwd=miss",
        Outcome::Partial => "fwd=partial",
        Outcome::Stale => "fwd=stale",
        Outcome::Collapsed => "fwd=miss; collapsed",
        Outcome::Bypass => "fwd=bypass",
    };
    let mut status = String::with_capacity(CAPACITY);
    for part in ["koregate; ", handling, fwd_status] {
        status.push_str(part);
    }
    // Writing to a string does not fail.
    if let Some(ttl) = ttl {
        let _ = write!(status, "; ttl={ttl}");
    }
    let _ = write!(status, "; detail=\"{detail}\"");
    HeaderValue::try_from(status).unwrap_or(HeaderValue::from_static("koregate"))
}

/// The seconds for which the window stays fresh, rounded down; negative if it is stale. `None` for an empty window that
/// has not settled.
fn ttl(window: &WindowAnswer, now: Timestamp) -> Option<i64> {
    match window.fresh_until {
        Some(until) => Some((until.as_nanos().saturating_sub(now.as_nanos())).div_euclid(1_000_000_000)),
        None if window.settled => Some(SETTLED_TTL),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::ItemSlice;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn window(outcome: Outcome, fresh_until: Option<Timestamp>, settled: bool) -> WindowAnswer {
        WindowAnswer {
            items: ItemSlice { slices: Vec::new(), count: 0, has_more: false },
            rest: None,
            settled,
            validity: None,
            oldest_entry: None,
            fresh_until,
            outcome,
            chunks: 3,
            hits: 2,
            calls: 1,
        }
    }

    #[test]
    fn status_has_ttl_and_the_status_of_a_forwarded_request() {
        let detail = "detail=\"chunks=3 hits=2 calls=1\"";
        for (window, expected) in [
            (window(Outcome::Hit, None, true), format!("koregate; hit; ttl=31536000; {detail}")),
            (window(Outcome::Hit, None, false), format!("koregate; hit; {detail}")),
            (
                window(Outcome::Collapsed, Some(NOW + Duration::from_millis(29_999)), false),
                format!("koregate; fwd=miss; collapsed; fwd-status=200; ttl=29; {detail}"),
            ),
            (
                window(Outcome::Stale, Some(NOW - Duration::from_millis(1)), false),
                format!("koregate; fwd=stale; fwd-status=200; ttl=-1; {detail}"),
            ),
        ] {
            assert_eq!(cache_status(&window, NOW), expected);
        }
        let streamed = streamed_cache_status(&window(Outcome::Miss, None, true), NOW);
        assert_eq!(streamed, "koregate; fwd=miss; ttl=31536000; detail=\"streamed\"");
    }
}
