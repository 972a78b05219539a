//! Answers for followers: the chunks of a window, from its beginning to the end of the next run.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Segment, Session};
use crate::cache::chunk::{Chunk, Damaged};
use crate::cache::cluster::{FollowerAnswer, FollowerQuery};
use crate::cache::fetch::Fetcher;
use crate::cache::{CacheError, Outcome};
use crate::paging::{PagingError, PlacementCheck};

/// Answers a window that a follower requests, by the steps of an own request.
pub(in crate::cache) fn answer_follower(
    fetcher: Arc<Fetcher>,
    query: FollowerQuery,
) -> BoxFuture<'static, Result<FollowerAnswer, CacheError>> {
    Box::pin(answer(fetcher, query))
}

async fn answer(fetcher: Arc<Fetcher>, query: FollowerQuery) -> Result<FollowerAnswer, CacheError> {
    let FollowerQuery { query, placed, queue_timeout, arrival } = query;
    let interval = query.interval;
    let mut session = Session::new(fetcher.clone(), query, queue_timeout, arrival);
    let (segments, outcome) = match placed {
        // A follower that requests a part of its window requests the whole window then.
        PlacementCheck::Checked if session.shelf.lock().is_uncut(interval) => {
            return Err(CacheError::Paging(PagingError::Unplaced));
        }
        PlacementCheck::Checked => {
            session.check_field().await?;
            let beginning = session.gather_beginning().await?;
            session.check_field().await?;
            beginning
        }
        PlacementCheck::Unchecked => session.gather_exactly().await?,
    };
    let end = match placed {
        PlacementCheck::Checked => segments.last().map_or(interval.end, |segment| segment.interval.end),
        PlacementCheck::Unchecked => interval.end,
    };
    let chunks = chunks_of(&fetcher, &segments, placed).await?;
    let is_coalesced = matches!(outcome, Outcome::Hit | Outcome::Collapsed);
    Ok(FollowerAnswer { end, chunks, is_coalesced, charge: Box::new(move || session.charge()) })
}

/// The chunks of an answer, each once, and whether the second tier stores it in its cell.
async fn chunks_of(
    fetcher: &Fetcher,
    segments: &[Segment],
    placed: PlacementCheck,
) -> Result<Vec<(Arc<Chunk>, bool)>, CacheError> {
    let mut chunks: Vec<(Arc<Chunk>, bool)> = Vec::with_capacity(segments.len());
    for segment in segments {
        let chunk = &segment.slice.chunk;
        // Segments of one chunk are almost always close to each other.
        if chunks.iter().rev().take(8).any(|(known, _)| Arc::ptr_eq(known, chunk)) {
            continue;
        }
        if segment.derived {
            let chunk = chunk.clone();
            let packed = tokio::task::spawn_blocking(move || chunk.packed()).await.unwrap_or(Err(Damaged))?;
            chunks.push((Arc::new(packed), false));
        } else {
            let is_stored = placed == PlacementCheck::Checked && fetcher.is_storable(chunk, placed);
            chunks.push((chunk.clone(), is_stored));
        }
    }
    Ok(chunks)
}
