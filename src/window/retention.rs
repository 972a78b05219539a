//! Retention: which data is too old to be served, kept or fetched, and how a window that begins before it is cut.

use std::time::Duration;

use super::{Bound, Interval, Timestamp};

/// How long data is kept: whole seconds, more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention(pub Duration);

/// A window within a retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedWindow {
    /// All of the window is retained, or all that a date-only `from` on the day of the limit stands for.
    Whole(Interval),
    /// The part of the window that is retained, which may be empty; its beginning is not.
    Cut(Interval),
}

impl Retention {
    /// The earliest time that is retained at `now`, on a whole second: data before it is too old.
    pub fn since(self, now: Timestamp) -> Timestamp {
        (now - self.0).floor_second()
    }

    /// The time at which data at `start` becomes too old.
    pub fn end_of(self, start: Timestamp) -> Timestamp {
        start.floor_second() + self.0 + Duration::from_secs(1)
    }

    /// The retained part of a window of a caller's `from` at `now`.
    ///
    /// A date-only `from` names a day as far as there is data of it, as a date-only `to` does on the day of `now`: on
    /// the day of the limit it begins at the limit, unless all of the window lies before that. So the earliest day stays
    /// valid until midnight, while the limit itself moves on with each second.
    pub fn cut(self, from: Bound, window: Interval, now: Timestamp) -> RetainedWindow {
        let since = self.since(now);
        let retained = window.split_at(since).1;
        let is_limit_day = matches!(from, Bound::Day(midnight) if since < window.end.min(midnight + DAY));
        if window.start >= since || is_limit_day {
            RetainedWindow::Whole(retained)
        } else {
            RetainedWindow::Cut(retained)
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::UpperBound;

    fn bound(text: &str) -> Bound {
        Bound::parse(text).unwrap()
    }

    fn cut(from: &str, to: &str) -> RetainedWindow {
        let now = bound("2026-02-25T14:00:30").start() + Duration::from_millis(700);
        let window = UpperBound::Exclusive.enclosed(bound(from), bound(to));
        Retention(30 * DAY).cut(bound(from), window, now)
    }

    #[test]
    fn window_is_cut_at_the_second_of_the_limit() {
        let (since, end) = (bound("2026-01-26T14:00:30").start(), bound("2026-01-28T00:00:00").start());
        let (whole, to) = (Interval::new(since, end), "2026-01-28T00:00:00");
        assert_eq!(cut("2026-01-26T14:00:30", to), RetainedWindow::Whole(whole));
        assert_eq!(cut("2026-01-26T14:00:29", to), RetainedWindow::Cut(whole));
        assert_eq!(cut("2026-01-25", to), RetainedWindow::Cut(whole));
        assert_eq!(cut("2026-01-26", to), RetainedWindow::Whole(whole), "the limit day, as far as it is retained");
        for (from, to) in [("2026-01-24", "2026-01-25"), ("2026-01-26", "2026-01-26T14:00:30")] {
            assert!(matches!(cut(from, to), RetainedWindow::Cut(nothing) if nothing.is_empty()), "{from} {to}");
        }
    }

    proptest! {
        /// The naive model judges one second at a time.
        #[test]
        fn second_is_served_while_it_is_young_enough(
            now_ms in 0i64..400_000_000, keep in 1i64..200_000, start in 0i64..400_000, length in 1i64..200, day: bool
        ) {
            let (now, retention) = (Timestamp::from_millis(now_ms), Retention(Duration::from_secs(keep.unsigned_abs())));
            let start = if day { start / 86_400 * 86_400 } else { start };
            let (first, end) = (Timestamp::from_seconds(start), Timestamp::from_seconds(start + length));
            let from = if day { Bound::Day(first) } else { Bound::Second(first) };
            let is_retained = |second: i64| second >= now_ms.div_euclid(1000) - keep;
            let (retained, is_cut) = match retention.cut(from, Interval::new(first, end), now) {
                RetainedWindow::Whole(interval) => (interval, false),
                RetainedWindow::Cut(interval) => (interval, true),
            };
            for second in start - 1..=start + length {
                let is_asked = (start..start + length).contains(&second);
                let is_served = retained.contains(Timestamp::from_seconds(second));
                prop_assert_eq!(is_served, is_asked && is_retained(second));
            }
            let is_whole = is_retained(start) || (day && is_retained(start + 86_399.min(length - 1)));
            prop_assert_eq!(is_cut, !is_whole);
            let last = retention.end_of(first) - Duration::from_nanos(1);
            prop_assert!(retention.since(last) <= first && first < retention.since(retention.end_of(first)));
        }
    }
}
