//! Windows for other parts of the cache: remote fetches, which a leader serves, and checks of `window.field`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::query::Delivery;
use super::session::Session;
use crate::cache::error::CacheError;
use crate::cache::fetch::{AssembledWindow, AssemblyRequest, Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::paging::{PagingError, PlacementCheck};

/// The length of a window above which only the beginning is assembled, as far as the next run reaches.
const MAX_WHOLE_LENGTH: Duration = Duration::from_hours(24);
/// The size of the segments of such a beginning in bytes of chunks. A follower makes a remote fetch for each.
const SEGMENT_BYTES_BETWEEN_REPLICAS: usize = 8 << 20;

/// Assembles a window; see [`AssembleWindow`](crate::cache::fetch::AssembleWindow).
pub(in crate::cache) fn assemble(
    fetcher: Arc<Fetcher>,
    request: AssemblyRequest,
) -> BoxFuture<'static, Result<AssembledWindow, CacheError>> {
    let AssemblyRequest { query, queue_timeout, placement, batch_guard } = request;
    let mut session = Session::new(fetcher, query, queue_timeout, batch_guard);
    Box::pin(async move {
        let (segments, outcome) = match placement {
            PlacementCheck::Checked => session.assemble_beginning().await?,
            PlacementCheck::Unchecked => session.assemble_exactly().await?,
        };
        Ok(AssembledWindow { segments, outcome, calls: Box::new(session) })
    })
}

impl Session {
    /// The beginning of the window, sliced from chunks: all of it, or, of a long one, as far as its next run reaches.
    ///
    /// # Errors
    /// [`PagingError::WithoutTimestamp`] if the window must be fetched exactly: then the follower requests it exactly.
    async fn assemble_beginning(&mut self) -> Result<(Vec<Segment>, Outcome), CacheError> {
        if self.series_state.lock().must_fetch_exactly(self.query.window) {
            return Err(CacheError::Paging(PagingError::WithoutTimestamp));
        }
        self.check_window_field().await?;
        let assembled = if self.query.window.length() <= MAX_WHOLE_LENGTH {
            // A whole answer is never found to be long.
            self.assemble_chunks().await?.ok_or(CacheError::FetchLost)?
        } else {
            self.progress.delivery = Delivery::Streamed;
            let segments = self.next_segments(SEGMENT_BYTES_BETWEEN_REPLICAS).await?.ok_or(CacheError::FetchLost)?;
            let outcome = self.outcome(&segments);
            (segments, outcome)
        };
        self.check_window_field().await?;
        Ok(assembled)
    }
}
