//! The arguments of a call, read as Kore reads them.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::profile::Profile;
use crate::window::{Timestamp, UpperBound};

/// The query as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct RawQuery {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) offset: Option<String>,
    pub(super) limit: Option<String>,
    pub(super) rich: bool,
    pub(super) extra: Vec<(String, String)>,
}

/// The query as it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) from: Timestamp,
    /// Exclusive.
    pub(super) end: Timestamp,
    pub(super) offset: usize,
    /// Items, cut to the page limit.
    pub(super) limit: usize,
    pub(super) rich: bool,
}

impl RawQuery {
    /// Percent-decodes the query; of a parameter that stands twice, the last counts.
    pub(super) fn parse(query: &str) -> Self {
        let mut raw = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "from" => raw.from = Some(value),
                "to" => raw.to = Some(value),
                "offset" => raw.offset = Some(value),
                "limit" => raw.limit = Some(value),
                "includeAgenticData" => raw.rich = value == "true",
                _ => raw.extra.push((name.into_owned(), value)),
            }
        }
        raw
    }

    /// What it means; `None` is Kore's `Validation errors/ Invalid arguments`.
    pub(super) fn read(&self, profile: &Profile) -> Option<Query> {
        let (from, _) = moment(self.from.as_deref()?)?;
        let (to, whole_day) = moment(self.to.as_deref()?)?;
        let to = if whole_day { (to + DAY) - Duration::from_millis(1) } else { to };
        let too_long = profile.longest_span.is_some_and(|longest| to.since(from) > longest);
        if from > to || too_long {
            return None;
        }
        let inclusive = whole_day || profile.upper_bound == UpperBound::Inclusive;
        let number = |value: &Option<String>, default| {
            value.as_deref().map_or(Some(default), |value| value.parse::<usize>().ok())
        };
        Some(Query {
            from,
            end: if inclusive { to.next_tick() } else { to },
            offset: number(&self.offset, 0)?,
            limit: number(&self.limit, profile.page_limit)?.min(profile.page_limit),
            rich: self.rich,
        })
    }
}

const DAY: Duration = Duration::from_hours(24);

/// One of the four spellings, in UTC, and whether it names a whole day.
///
/// `YYYY-MM-DD-HH:mm:SS`, `YYYY-MM-DD HH:mm:SS`, `YYYY-MM-DDTHH:mm:SS` and `YYYY-MM-DD`; nothing else is Kore's.
fn moment(spelled: &str) -> Option<(Timestamp, bool)> {
    let number = |range: std::ops::Range<usize>| {
        let digits = spelled.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i16>().ok()
    };
    let small = |range| i8::try_from(number(range)?).ok();
    let sign = |at: usize, signs: &[u8]| spelled.as_bytes().get(at).is_some_and(|byte| signs.contains(byte));

    let dashes = sign(4, b"-") && sign(7, b"-");
    let date = Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok().filter(|_| dashes)?;
    let whole_day = spelled.len() == 10;
    let civil = if whole_day {
        DateTime::from(date)
    } else {
        let signs = spelled.len() == 19 && sign(10, b"-T ") && sign(13, b":") && sign(16, b":");
        let time = jiff::civil::Time::new(small(11..13)?, small(14..16)?, small(17..19)?, 0).ok();
        date.to_datetime(time.filter(|_| signs)?)
    };
    let timestamp = TimeZone::UTC.to_timestamp(civil).ok()?;
    Some((timestamp.into(), whole_day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, profile: &Profile) -> Option<Query> {
        RawQuery::parse(query).read(profile)
    }

    #[test]
    fn the_spellings_agree() {
        let profile = Profile::default();
        let expected = read("from=2026-02-25&to=2026-02-25-23:59:59", &profile).expect("valid");
        for from in ["2026-02-25-00:00:00", "2026-02-25+00:00:00", "2026-02-25%2000:00:00", "2026-02-25T00%3A00%3A00"] {
            assert_eq!(read(&format!("from={from}&to=2026-02-25T23:59:59"), &profile), Some(expected), "{from}");
        }
    }

    #[test]
    fn a_date_covers_its_day_whatever_the_bound() {
        for upper_bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
            let profile = Profile { upper_bound, ..Profile::default() };
            let query = read("from=2026-02-25&to=2026-02-25", &profile).expect("valid");
            let last = (query.from + DAY) - Duration::from_millis(1);
            assert_eq!(query.end, last.next_tick());
        }
    }

    #[test]
    fn odd_arguments_are_refused() {
        let profile = Profile { longest_span: Some(DAY * 7), ..Profile::default() };
        for query in [
            "",
            "from=2026-02-25",
            "to=2026-02-25",
            "from=2026-02-26&to=2026-02-25",
            "from=2026-02-30&to=2026-03-01",
            "from=2026-2-25&to=2026-03-01",
            "from=2026-02-25T00:00&to=2026-03-01",
            "from=2026-02-25T00:00:00Z&to=2026-03-01",
            "from=2026-02-25_00:00:00&to=2026-03-01",
            "from=ä026-02-25&to=2026-03-01",
            "from=+026-02-25&to=2026-03-01",
            "from=2026-02-25&to=2026-02-25&offset=-1",
            "from=2026-02-25&to=2026-02-25&limit=ten",
            "from=2026-02-01&to=2026-02-25",
        ] {
            assert_eq!(read(query, &profile), None, "{query}");
        }
    }

    #[test]
    fn the_limit_is_cut_to_a_page() {
        let profile = Profile::default();
        let limit = |limit| read(&format!("from=2026-02-25&to=2026-02-25{limit}"), &profile).map(|query| query.limit);
        assert_eq!(limit(""), Some(100));
        assert_eq!(limit("&limit=0"), Some(0));
        assert_eq!(limit("&limit=250"), Some(100));
    }
}
