//! The cost of a window, as a gateway states it.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::window::Timestamp;

/// The cost of a window.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Cost {
    /// The least number of calls.
    pub(in crate::cli) at_least: u64,
    /// The number of calls that the gateway expects, if it knows the density.
    pub(in crate::cli) expected: Option<u64>,
    /// The time that these calls wait for the quota.
    pub(in crate::cli) wait: Duration,
    /// Whether all of the window is cached.
    pub(in crate::cli) is_cached: bool,
    /// The number of items of the stream that are cached, and the time in which they lie.
    pub(in crate::cli) known: (u64, Duration),
    /// The time before which data is settled; `None` from a gateway that does not say it.
    pub(in crate::cli) settled_until: Option<Timestamp>,
    /// The source of the items; `None` from a gateway that does not say it.
    pub(in crate::cli) source: Option<Source>,
}

/// The account of a window, and the settings of the gateway that decide which items are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Source {
    pub(in crate::cli) account_id: String,
    /// `window.field`
    pub(in crate::cli) field: String,
    /// `window.upper_bound`
    pub(in crate::cli) upper_bound: String,
}

impl Cost {
    /// Reads the answer to a dry run; `None` if it is none.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<CostBody>(body).ok().map(Self::from)
    }

    /// The cost of two windows that follow each other.
    pub(super) fn and(self, next: Self) -> Self {
        Self {
            at_least: self.at_least + next.at_least,
            expected: self.expected.zip(next.expected).map(|(first, second)| first + second),
            wait: self.wait + next.wait,
            is_cached: self.is_cached && next.is_cached,
            ..next
        }
    }
}

/// The members of the answer that are read.
#[derive(Deserialize)]
struct CostBody {
    calls: Calls,
    seconds: f64,
    missing: Vec<IgnoredAny>,
    under_way: Vec<IgnoredAny>,
    basis: Basis,
    settled_until: Option<String>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Calls {
    at_least: u64,
    expected: Option<u64>,
}

#[derive(Deserialize)]
struct Basis {
    items: u64,
    seconds: u64,
}

impl From<CostBody> for Cost {
    fn from(body: CostBody) -> Self {
        let settled_until = body.settled_until.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Self {
            at_least: body.calls.at_least,
            expected: body.calls.expected,
            wait: Duration::try_from_secs_f64(body.seconds).unwrap_or_default(),
            is_cached: body.missing.is_empty() && body.under_way.is_empty(),
            known: (body.basis.items, Duration::from_secs(body.basis.seconds)),
            settled_until: settled_until.map(Timestamp::from),
            source: body.source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_a_dry_run_is_read() {
        let body = r#"{"calls":{"at_least":2,"expected":206},"seconds":186.5,"chunks":590,"hits":72,
            "missing":[{"from":"x","to":"y"}],"under_way":[],"basis":{"of":"series","items":3000,"seconds":259200},
            "settled_until":"2026-02-24T12:34:56.789Z",
            "source":{"account_id":"a","field":"segmentEndTime","upper_bound":"exclusive"}}"#;
        let cost = Cost::parse(body.as_bytes()).unwrap();
        assert_eq!((cost.at_least, cost.expected, cost.is_cached), (2, Some(206), false));
        assert_eq!((cost.wait, cost.known), (Duration::from_millis(186_500), (3000, Duration::from_hours(72))));
        assert_eq!(cost.settled_until.unwrap().to_string(), "2026-02-24T12:34:56.789Z");
        let source = Source {
            account_id: "a".to_owned(),
            field: "segmentEndTime".to_owned(),
            upper_bound: "exclusive".to_owned(),
        };
        assert_eq!(cost.source, Some(source));
        let both = cost.clone().and(Cost { expected: None, is_cached: true, ..cost });
        assert_eq!((both.at_least, both.expected, both.is_cached), (4, None, false));
        assert_eq!(Cost::parse(b"{}"), None);
    }
}
