//! Answers to clients: assembled as a whole, or found to take long, and streamed. Chunks out of which items have moved
//! meanwhile are fetched again. And answers out of memory alone, for which nothing is fetched or waited for.

use std::sync::Arc;

use super::progress::RoundLimit;
use super::query::Delivery;
use super::segments::{moved_segments, moved_since, slice_segments};
use super::session::{Round, Session};
use super::stream;
use crate::cache::chunk::{Damaged, ItemSlice};
use crate::cache::error::CacheError;
use crate::cache::fetch::{Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::stream_channel::RemainingStream;
use crate::cache::types::{WindowAnswer, WindowQuery};
use crate::request::QueueTimeout;
use crate::telemetry;
use crate::telemetry::Tier;
use crate::window::{Plan, Timestamp};

/// The maximum number of times that entries are fetched again because an item has moved out of them. Each time costs
/// calls.
const MAX_REFETCHES_OF_MOVED_ITEMS: usize = 2;

/// Answers `query`.
///
/// # Errors
/// [`CacheError`] if a part of the window can be neither served nor fetched.
pub(in crate::cache) async fn answer(fetcher: Arc<Fetcher>, query: WindowQuery) -> Result<WindowAnswer, CacheError> {
    if let Some(disk) = fetcher.disk.as_ref().filter(|disk| disk.is_loading()) {
        disk.until_loaded().await;
    }
    let limit = query.options.queue_timeout.unwrap_or(fetcher.settings.queue_timeout);
    let queue_timeout = QueueTimeout::new(limit).metered(query.waited.clone());
    let mut session = Session::new(fetcher, query, Arc::new(queue_timeout), None);
    if session.query.window.is_empty() {
        return Ok(session.whole_answer(Vec::new(), Outcome::Hit));
    }
    let must_fetch_exactly = session.series_state.lock().must_fetch_exactly(session.query.window);
    if !must_fetch_exactly && session.check_window_field().await.is_ok() {
        let is_settled = session.query.is_settled(&session.fetcher);
        session.progress.delivery = session.query.delivery(is_settled);
        match session.assemble_chunks().await {
            Ok(None) => return Ok(stream::start(session)),
            // Checked again, as the check may have begun after the segments were sliced.
            Ok(Some((segments, outcome))) if session.check_window_field().await.is_ok() => {
                return Ok(session.whole_answer(segments, outcome));
            }
            // The field has just been found wrong, so all windows are fetched exactly; or this one must be.
            Ok(Some(_)) => {}
            Err(CacheError::Paging(error)) if error.must_fetch_exactly() => {}
            Err(error) => return Err(error),
        }
    }
    session.query.check_upstream_bounds()?;
    let (segments, outcome) = session.assemble_exactly().await?;
    Ok(session.whole_answer(segments, outcome))
}

/// The answer to `query`, if memory has all of it: also one that the fast path has not, because its items are filtered
/// here, or because its window is cached as a whole.
///
/// # Errors
/// [`CacheError`] if a chunk does not inflate, or the window could not be fetched either.
pub(in crate::cache) async fn answer_from_memory(
    fetcher: Arc<Fetcher>,
    query: WindowQuery,
) -> Result<Option<WindowAnswer>, CacheError> {
    let queue_timeout = Arc::new(QueueTimeout::new(fetcher.settings.queue_timeout));
    let session = Session::new(fetcher, query, queue_timeout, None);
    let segments = if session.query.window.is_empty() {
        Some(Vec::new())
    } else if session.must_fetch_exactly() {
        session.query.check_upstream_bounds()?;
        session.find_cached_exactly()
    } else {
        session.find_cached_chunks().await?
    };
    Ok(segments.map(|segments| session.whole_answer(segments, Outcome::Hit)))
}

impl Session {
    /// All segments of the window, sliced from chunks; `None` if the answer is long and may be streamed.
    ///
    /// # Errors
    /// [`CacheError`] if a part of the window can be neither served nor fetched.
    pub(super) async fn assemble_chunks(&mut self) -> Result<Option<(Vec<Segment>, Outcome)>, CacheError> {
        let (mut refetches, mut rounds) = (0, RoundLimit::new(&self.progress));
        let mut is_first = true;
        loop {
            let round = self.plan_next_step()?;
            if std::mem::take(&mut is_first) {
                let is_hit = matches!(round, Round::Complete(_));
                telemetry::tier_lookups(Tier::Memory, usize::from(is_hit), usize::from(!is_hit));
            }
            rounds.count_round(&self.progress)?;
            match round {
                Round::Complete(hits) => {
                    let segments = slice_segments(hits).await?;
                    let is_last = refetches == MAX_REFETCHES_OF_MOVED_ITEMS;
                    // By then, both places of an item have been fetched for this request. If both still have it, the
                    // upstream holds it twice.
                    let accepted_since = if is_last { self.query.asked_at } else { Timestamp::MAX };
                    let moved = moved_since(&segments, accepted_since);
                    if moved.is_empty() {
                        let outcome = self.outcome(&segments);
                        return Ok(Some((segments, outcome)));
                    }
                    if is_last {
                        return Err(CacheError::ItemsMoving);
                    }
                    refetches += 1;
                    self.reject_moved(&moved);
                }
                Round::Partial { is_long, next, .. } => {
                    self.check_fits_into_memory()?;
                    if is_long {
                        return Ok(None);
                    }
                    self.wait(next).await?;
                }
            }
        }
    }

    fn must_fetch_exactly(&self) -> bool {
        self.series_state.lock().must_fetch_exactly(self.query.window)
            || self.fetcher.window_fields.is_wrong(&self.query.series, &self.query.settings)
    }

    /// All segments of the window, if their chunks are in memory and no item has moved between them.
    async fn find_cached_chunks(&self) -> Result<Option<Vec<Segment>>, Damaged> {
        let mut plan = Plan::new(self.query.window);
        drop(self.lookup().take(&mut plan, &self.series_state));
        if !plan.missing.is_empty() {
            return Ok(None);
        }
        let segments = slice_segments(plan.hits).await?;
        Ok(moved_segments(&segments).is_empty().then_some(segments))
    }

    /// An error if the answer must fit into memory, and does not.
    fn check_fits_into_memory(&self) -> Result<(), CacheError> {
        let limit = self.fetcher.memory.capacity();
        let is_too_large = self.progress.delivery == Delivery::Buffered && self.gathered.bytes() as u64 > limit;
        if is_too_large { Err(CacheError::TooLargeToBuffer { limit }) } else { Ok(()) }
    }

    /// The cache's part in an answer of these segments.
    pub(super) fn outcome(&self, segments: &[Segment]) -> Outcome {
        if self.gathered.is_without_fetch() {
            Outcome::Hit
        } else if self.gathered.are_calls_charged() {
            Outcome::Collapsed
        } else if self.report.is_stale {
            Outcome::Stale
        } else if segments.iter().any(|segment| segment.is_cached) {
            Outcome::Partial
        } else {
            Outcome::Miss
        }
    }

    /// The answer that is made of these segments. Reports the calls that were made for it.
    fn whole_answer(&self, segments: Vec<Segment>, outcome: Outcome) -> WindowAnswer {
        // A fetch that was in flight before the request saw what the upstream had when it began.
        let policy = &self.query.settings.freshness_policy;
        let fresh = segments.iter().filter_map(|segment| policy.fresh_until(segment.interval, segment.fetched_at));
        let fresh_until = fresh.min();
        let aged = segments.iter().filter(|segment| segment.is_cached || segment.fetched_at < self.query.asked_at);
        WindowAnswer {
            settled: !segments.is_empty() && self.query.is_settled(&self.fetcher),
            validity: None,
            oldest_entry: aged.map(|segment| segment.fetched_at).min(),
            fresh_until,
            outcome,
            chunks: segments.len(),
            hits: segments.iter().filter(|segment| segment.is_cached).count(),
            calls: self.gathered.charge(),
            rest: None,
            items: self.query.page_range.of(segments.into_iter().map(|segment| segment.slice).collect()),
        }
    }

    /// The answer whose items follow in `rest`, with what is known of it by now.
    pub(super) fn streamed_answer(&self, rest: RemainingStream) -> WindowAnswer {
        let outcome = match (self.report.has_fetched, self.report.oldest_entry) {
            (false, _) => Outcome::Hit,
            (true, Some(_)) => Outcome::Partial,
            (true, None) => Outcome::Miss,
        };
        WindowAnswer {
            items: ItemSlice { slices: Vec::new(), count: 0, has_more: false },
            rest: Some(rest),
            settled: true,
            validity: None,
            oldest_entry: self.report.oldest_entry,
            fresh_until: None,
            outcome,
            chunks: 0,
            hits: 0,
            calls: 0,
        }
    }
}
