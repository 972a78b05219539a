//! Answers out of memory alone that the fast path has not: those whose items are filtered here, and windows that are
//! cached as a whole. Nothing is fetched, and nothing is waited for.

use std::sync::Arc;

use super::segments::{moved_segments, slice_segments};
use super::session::Session;
use crate::cache::chunk::Damaged;
use crate::cache::error::CacheError;
use crate::cache::fetch::{Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::types::{WindowAnswer, WindowQuery};
use crate::request::QueueTimeout;
use crate::window::Plan;

/// The answer to `query`, if memory has all of it.
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
        session.query.check_upstream_bounds(&session.fetcher)?;
        session.find_cached_exactly()
    } else {
        session.find_cached_chunks().await?
    };
    Ok(segments.map(|segments| session.whole_answer(segments, Outcome::Hit)))
}

impl Session {
    fn must_fetch_exactly(&self) -> bool {
        let Fetcher { window_fields, settings, .. } = &*self.fetcher;
        let series = &self.query.series;
        self.series_state.lock().must_fetch_exactly(self.query.window)
            || window_fields.is_wrong(series, settings.of(series))
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
}
