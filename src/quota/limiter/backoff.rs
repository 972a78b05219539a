//! Backoff: pauses after the upstream has refused a call for its quota, and probes meanwhile. Pure: time is an
//! argument.

use std::time::Duration;

use super::ledger::MonotonicTime;
use crate::config::QuotaLimit;
use crate::upstream::SpentLimit;

/// Shortest pause after a refusal that names none, however many calls the limits allow.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Interval of probes: during a longer pause, one call is sent in each interval. Also the longest pause after a refusal
/// that names none.
pub(in crate::quota) const PROBE_INTERVAL: Duration = Duration::from_mins(2);
/// Longest pause that is kept even if all windows are shorter: the upstream may have another reason than the limits.
const MAX_UNCHECKED_PAUSE: Duration = Duration::from_mins(1);

/// State of the pause of one account.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::quota) struct Backoff {
    /// End of the pause; only probes are sent before.
    until: MonotonicTime,
    /// Time at which the upstream last asked for a pause.
    since: MonotonicTime,
    /// Time of the next probe.
    probe_at: MonotonicTime,
    /// Refusals in a row, since the upstream last answered with a page.
    refusals: u32,
    /// Time of the last refusal that was counted.
    refused_at: MonotonicTime,
}

impl Backoff {
    /// The earliest time at which a call may begin: the end of the pause, or the next probe.
    pub(in crate::quota) fn opens_at(&self) -> MonotonicTime {
        self.until.min(self.probe_at)
    }

    /// The end of the pause; not later than `now` if there is none.
    pub(in crate::quota) fn until(&self) -> MonotonicTime {
        self.until
    }

    /// Whole length of the present pause, and the part of it that is left; `None` if there is none.
    pub(in crate::quota) fn pause(&self, now: MonotonicTime) -> Option<(Duration, Duration)> {
        (self.until > now).then(|| (self.until.saturating_sub(self.since), self.until.saturating_sub(now)))
    }

    /// Records that a call begins. During a pause it is a probe, and the next one is due an interval later.
    pub(in crate::quota) fn begin(&mut self, now: MonotonicTime) {
        if now < self.until {
            self.probe_at = now + PROBE_INTERVAL;
        }
    }

    /// Records that a call that began at `began` was answered with a page: if it began during the pause, that ends.
    pub(in crate::quota) fn answered(&mut self, now: MonotonicTime, began: MonotonicTime) {
        if began >= self.refused_at {
            self.refusals = 0;
        }
        if began > self.since {
            self.until = self.until.min(now);
        }
    }

    /// Records that a call that began at `began` was refused. Returns whether that is the first of refusals in a row.
    ///
    /// A call that was in flight at the time of the last refusal is not counted: it was refused for the same reason.
    pub(in crate::quota) fn refused(&mut self, now: MonotonicTime, began: MonotonicTime) -> bool {
        let is_news = began >= self.refused_at;
        let is_first = is_news && self.refusals == 0;
        if is_news {
            self.refusals = self.refusals.saturating_add(1);
            self.refused_at = now;
        }
        is_first
    }

    /// Pause after a refusal: the time that the upstream `asked` for, or one call's share of the window, doubled with
    /// each refusal in a row. A pause of more than a minute is cut to the longest window, because by then every call
    /// that counts now has left its window.
    pub(in crate::quota) fn pause_after(
        &self,
        limits: &[QuotaLimit],
        named: SpentLimit,
        asked: Option<Duration>,
    ) -> Duration {
        let default = self.default_pause(limits, named);
        let bounded = |asked: Duration| if asked <= MAX_UNCHECKED_PAUSE { asked } else { asked.min(longest(limits)) };
        match asked.map(bounded) {
            Some(asked) if self.refusals <= 1 => asked,
            Some(asked) => asked.max(default),
            None => default,
        }
    }

    fn default_pause(&self, limits: &[QuotaLimit], named: SpentLimit) -> Duration {
        let by_length = |limit: &&QuotaLimit| limit.per;
        let limit = match named {
            SpentLimit::Hour => limits.iter().max_by_key(by_length),
            SpentLimit::Minute | SpentLimit::Unnamed => limits.iter().min_by_key(by_length),
        };
        let Some(limit) = limit else { return MIN_PAUSE };
        let share = (limit.per / limit.requests).max(MIN_PAUSE);
        share.saturating_mul(1 << self.refusals.saturating_sub(1).min(20)).min(limit.per).min(PROBE_INTERVAL)
    }

