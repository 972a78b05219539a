//! The expected time to the end: pure. The gateway's forecast knows the quota, the calls so far know how fast Kore is,
//! and the parts so far know how fast they are read. Nothing is said before there is a forecast.

use std::time::Duration;

/// The rest to fetch, as the gateway expects it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Forecast {
    /// The time at which it was made, since the start.
    pub(super) made_at: Duration,
    /// The number of calls made until then.
    pub(super) calls_before: u64,
    /// The number of calls to come.
    pub(super) calls: u64,
    /// The time that they wait for the quota.
    pub(super) wait: Duration,
}

/// The work done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// The number of calls made.
    pub(super) calls: u64,
    /// The time that requests took which made calls.
    pub(super) fetching: Duration,
    /// The number of parts that were read.
    pub(super) parts: u64,
    /// The time that reading them took.
    pub(super) reading: Duration,
}

/// The expected time to the end at `now` (since the start), with `parts_left` parts to read.
pub(super) fn time_left(forecast: Option<Forecast>, pace: Pace, parts_left: u64, now: Duration) -> Option<Duration> {
    let forecast = forecast?;
    let by_quota = forecast.wait.saturating_sub(now.saturating_sub(forecast.made_at));
    let calls_left = forecast.calls.saturating_sub(pace.calls.saturating_sub(forecast.calls_before));
    let fetching = by_quota.max(scale(pace.fetching, calls_left, pace.calls));
    Some(fetching + scale(pace.reading, parts_left, pace.parts))
}

/// `time` for `count` things, if it was taken by `by`; zero if nothing is known.
fn scale(time: Duration, count: u64, by: u64) -> Duration {
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    time.checked_div(by).unwrap_or_default().saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn no_forecast_is_no_expectation() {
        assert_eq!(time_left(None, Pace::default(), 10, seconds(1)), None);
    }

    #[test]
    fn quota_bounds_the_end_until_calls_are_slower() {
        let forecast = Forecast { made_at: seconds(100), calls_before: 50, calls: 1000, wait: seconds(2000) };
        let fast = Pace { calls: 50, fetching: seconds(50), ..Pace::default() };
        assert_eq!(time_left(Some(forecast), fast, 0, seconds(100)), Some(seconds(2000)));
        assert_eq!(time_left(Some(forecast), fast, 0, seconds(160)), Some(seconds(1940)), "time passes");
        let slow = Pace { calls: 150, fetching: seconds(600), ..Pace::default() };
        assert_eq!(time_left(Some(forecast), slow, 0, seconds(160)), Some(seconds(900 * 4)));
    }

    #[test]
    fn cached_parts_take_their_reading_time() {
        let forecast = Forecast { made_at: seconds(0), calls_before: 0, calls: 0, wait: seconds(0) };
        let pace = Pace { parts: 10, reading: seconds(20), ..Pace::default() };
        assert_eq!(time_left(Some(forecast), pace, 5, seconds(20)), Some(seconds(10)));
    }
}
