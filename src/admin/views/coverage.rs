//! `GET /api/v1/coverage`: which days of which stream are cached, and where.
//!
//! A large cache has hundreds of thousands of chunks, so the streams and days are limited, the tiers are looked through
//! on a thread of their own, one at a time, and the answer to the same question is kept for some seconds.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::calendar::CalendarDay;

/// Path of the call.
pub(in crate::admin) const PATH: &str = "/api/v1/coverage";
/// Number of days of an answer, by default: 13 weeks.
pub(in crate::admin) const DEFAULT_DAYS: u32 = 91;
/// Maximum days of an answer.
const MAX_DAYS: u32 = 400;
/// Number of streams of an answer, by default, and on the page.
pub(in crate::admin) const DEFAULT_STREAMS: usize = 12;
/// Maximum streams of an answer. With all days, it has about 2 MB.
const MAX_STREAMS: u32 = 50;

/// The parameters of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct CoverageRequest {
    pub(in crate::admin) account: Option<String>,
    pub(in crate::admin) stream: Option<String>,
    pub(in crate::admin) days: u32,
    pub(in crate::admin) streams: usize,
}

impl Default for CoverageRequest {
    fn default() -> Self {
        Self { account: None, stream: None, days: DEFAULT_DAYS, streams: DEFAULT_STREAMS }
    }
}

impl CoverageRequest {
    /// Parses a query.
    ///
    /// # Errors
    /// The faulty parameter, and its fault.
    pub(in crate::admin) fn read(query: &str) -> Result<Self, String> {
        let mut request = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = |most: u32| {
                let number = value.parse().ok().filter(|number| (1..=most).contains(number));
                number.ok_or_else(|| format!("{name}: it is no number from 1 to {most}"))
            };
            match &*name {
                "account" => request.account = Some(value.into_owned()),
                "stream" => request.stream = Some(value.into_owned()),
                "days" => request.days = number(MAX_DAYS)?,
                "streams" => request.streams = number(MAX_STREAMS)? as usize,
                _ => return Err("a parameter is not known here; account, stream, days and streams are".to_owned()),
            }
        }
        Ok(request)
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct CoverageStatus {
    /// The first and the last day, which is today.
    pub(in crate::admin) from: String,
    pub(in crate::admin) to: String,
    /// The first streams by account and name.
    pub(in crate::admin) streams: Vec<StreamStatus>,
    /// Number of streams with anything in the cache.
    pub(in crate::admin) streams_in_cache: usize,
    /// Whether streams were left out.
    pub(in crate::admin) is_cut: bool,
    pub(in crate::admin) redis: RedisLookup,
}

#[cfg(test)]
impl CoverageStatus {
    /// The answer with these streams.
    pub(in crate::admin) fn for_test(streams: Vec<StreamStatus>) -> Self {
        let (from, to) = Default::default();
        Self { from, to, streams_in_cache: streams.len(), streams, is_cut: false, redis: RedisLookup::None }
    }
}

/// Whether Redis was looked through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "lookup", rename_all = "snake_case")]
pub(in crate::admin) enum RedisLookup {
    /// There is no Redis.
    None,
    /// Redis was looked through.
    Whole,
    /// Redis was looked through for the latest days only.
    Cut {
        /// Number of cells that it was not asked for.
        cells_left_out: usize,
    },
    /// Redis did not answer.
    Failed {
        /// The reason.
        why: String,
    },
}

/// The days of a stream, of requests without a filter.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct StreamStatus {
    pub(in crate::admin) account_id: String,
    pub(in crate::admin) stream: String,
    /// Number of filters and other parameters with cached answers of their own, which the days do not show.
    pub(in crate::admin) filtered_series: usize,
    /// Ascending; seconds of each day in each tier.
    pub(in crate::admin) days: Vec<CalendarDay>,
}

/// The last answer, and the lock by which one question is answered at a time.
#[derive(Default)]
pub(in crate::admin) struct LastCoverage(
    pub(in crate::admin) Mutex<Option<(Instant, CoverageRequest, Arc<CoverageStatus>)>>,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bounded_and_none_is_ignored() {
        assert_eq!(CoverageRequest::read(""), Ok(CoverageRequest::default()));
        let full = CoverageRequest::read("account=a&stream=s+1&days=400&streams=50").unwrap();
        let expected =
            CoverageRequest { account: Some("a".into()), stream: Some("s 1".into()), days: 400, streams: 50 };
        assert_eq!(full, expected);
        for query in ["days=0", "days=401", "days=x", "streams=51", "steam=s", "days="] {
            assert!(CoverageRequest::read(query).is_err(), "{query}");
        }
    }
}
