//! Rolling limits, counted exactly: each arrival is kept, none is estimated.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::profile::Limit;

/// Arrivals are kept at least this long, so that limits set while it runs know their past.
const KEPT: Duration = Duration::from_hours(1);

/// The arrivals of one account that count against its limits, oldest first.
#[derive(Debug, Default)]
pub(super) struct RollingLog(VecDeque<Instant>);

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    /// The longest limit that is exceeded: Kore's hourly message stands until the hour clears.
    pub(super) per: Duration,
    /// How long until a call would pass, if no other came.
    pub(super) clears_in: Duration,
}

/// How a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) requests: usize,
    pub(super) remaining: usize,
    /// How long until there are more; zero if there cannot be.
    pub(super) more_in: Duration,
}

impl RollingLog {
    /// Counts an arrival at `now`: it passes if, with it, no span of any limit's length holds more than its `requests`.
    ///
    /// A call that arrived exactly `per` ago has left the span. A refused call is counted only if `count_refused`.
    pub(super) fn arrive(&mut self, now: Instant, limits: &[Limit], count_refused: bool) -> Result<(), Exceeded> {
        let keep = limits.iter().map(|limit| limit.per).max().unwrap_or_default().max(KEPT);
        while self.0.front().is_some_and(|first| now.duration_since(*first) >= keep) {
            self.0.pop_front();
        }
        let broken = limits.iter().filter_map(|limit| self.exceeded(now, *limit));
        let worst = broken.reduce(|one, other| Exceeded {
            per: one.per.max(other.per),
            clears_in: one.clears_in.max(other.clears_in),
        });
        if worst.is_none() || count_refused {
            self.0.push_back(now);
        }
        worst.map_or(Ok(()), Err)
    }

    /// How the shortest of `limits` stands at `now`.
    pub(super) fn standing(&self, now: Instant, limits: &[Limit]) -> Option<Standing> {
        let limit = *limits.iter().min_by_key(|limit| limit.per)?;
        let gone = self.0.partition_point(|arrived| now.duration_since(*arrived) >= limit.per);
        let oldest = self.0.get(gone).map(|arrived| limit.per.saturating_sub(now.duration_since(*arrived)));
        let more_in = self.exceeded(now, limit).map(|exceeded| exceeded.clears_in).or(oldest).unwrap_or_default();
        let remaining = limit.requests.saturating_sub(self.0.len() - gone);
        Some(Standing { requests: limit.requests, remaining, more_in })
    }

    fn exceeded(&self, now: Instant, limit: Limit) -> Option<Exceeded> {
        let gone = self.0.partition_point(|arrived| now.duration_since(*arrived) >= limit.per);
        let held = self.0.len() - gone;
        if held < limit.requests {
            return None;
        }
        // The call passes once all but `requests - 1` of those held have left.
        let last_to_leave = self.0.len() - limit.requests.min(held).max(1);
        let clears_in = self
            .0
            .get(last_to_leave)
            .map_or(limit.per, |arrived| limit.per.saturating_sub(now.duration_since(*arrived)));
        Some(Exceeded { per: limit.per, clears_in })
    }
}

/// Kore's words for an exceeded limit of this length.
pub(super) fn message(per: Duration) -> &'static str {
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
    fn both_limits_are_exact_at_their_edges() {
        let limits = [Limit::new(2, Duration::from_secs(10)), Limit::new(3, Duration::from_mins(1))];
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut log = RollingLog::default();
        let mut arrive = |seconds| log.arrive(at(seconds), &limits, false);

        assert_eq!(arrive(0), Ok(()));
        assert_eq!(arrive(1), Ok(()));
        let minute = Exceeded { per: Duration::from_secs(10), clears_in: Duration::from_secs(1) };
        assert_eq!(arrive(9), Err(minute));
        assert_eq!(arrive(10), Ok(()), "the first has left exactly now");
        let hour = Exceeded { per: Duration::from_mins(1), clears_in: Duration::from_secs(1) };
        assert_eq!(arrive(59), Err(hour));
        assert_eq!(arrive(60), Ok(()));
    }

    #[test]
    fn the_shortest_limit_says_how_it_stands() {
        let limits = [Limit::new(3, Duration::from_mins(1)), Limit::new(2, Duration::from_secs(10))];
        let start = Instant::now();
        let mut log = RollingLog::default();
        let mut stands = |arrives, seconds| {
            let now = start + Duration::from_secs(seconds);
            if arrives {
                log.arrive(now, &limits, true).ok();
            }
            log.standing(now, &limits).map(|standing| (standing.remaining, standing.more_in.as_secs()))
        };
        assert_eq!(stands(false, 0), Some((2, 0)));
        assert_eq!([stands(true, 0), stands(true, 3)], [Some((1, 10)), Some((0, 7))]);
        assert_eq!(stands(true, 4), Some((0, 9)), "of three, two must leave");
        assert_eq!(stands(false, 11), Some((0, 2)));
        assert_eq!(RollingLog::default().standing(start, &[]), None);
    }

    #[test]
    fn refused_calls_count_only_when_told_to() {
        let limits = [Limit::new(1, Duration::from_secs(10))];
        let start = Instant::now();
        let mut log = RollingLog::default();
        for seconds in [0, 5, 12] {
            let passes = log.arrive(start + Duration::from_secs(seconds), &limits, true).is_ok();
            assert_eq!(passes, seconds == 0, "the refusal at 5 s holds the call at 12 s back");
        }
    }
}
