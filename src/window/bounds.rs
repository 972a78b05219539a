//! Conversion between the spellings of `from` and `to` and the intervals that they enclose.
//!
//! Kore's pages show four spellings; all are UTC here. A date-only `to` covers its whole day.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::{Interval, Timestamp};

/// Whether the upstream counts an item exactly at `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpperBound {
    /// An item exactly at `to` is part of the answer.
    Inclusive,
    /// An item exactly at `to` is not part of the answer.
    Exclusive,
}

/// A `from` or `to`, parsed from its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `YYYY-MM-DD`: the day that begins at this midnight.
    Day(Timestamp),
    /// One of the spellings with a time: this whole second.
    Second(Timestamp),
}

impl Bound {
    /// Reads `YYYY-MM-DD-HH:mm:SS`, `YYYY-MM-DD HH:mm:SS`, `YYYY-MM-DDTHH:mm:SS` or `YYYY-MM-DD` (already
    /// percent-decoded), UTC. `None` if it is none of them, or no such time exists, or it lies outside 1678 to 2261.
    pub fn parse(text: &str) -> Option<Self> {
        let date = parse_date(text.get(..10)?)?;
        let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
            return Some(Self::Day(timestamp(date.to_datetime(jiff::civil::Time::midnight()))?));
        };
        let time = rest.strip_prefix(['-', ' ', 'T'])?;
        let [h1, h2, b':', m1, m2, b':', s1, s2] = time.as_bytes() else { return None };
        let time = jiff::civil::Time::new(digits([*h1, *h2])?, digits([*m1, *m2])?, digits([*s1, *s2])?, 0).ok()?;
        Some(Self::Second(timestamp(date.to_datetime(time))?))
    }

    /// The first timestamp that the bound names.
    pub const fn start(self) -> Timestamp {
        match self {
            Self::Day(at) | Self::Second(at) => at,
        }
    }
}

fn parse_date(text: &str) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let (century, year) = (digits([*y1, *y2])?, digits([*y3, *y4])?);
    let year = i16::from(century) * 100 + i16::from(year);
    Date::new(year, digits([*m1, *m2])?, digits([*d1, *d2])?).ok().filter(|_| (1678..=2261).contains(&year))
}

fn digits(pair: [u8; 2]) -> Option<i8> {
    let [tens, ones] = pair.map(|b| b.is_ascii_digit().then(|| (b - b'0').cast_signed()));
    Some(tens? * 10 + ones?)
}

fn timestamp(civil: DateTime) -> Option<Timestamp> {
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.into())
}

/// `from` and `to` of one upstream query, in whole seconds: the shortest such pair that encloses an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryBounds {
    /// Where the query begins, always inclusive.
    pub from: Timestamp,
    /// End of the query, in the spelling that is sent.
    pub to: Bound,
}

impl QueryBounds {
    /// Whether an upstream that was asked for these bounds may answer with an item at `timestamp`.
    ///
    /// An item exactly at `to` passes with either upper bound. That is harmless, because items outside of the wanted
    /// interval are cut off later.
    pub fn may_return(&self, timestamp: Timestamp) -> bool {
        self.from <= timestamp
            && match self.to {
                Bound::Day(midnight) => timestamp < midnight + DAY,
                Bound::Second(second) => timestamp <= second,
            }
    }
}

impl fmt::Display for Bound {
    /// The spelling of the endpoint's own template (`YYYY-MM-DD-HH:mm:SS`), which needs no escaping, or `YYYY-MM-DD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = TimeZone::UTC.to_datetime(self.start().to_timestamp());
        write!(f, "{:04}-{:02}-{:02}", civil.year(), civil.month(), civil.day())?;
        match self {
            Self::Day(_) => Ok(()),
            Self::Second(_) => write!(f, "-{:02}:{:02}:{:02}", civil.hour(), civil.minute(), civil.second()),
        }
    }
}

const DAY: std::time::Duration = std::time::Duration::from_hours(24);

impl UpperBound {
    /// The interval that a caller's `from` and `to` enclose. Empty if `from` lies after `to`.
    pub fn enclosed(self, from: Bound, to: Bound) -> Interval {
        let end = match (to, self) {
            (Bound::Day(midnight), _) => midnight + DAY,
            (Bound::Second(second), Self::Inclusive) => second.next_tick(),
            (Bound::Second(second), Self::Exclusive) => second,
        };
        Interval::new(from.start(), end)
    }

