//! The division of a span into parts, one for each UTC day: pure.
//!
//! A window whose `to` is a date ends exactly at the next midnight, whether the gateway counts an item exactly at `to` or
//! not. So parts that meet at midnight hold each item once and only once, without knowledge of `window.upper_bound`. A
//! `from` always has a time, because a date alone means, with a retention, as much of the day as is retained: a part that
//! is not retained as a whole is refused instead. The parts depend on the span alone: the same span has the same parts,
//! whatever is cached and whenever it is fetched.

use std::fmt;
use std::time::Duration;

use crate::window::{Bound, Timestamp};

const DAY: Duration = Duration::from_hours(24);

/// A span of time, as `from` and `to` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Span {
    pub(in crate::cli) from: Bound,
    pub(in crate::cli) to: Bound,
}

/// The part of a span that lies on one UTC day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Part {
    /// The day.
    pub(in crate::cli) day: Bound,
    /// The window of the part.
    pub(in crate::cli) window: Span,
}

impl Span {
    /// Reads `from` and `to`.
    ///
    /// # Errors
    /// A sentence that names the flag, if one is malformed, or `from` lies after `to`.
    pub(in crate::cli) fn parse(from: &str, to: &str) -> Result<Self, String> {
        let read = |flag: &str, text: &str| {
            Bound::parse(text).ok_or_else(|| format!("{flag}: write it like 2026-02-25 or 2026-02-25T12:00:00 (UTC)"))
        };
        let span = Self { from: read("--from", from)?, to: read("--to", to)? };
        if span.end() <= span.from.start() { Err("--from lies after --to".to_owned()) } else { Ok(span) }
    }

    /// The first moment after the span, if an item exactly at `to` belongs to it.
    pub(in crate::cli) fn end(&self) -> Timestamp {
        match self.to {
            Bound::Day(midnight) => midnight + DAY,
            Bound::Second(at) | Bound::Fraction(at) => at.next_tick(),
        }
    }

    /// The length of the span.
    pub(in crate::cli) fn length(&self) -> Duration {
        self.end().since(self.from.start())
    }

    /// The span without what lies after `now`; `None` if all of it does.
    pub(in crate::cli) fn until(&self, now: Timestamp) -> Option<Self> {
        if self.end() <= now {
            return Some(*self);
        }
        let to = now.floor_second();
        (self.from.start() <= to).then_some(Self { to: Bound::Second(to), ..*self })
    }

    /// The parts, ascending; together they are the span.
    pub(in crate::cli) fn parts(&self) -> Vec<Part> {
        let (first, last) = (self.from.start().floor_to(DAY), self.to.start().floor_to(DAY));
        let days = std::iter::successors(Some(first), |day| Some(*day + DAY)).take_while(|day| *day <= last);
        days.map(|day| {
            let from = match self.from {
                Bound::Second(_) | Bound::Fraction(_) if day == first => self.from,
                _ => Bound::Second(day),
            };
            let to = if day == last { self.to } else { Bound::Day(day) };
            Part { day: Bound::Day(day), window: Self { from, to } }
        })
        .collect()
    }
}

impl fmt::Display for Span {
    /// The query of a window: `from=…&to=…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from={}&to={}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::UpperBound;

    fn span(from: &str, to: &str) -> Span {
        Span::parse(from, to).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Bound::parse(text).unwrap().start()
    }

    #[test]
    fn span_over_three_days_has_three_parts() {
        let parts = span("2026-02-23T12:00:00", "2026-02-25T06:00:00").parts();
        let text: Vec<String> = parts.iter().map(|part| format!("{} {}", part.day, part.window)).collect();
        let expected = [
            "2026-02-23 from=2026-02-23-12:00:00&to=2026-02-23",
            "2026-02-24 from=2026-02-24-00:00:00&to=2026-02-24",
            "2026-02-25 from=2026-02-25-00:00:00&to=2026-02-25-06:00:00",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn span_is_cut_at_the_present() {
        let whole = span("2026-02-23", "2026-02-25");
        assert_eq!(whole.until(at("2026-02-26")), Some(whole));
        let cut = whole.until(at("2026-02-24T10:00:00") + Duration::from_millis(1)).unwrap();
        assert_eq!(cut, span("2026-02-23", "2026-02-24T10:00:00"));
        assert_eq!(whole.until(at("2026-02-22T10:00:00")), None);
    }

    #[test]
    fn malformed_span_names_its_flag() {
        for (from, to, flag) in
            [("soon", "2026-02-25", "--from"), ("2026-02-25", "now", "--to"), ("2026-02-26", "2026-02-25", "--from")]
        {
            assert!(Span::parse(from, to).unwrap_err().starts_with(flag), "{from} {to}");
        }
    }

    fn bound() -> impl Strategy<Value = Bound> {
        (0i64..40, 0i64..86_400, any::<bool>()).prop_map(|(day, second, is_date)| {
            let midnight = Timestamp::from_seconds(1_770_000_000).floor_to(DAY) + DAY * u32::try_from(day).unwrap();
            let second = Duration::from_secs(second.unsigned_abs());
            if is_date { Bound::Day(midnight) } else { Bound::Second(midnight + second) }
        })
    }

    proptest! {
        /// With either upper bound, the parts follow each other without a gap and without an overlap.
        #[test]
        fn parts_together_are_the_span(from in bound(), to in bound(), inclusive: bool) {
            let span = Span { from, to };
            prop_assume!(span.end() > span.from.start());
            let upper_bound = if inclusive { UpperBound::Inclusive } else { UpperBound::Exclusive };
            let whole = upper_bound.enclosed(span.from, span.to);
            let parts = span.parts();
            let intervals: Vec<_> = parts.iter().map(|part| upper_bound.enclosed(part.window.from, part.window.to)).collect();
            prop_assert_eq!(intervals[0].start, whole.start);
            prop_assert_eq!(intervals.last().unwrap().end, whole.end);
            prop_assert!(intervals.windows(2).all(|pair| pair[0].end == pair[1].start));
            for (part, interval) in parts.iter().zip(&intervals) {
                prop_assert!(!matches!(part.window.from, Bound::Day(_)));
                let day = part.day.start();
                prop_assert!(day <= interval.start && (interval.is_empty() || interval.end <= day + DAY));
            }
        }
    }
}
