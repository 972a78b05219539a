//! `GET /api/v1/coverage`: which days of which stream are cached, and where.
//!
//! A large cache has hundreds of thousands of chunks, so the streams and days are limited, the tiers are looked through
//! on a thread of their own, one at a time, and the answer to the same question is kept for some seconds.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::calendar::{CachedTime, CalendarDay, calendar, last_days, missing};
use crate::admin::state::Admin;
use crate::blocking::spawn_work;
use crate::cache::{CacheCoverage, CoverageQuery, StreamCoverage};
use crate::window::{Interval, Timestamp};

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
/// Maximum cells that Redis is asked for, in one answer.
const MAX_REDIS_CELLS: usize = 4_096;
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The parameters of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct CoverageRequest {
    account: Option<String>,
    stream: Option<String>,
    days: u32,
    streams: usize,
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
    from: String,
    to: String,
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
pub(in crate::admin) struct LastCoverage(Mutex<Option<(Instant, CoverageRequest, Arc<CoverageStatus>)>>);

impl Admin {
    /// The days that are cached, at most some seconds ago.
    pub(in crate::admin) async fn coverage(&self, request: &CoverageRequest) -> Arc<CoverageStatus> {
        let mut last = self.0.last_coverage.0.lock().await;
        if let Some((at, known, answer)) = &*last
            && known == request
            && at.elapsed() < KEPT_FOR
        {
            return answer.clone();
        }
        let answer = Arc::new(self.look_for_coverage(request).await);
        *last = Some((Instant::now(), request.clone(), answer.clone()));
        answer
    }

    async fn look_for_coverage(&self, request: &CoverageRequest) -> CoverageStatus {
        let now = self.0.clock.now();
        let interval = last_days(now, request.days);
        let (handles, asked) = (self.0.handles.clone(), request.clone());
        let look = spawn_work(move || {
            let CoverageRequest { account, stream, streams, .. } = &asked;
            let (account, stream) = (account.as_deref(), stream.as_deref());
            let query = CoverageQuery { account, stream, interval, max_streams: *streams };
            handles.cache.coverage(&handles.series_settings, query)
        });
        let CacheCoverage { streams, total } = look.await.unwrap_or_default();
        let (mut redis, mut cells) = (RedisLookup::None, MAX_REDIS_CELLS);
        let mut statuses = Vec::with_capacity(streams.len());
        for stream in streams {
            statuses.push(self.stream_status(stream, interval, now, &mut redis, &mut cells).await);
        }
        let days = statuses.first().map(|stream| &stream.days[..]).unwrap_or_default();
        let date =
            |day: Option<&CalendarDay>, at| day.map_or_else(|| super::calendar::date(at), |day| day.date.clone());
        CoverageStatus {
            from: date(days.first(), interval.start),
            to: date(days.last(), now),
            is_cut: total > statuses.len(),
            streams: statuses,
            streams_in_cache: total,
            redis,
        }
    }

    /// The days of a stream. Asks Redis for what is nowhere else, as long as cells are left and it answers.
    async fn stream_status(
        &self,
        coverage: StreamCoverage,
        interval: Interval,
        now: Timestamp,
        redis: &mut RedisLookup,
        cells: &mut usize,
    ) -> StreamStatus {
        let StreamCoverage { account, stream, memory, disk, open, filtered_series } = coverage;
        let mut cached = CachedTime { memory, disk, open, ..CachedTime::default() };
        let absent = missing(&cached, interval, now);
        if !matches!(redis, RedisLookup::Failed { .. }) {
            let (cache, settings) = (&self.0.handles.cache, &self.0.handles.series_settings);
            let looked_up = cache.redis_coverage(settings, &account, &stream, &absent, *cells).await;
            *redis = match looked_up {
                None => RedisLookup::None,
                Some(Err(error)) => RedisLookup::Failed { why: error.to_string() },
                Some(Ok(found)) => {
                    *cells = cells.saturating_sub(found.asked);
                    cached.redis = found.time;
                    match (&*redis, found.left_out) {
                        (RedisLookup::Cut { cells_left_out }, more) => {
                            RedisLookup::Cut { cells_left_out: cells_left_out + more }
                        }
                        (_, 0) => RedisLookup::Whole,
                        (_, cells_left_out) => RedisLookup::Cut { cells_left_out },
                    }
                }
            };
        }
        let days = calendar(&cached, interval, now);
        StreamStatus { account_id: account.to_string(), stream: stream.to_string(), filtered_series, days }
    }
}

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