    /// The shortest query in whole seconds whose answer holds every item of `interval`.
    ///
    /// With an inclusive bound, an interval that ends at midnight is queried with a date-only `to`, which excludes the
    /// item exactly at midnight. An interval that ends at another whole second also brings the items exactly there.
    pub fn query_for(self, interval: Interval) -> QueryBounds {
        let to = match self {
            Self::Exclusive => Bound::Second(interval.end.ceil_second()),
            Self::Inclusive if interval.end.is_midnight() => Bound::Day(interval.end - DAY),
            Self::Inclusive => Bound::Second(interval.end.previous_tick().ceil_second()),
        };
        QueryBounds { from: interval.start.floor_second(), to }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn the_four_spellings_name_the_same_time() {
        let noon = Bound::Second(second("2026-02-25T12:00:01Z"));
        for text in ["2026-02-25-12:00:01", "2026-02-25 12:00:01", "2026-02-25T12:00:01"] {
            assert_eq!(Bound::parse(text), Some(noon), "{text}");
        }
        assert_eq!(Bound::parse("2026-02-25"), Some(Bound::Day(second("2026-02-25T00:00:00Z"))));
    }

    #[test]
    fn other_spellings_are_malformed() {
        for text in [
            "",
            "2026",
            "2026-2-5",
            "2026-02-30",
            "2026-13-01",
            "2026-02-25T",
            "2026-02-25T12:00",
            "2026-02-25T24:00:00",
            "2026-02-25T12:60:00",
            "2026-02-25T12:00:61",
            "2026-02-25T12:00:00Z",
            "2026-02-25T12:00:00.5",
            "2026-02-25_12:00:00",
            " 2026-02-25",
            "2026-02-25 ",
            "+026-02-25",
            "2026-02-25T-1:00:00",
            "yesterday",
            "2026-02-2é",
            "1600-01-01",
            "9999-01-01",
        ] {
            assert_eq!(Bound::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn date_only_to_covers_its_day_with_either_bound() {
        let day = Bound::parse("2026-02-25").unwrap();
        for bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
            let interval = bound.enclosed(day, day);
            assert_eq!(
                (interval.start, interval.end),
                (second("2026-02-25T00:00:00Z"), second("2026-02-26T00:00:00Z"))
            );
        }
    }

    #[test]
    fn settled_day_query_excludes_the_next_midnight() {
        let day = Bound::parse("2026-02-25").unwrap();
        let query = UpperBound::Inclusive.query_for(UpperBound::Inclusive.enclosed(day, day));
        assert_eq!(query.to.to_string(), "2026-02-25");
        assert!(!query.may_return(second("2026-02-26T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn spelled_bound_parses_to_itself(seconds in 0i64..4_000_000_000) {
            let bound = Bound::Second(Timestamp::from_seconds(seconds));
            prop_assert_eq!(Bound::parse(&bound.to_string()), Some(bound));
        }

        #[test]
        fn query_encloses_its_interval_and_no_second_more(
            start in -100_000_000_000i64..100_000_000_000, length in 1i64..200_000_000_000_000, inclusive: bool
        ) {
            let bound = if inclusive { UpperBound::Inclusive } else { UpperBound::Exclusive };
            let interval = Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start + length));
            let query = bound.query_for(interval);
            let asked = bound.enclosed(Bound::Second(query.from), query.to);
            prop_assert!(asked.start <= interval.start && interval.end <= asked.end);
            prop_assert!(interval.start.since(asked.start) < std::time::Duration::from_secs(1));
            prop_assert!(asked.end.since(interval.end) < std::time::Duration::from_secs(1));
            prop_assert!(query.may_return(interval.start) && query.may_return(interval.end.previous_tick()));
        }

        /// A caller's window in whole seconds is sent to the upstream with the same bounds.
        #[test]
        fn callers_window_equals_its_query(from in 0i64..4_000_000_000, length in 0i64..1_000_000, inclusive: bool) {
            let bound = if inclusive { UpperBound::Inclusive } else { UpperBound::Exclusive };
            let (from, to) = (Timestamp::from_seconds(from), Bound::Second(Timestamp::from_seconds(from + length)));
            let interval = bound.enclosed(Bound::Second(from), to);
            prop_assume!(!interval.is_empty());
            prop_assert_eq!(bound.query_for(interval), QueryBounds { from, to });
        }
    }
}
