//! Rolling limits, counted exactly: every arrival is kept, and nothing is estimated.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::profile::RollingLimit;

/// Arrivals are kept at least this long, so that limits that are set at runtime see earlier calls.
const MIN_RETENTION: Duration = Duration::from_hours(1);

/// The arrivals of one account that count against its limits, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ArrivalLog(VecDeque<Instant>);

/// The reason why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitExceeded {
    /// The interval of the longest limit that is exceeded: Kore reports the hourly limit until it clears.
    pub(crate) per: Duration,
    /// The time until a call would pass if no other arrived.
    pub(crate) clears_in: Duration,
}

/// The state of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitUsage {
    pub(crate) requests: usize,
    pub(crate) remaining: usize,
    /// The time until `remaining` grows; zero if no call is counted.
    pub(crate) resets_in: Duration,
}

impl ArrivalLog {
    /// Counts an arrival at `now`. The call passes if, including it, no interval of any limit holds more calls than the
    /// limit allows.
    ///
    /// A call that arrived exactly `per` ago is outside the interval. A refused call is kept only if `count_refused`.
    pub(crate) fn record(
        &mut self,
        now: Instant,
        limits: &[RollingLimit],
        count_refused: bool,
    ) -> Result<(), LimitExceeded> {
        let retention = limits.iter().map(|limit| limit.per).max().unwrap_or_default().max(MIN_RETENTION);
        while self.0.front().is_some_and(|first| now.duration_since(*first) >= retention) {
            self.0.pop_front();
        }
        let exceeded = limits.iter().filter_map(|limit| self.exceeded(now, *limit));
        let worst = exceeded.reduce(|one, other| LimitExceeded {
            per: one.per.max(other.per),
            clears_in: one.clears_in.max(other.clears_in),
        });
        if worst.is_none() || count_refused {
            self.0.push_back(now);
        }
        worst.map_or(Ok(()), Err)
    }

    /// The state of the shortest of `limits` at `now`.
    pub(crate) fn usage(&self, now: Instant, limits: &[RollingLimit]) -> Option<LimitUsage> {
        let limit = *limits.iter().min_by_key(|limit| limit.per)?;
        let expired = self.expired(now, limit);
        let oldest = self.0.get(expired).map(|arrived| limit.per.saturating_sub(now.duration_since(*arrived)));
        let resets_in = self.exceeded(now, limit).map(|exceeded| exceeded.clears_in).or(oldest).unwrap_or_default();
        let remaining = limit.requests.saturating_sub(self.0.len() - expired);
        Some(LimitUsage { requests: limit.requests, remaining, resets_in })
    }

    /// The number of arrivals that are outside the interval of `limit`.
    fn expired(&self, now: Instant, limit: RollingLimit) -> usize {
        self.0.partition_point(|arrived| now.duration_since(*arrived) >= limit.per)
    }

    fn exceeded(&self, now: Instant, limit: RollingLimit) -> Option<LimitExceeded> {
        let counted = self.0.len() - self.expired(now, limit);
        if counted < limit.requests {
            return None;
        }
        // A call passes once at most `requests - 1` of the counted arrivals are left in the interval.
        let last_to_expire = self.0.len() - limit.requests.min(counted).max(1);
        let clears_in = self
            .0
            .get(last_to_expire)
            .map_or(limit.per, |arrived| limit.per.saturating_sub(now.duration_since(*arrived)));
        Some(LimitExceeded { per: limit.per, clears_in })
    }
}

/// Kore's error text for an exceeded limit with this interval.
pub(crate) fn error_text(per: Duration) -> &'static str {
    match per.as_secs() {
        60 => "You've exceeded the per-minute rate limit. Please wait for sometime before retrying.",
        3_600 => "You've exceeded the hourly rate limit. Please wait for sometime before retrying.",
        _ => "Rate limit for this API has been reached. Please try again after some time.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_limits_at_their_edges_are_exact() {
        let limits = [RollingLimit::new(2, Duration::from_secs(10)), RollingLimit::new(3, Duration::from_mins(1))];
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut log = ArrivalLog::default();
        let mut record = |seconds| log.record(at(seconds), &limits, false);

        assert_eq!(record(0), Ok(()));
        assert_eq!(record(1), Ok(()));
        let short = LimitExceeded { per: Duration::from_secs(10), clears_in: Duration::from_secs(1) };
        assert_eq!(record(9), Err(short));
        assert_eq!(record(10), Ok(()), "the first call expires exactly now");
        let long = LimitExceeded { per: Duration::from_mins(1), clears_in: Duration::from_secs(1) };
        assert_eq!(record(59), Err(long));
        assert_eq!(record(60), Ok(()));
    }

    #[test]
    fn usage_of_several_limits_is_that_of_the_shortest() {
        let limits = [RollingLimit::new(3, Duration::from_mins(1)), RollingLimit::new(2, Duration::from_secs(10))];
        let start = Instant::now();
        let mut log = ArrivalLog::default();
        let mut usage = |arrives, seconds| {
            let now = start + Duration::from_secs(seconds);
            if arrives {
                log.record(now, &limits, true).ok();
            }
            log.usage(now, &limits).map(|usage| (usage.remaining, usage.resets_in.as_secs()))
        };
        assert_eq!(usage(false, 0), Some((2, 0)));
        assert_eq!([usage(true, 0), usage(true, 3)], [Some((1, 10)), Some((0, 7))]);
        assert_eq!(usage(true, 4), Some((0, 9)), "two of three calls must expire");
        assert_eq!(usage(false, 11), Some((0, 2)));
        assert_eq!(ArrivalLog::default().usage(start, &[]), None);
    }

    #[test]
    fn refused_calls_with_count_refused_delay_the_next_call() {
        let limits = [RollingLimit::new(1, Duration::from_secs(10))];
        let start = Instant::now();
        let mut log = ArrivalLog::default();
        for seconds in [0, 5, 12] {
            let passes = log.record(start + Duration::from_secs(seconds), &limits, true).is_ok();
            assert_eq!(passes, seconds == 0, "the refusal at 5 s delays the call at 12 s");
        }
    }
}