    /// Begins a pause that the answer to a call asks for. The call began at `began`.
    ///
    /// The answer to a probe replaces the pause; any other answer can only make it longer.
    pub(in crate::quota) fn close(&mut self, now: MonotonicTime, began: MonotonicTime, pause: Duration) {
        let until = now + pause;
        self.until = if began > self.since { until } else { self.until.max(until) };
        (self.since, self.probe_at) = (now, now + PROBE_INTERVAL);
    }
}

/// Longest window of `limits`.
pub(in crate::quota) fn longest(limits: &[QuotaLimit]) -> Duration {
    limits.iter().map(|limit| limit.per).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const LIMITS: [QuotaLimit; 2] =
        [QuotaLimit { requests: 60, per: Duration::from_mins(1) }, QuotaLimit { requests: 1800, per: HOUR }];

    fn seconds(seconds: u64) -> MonotonicTime {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pause_asked_for_is_cut_to_longest_window() {
        let mut backoff = Backoff::default();
        backoff.refused(seconds(10), seconds(9));
        for (asked, pause) in [(7, 7), (3600, 3600), (86_400, 3600), (1_000_000_000_000, 3600)] {
            assert_eq!(backoff.pause_after(&LIMITS, SpentLimit::Unnamed, Some(seconds(asked))), seconds(pause));
        }
        let short = [QuotaLimit { requests: 60, per: seconds(10) }];
        for (asked, pause) in [(30, 30), (60, 60), (1_000_000_000_000, 10)] {
            assert_eq!(backoff.pause_after(&short, SpentLimit::Unnamed, Some(seconds(asked))), seconds(pause));
        }
    }

    #[test]
    fn probe_answered_with_page_ends_pause() {
        let mut backoff = Backoff::default();
        backoff.close(seconds(100), seconds(99), HOUR);
        assert_eq!(backoff.pause(seconds(101)), Some((HOUR, seconds(3599))));
        // A call that was in flight when the pause began does not end it.
        backoff.answered(seconds(101), seconds(100));
        assert_eq!(backoff.opens_at(), seconds(100) + PROBE_INTERVAL);
        backoff.begin(seconds(220));
        assert_eq!(backoff.opens_at(), seconds(340), "one call only");
        backoff.answered(seconds(221), seconds(220));
        assert!(backoff.opens_at() <= seconds(221) && backoff.pause(seconds(221)).is_none());
    }

    #[test]
    fn probe_refused_for_shorter_time_shortens_pause() {
        let mut backoff = Backoff::default();
        backoff.close(seconds(100), seconds(99), HOUR);
        backoff.close(seconds(101), seconds(99), seconds(5));
        assert_eq!(backoff.until(), seconds(3700), "a call that was in flight does not");
        backoff.begin(seconds(221));
        backoff.close(seconds(222), seconds(221), seconds(5));
        assert_eq!(backoff.opens_at(), seconds(227));
    }

    proptest! {
        /// Whatever the upstream answers, a call may begin within one interval of probes.
        #[test]
        fn pause_of_any_length_admits_probe_within_interval(
            answers in prop::collection::vec((0u64..4000, 0u64..60, prop::option::of(any::<u32>())), 1..40),
        ) {
            let (mut backoff, mut now) = (Backoff::default(), seconds(100));
            for (wait, took, asked) in answers {
                now += seconds(wait);
                let opens = backoff.opens_at();
                prop_assert!(opens <= now + PROBE_INTERVAL);
                now = now.max(opens);
                backoff.begin(now);
                let began = now;
                now += seconds(took);
                match asked {
                    Some(asked) => {
                        backoff.refused(now, began);
                        let asked = Some(Duration::from_secs(asked.into()));
                        let pause = backoff.pause_after(&LIMITS, SpentLimit::Unnamed, asked);
                        backoff.close(now, began, pause);
                    }
                    None => backoff.answered(now, began),
                }
                prop_assert!(backoff.until() <= now + HOUR);
            }
        }
    }
}
