//! Conversion between `from` and `to` and the intervals that they enclose. A date-only `to` covers its whole day.

use super::{Bound, Interval, Timestamp};

/// Whether the upstream counts an item exactly at `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpperBound {
    /// An item exactly at `to` is part of the answer.
    Inclusive,
    /// An item exactly at `to` is not part of the answer.
    Exclusive,
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
                Bound::Second(at) | Bound::Fraction(at) => timestamp <= at,
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
            (Bound::Fraction(at), Self::Inclusive) => at.next_tick(),
            (Bound::Second(at) | Bound::Fraction(at), Self::Exclusive) => at,
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

        /// A bound with a fraction encloses as an item exactly there would.
        #[test]
        fn fraction_bounds_a_window_to_the_nanosecond(from in 0i64..1_000_000_000_000, length in 0i64..10_000_000_000) {
            let at = |nanos| Bound::Fraction(Timestamp::from_nanos(nanos));
            let inclusive = UpperBound::Inclusive.enclosed(at(from), at(from + length));
            let exclusive = UpperBound::Exclusive.enclosed(at(from), at(from + length));
            for nanos in [from - 1, from, from + length - 1, from + length, from + length + 1] {
                let item = Timestamp::from_nanos(nanos);
                prop_assert_eq!(inclusive.contains(item), (from..=from + length).contains(&nanos));
                prop_assert_eq!(exclusive.contains(item), (from..from + length).contains(&nanos));
            }
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
