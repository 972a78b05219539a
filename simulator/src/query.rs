//! Parsing of the query, by Kore's rules.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::profile::ApiVariant;
use crate::time::UnixTime;

const DAY: Duration = Duration::from_hours(24);

/// The query parameters of a request, percent-decoded but not validated.
#[derive(Clone, Debug, Default)]
pub struct QueryParameters {
    /// `from`
    pub from: Option<String>,
    /// `to`
    pub to: Option<String>,
    /// `offset`
    pub offset: Option<String>,
    /// `limit`
    pub limit: Option<String>,
    /// Whether `includeAgenticData` is `true`.
    pub agentic: bool,
    /// Parameters that Kore does not have, in their order.
    pub extra: Vec<(String, String)>,
}

/// A valid query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemQuery {
    pub(crate) from: UnixTime,
    /// Exclusive.
    pub(crate) end: UnixTime,
    pub(crate) offset: usize,
    /// The number of items, at most the page limit.
    pub(crate) limit: usize,
    pub(crate) agentic: bool,
}

impl QueryParameters {
    /// Percent-decodes the query. The last value of a repeated parameter counts.
    pub(crate) fn parse(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "from" => parameters.from = Some(value),
                "to" => parameters.to = Some(value),
                "offset" => parameters.offset = Some(value),
                "limit" => parameters.limit = Some(value),
                "includeAgenticData" => parameters.agentic = value == "true",
                _ => parameters.extra.push((name.into_owned(), value)),
            }
        }
        parameters
    }

    /// Validates the parameters. `None` stands for Kore's error `Validation errors/ Invalid arguments`.
    pub(crate) fn read(&self, api: &ApiVariant) -> Option<ItemQuery> {
        let (from, _) = parse_timestamp(self.from.as_deref()?)?;
        let (to, whole_day) = parse_timestamp(self.to.as_deref()?)?;
        let to = if whole_day { (to + DAY) - Duration::from_millis(1) } else { to };
        let too_long = api.longest_span.is_some_and(|longest| to.since(from) > longest);
        if from > to || too_long {
            return None;
        }
        let page_limit = api.page_limit;
        let inclusive = whole_day || !api.exclusive_to;
        let number = |value: &Option<String>, default| {
            value.as_deref().map_or(Some(default), |value| value.parse::<usize>().ok())
        };
        Some(ItemQuery {
            from,
            end: if inclusive { to.next_nanosecond() } else { to },
            offset: number(&self.offset, 0)?,
            limit: number(&self.limit, page_limit)?.min(page_limit),
            agentic: self.agentic,
        })
    }
}

/// Parses a UTC timestamp in one of Kore's formats: `YYYY-MM-DD-HH:mm:SS`, `YYYY-MM-DD HH:mm:SS`,
/// `YYYY-MM-DDTHH:mm:SS` and `YYYY-MM-DD`. The second result is whether the timestamp is a date without a time.
fn parse_timestamp(text: &str) -> Option<(UnixTime, bool)> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i16>().ok()
    };
    let small = |range| i8::try_from(number(range)?).ok();
    let separator = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|byte| allowed.contains(byte));

    let has_dashes = separator(4, b"-") && separator(7, b"-");
    let date = Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok().filter(|_| has_dashes)?;
    let whole_day = text.len() == 10;
    let civil = if whole_day {
        DateTime::from(date)
    } else {
        let has_separators = text.len() == 19 && separator(10, b"-T ") && separator(13, b":") && separator(16, b":");
        let time = Time::new(small(11..13)?, small(14..16)?, small(17..19)?, 0).ok();
        date.to_datetime(time.filter(|_| has_separators)?)
    };
    let timestamp = TimeZone::UTC.to_timestamp(civil).ok()?;
    Some((timestamp.into(), whole_day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn read(query: &str, profile: &Profile) -> Option<ItemQuery> {
        QueryParameters::parse(query).read(&profile.api)
    }

    #[test]
    fn timestamp_in_any_format_reads_the_same() {
        let profile = Profile::default();
        let expected = read("from=2026-02-25&to=2026-02-25-23:59:59", &profile).expect("valid");
        for from in ["2026-02-25-00:00:00", "2026-02-25+00:00:00", "2026-02-25%2000:00:00", "2026-02-25T00%3A00%3A00"] {
            assert_eq!(read(&format!("from={from}&to=2026-02-25T23:59:59"), &profile), Some(expected), "{from}");
        }
    }

    #[test]
    fn date_only_to_with_either_bound_covers_its_day() {
        for exclusive_to in [false, true] {
            let api = ApiVariant { exclusive_to, ..ApiVariant::default() };
            let profile = Profile { api, ..Profile::default() };
            let query = read("from=2026-02-25&to=2026-02-25", &profile).expect("valid");
            let last = (query.from + DAY) - Duration::from_millis(1);
            assert_eq!(query.end, last.next_nanosecond());
        }
    }

    #[test]
    fn malformed_arguments_are_refused() {
        let api = ApiVariant { longest_span: Some(DAY * 7), ..ApiVariant::default() };
        let profile = Profile { api, ..Profile::default() };
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
    fn limit_above_the_page_limit_is_reduced() {
        let profile = Profile::default();
        let limit = |limit| read(&format!("from=2026-02-25&to=2026-02-25{limit}"), &profile).map(|query| query.limit);
        assert_eq!(limit(""), Some(100));
        assert_eq!(limit("&limit=0"), Some(0));
        assert_eq!(limit("&limit=250"), Some(100));
    }
}
