//! The days that are cached: looked up in memory and on disk on a thread of their own, and then in Redis.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::state::Admin;
use crate::admin::views::calendar::{CachedTime, CalendarDay, calendar, date, last_days, missing};
use crate::admin::views::coverage::{CoverageRequest, CoverageStatus, RedisLookup, StreamStatus};
use crate::blocking::spawn_work;
use crate::cache::{CacheCoverage, CoverageQuery, StreamCoverage};
use crate::window::{Interval, Timestamp};

/// Maximum cells that Redis is asked for, in one answer.
const MAX_REDIS_CELLS: usize = 4_096;
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(10);

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
        let date = |day: Option<&CalendarDay>, at| day.map_or_else(|| date(at), |day| day.date.clone());
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
