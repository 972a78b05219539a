//! What a run has seen and not proven: it lies in memory, where it counts and may be evicted, but on no shelf.

use std::sync::Arc;

use super::CacheError;
use super::chunk::Chunk;
use super::copies::Copy;
use super::fetch::Fetcher;
use super::sight::Verdict;
use super::work::Work;
use crate::repage::Stretch;
use crate::telemetry;
use crate::window::Span;

/// A chunk of a part that has been seen.
#[derive(Debug)]
pub(super) struct Unproven {
    copy: Copy,
    /// The chunk itself, for those who wait until all of it is there. Those who stream have it by then.
    held: Option<Arc<Chunk>>,
}

impl Unproven {
    /// Of which time.
    pub(super) fn span(&self) -> Span {
        self.copy.chunk
    }
}

impl Fetcher {
    /// Cuts what has been seen into chunks, and shows them to those who stream.
    pub(super) async fn keep_seen(self: Arc<Self>, work: &Work, stretch: Stretch) -> Result<Vec<Unproven>, CacheError> {
        let (fetcher, epoch) = (self.clone(), work.flight.epoch);
        let cut = tokio::task::spawn_blocking(move || fetcher.cut(&stretch, epoch));
        let chunks = cut.await.map_err(|_| CacheError::Lost)?;
        work.flight.sight.show(work.flight.span(), &chunks);
        let flight = &work.flight;
        let all_stream = flight.seats().iter().all(|(seat, _)| seat.cursor_in(flight).is_some());
        let keep = |chunk: Arc<Chunk>| Unproven {
            copy: Copy::keep(&chunk, &self.memory),
            held: (!all_stream).then_some(chunk),
        };
        Ok(chunks.into_iter().map(keep).collect())
    }

    /// It is proven: puts it on its shelf. Gives what is still there.
    pub(super) fn shelve_seen(&self, work: &Work, seen: &mut Vec<Unproven>) -> Vec<Arc<Chunk>> {
        let mut shelf = work.shelf.lock();
        let mut proven = Vec::new();
        for Unproven { copy, held } in seen.drain(..) {
            // What memory had no room for, and nobody waits for, is gone.
            let Some(chunk) = held.clone().or_else(|| copy.peek(&self.memory)) else { continue };
            let kept = self.memory.holds(copy.id).then(|| copy.clone());
            if let Err(why) = self.put(work, &mut shelf, &chunk, kept) {
                self.memory.drop_chunk(copy.id);
                telemetry::not_stored(why.label());
            }
            proven.extend(held);
        }
        proven
    }

    /// It is void.
    pub(super) fn forget_seen(&self, work: &Work, seen: &mut Vec<Unproven>) {
        if seen.is_empty() {
            return;
        }
        seen.drain(..).for_each(|seen| self.memory.drop_chunk(seen.copy.id));
        work.flight.sight.conclude(Verdict::Refuted);
    }
}
