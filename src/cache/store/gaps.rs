//! Joins the empty chunks of a run, so that a year of one item a day does not have an entry for each hour.

use std::slice;
use std::sync::Arc;

use crate::cache::chunk::{Chunk, Settled};
use crate::window::Interval;

/// The fewest chunks that are joined. Fewer would save little, and a purge removes what is joined as a whole.
const MIN_JOINED: usize = 6;

/// A chunk for memory and the disk. In Redis, where each cell has a key of its own, its parts are stored.
#[derive(Debug)]
pub(in crate::cache) struct JoinedChunk {
    pub(in crate::cache) chunk: Arc<Chunk>,
    /// The chunks that it was joined of, ascending; empty if it is not joined.
    joined: Vec<Arc<Chunk>>,
}

impl JoinedChunk {
    /// A chunk that is not joined.
    pub(in crate::cache) fn alone(chunk: &Arc<Chunk>) -> Self {
        Self { chunk: chunk.clone(), joined: Vec::new() }
    }

    /// The chunks that it consists of, ascending: itself, if it is not joined.
    pub(in crate::cache) fn parts(&self) -> &[Arc<Chunk>] {
        if self.joined.is_empty() { slice::from_ref(&self.chunk) } else { &self.joined }
    }

    /// An empty chunk that consists of adjacent ones of one fetch.
    fn gap(parts: &[Arc<Chunk>]) -> Option<Self> {
        let [first, .., last] = parts else { return None };
        if parts.len() < MIN_JOINED {
            return None;
        }
        let interval = Interval::new(first.interval().start, last.interval().end);
        let chunk = Chunk::new(interval, first.fetched_at(), Settled::Yes, &[]).with_epoch(first.epoch());
        Some(Self { chunk: Arc::new(chunk), joined: parts.to_vec() })
    }
}

/// Joins adjacent chunks of one fetch that are empty and settled, if they are many. The others, and the order, stay.
pub(in crate::cache) fn join_gaps(
    chunks: &[Arc<Chunk>],
    is_settled: impl Fn(&Chunk) -> bool,
) -> impl Iterator<Item = JoinedChunk> {
    let joins = move |last: &Arc<Chunk>, next: &Arc<Chunk>| {
        let is_adjacent = last.interval().end == next.interval().start;
        let is_same_fetch = (last.fetched_at(), last.epoch()) == (next.fetched_at(), next.epoch());
        is_adjacent && is_same_fetch && [last, next].iter().all(|chunk| chunk.is_empty() && is_settled(chunk))
    };
    chunks.chunk_by(joins).flat_map(|parts| match JoinedChunk::gap(parts) {
        Some(gap) => vec![gap],
        None => parts.iter().map(JoinedChunk::alone).collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::paging::Item;
    use crate::window::Timestamp;

    fn hours(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start * 3600), Timestamp::from_seconds(end * 3600))
    }

    /// The chunk of an hour.
    fn chunk(hour: i64, fetched_at: i64, epoch: u64, items: usize) -> Arc<Chunk> {
        let item = Item { at: Timestamp::from_seconds(hour * 3600), id: "1".into(), json: "{}".into() };
        let chunk =
            Chunk::new(hours(hour, hour + 1), Timestamp::from_seconds(fetched_at), Settled::Yes, &vec![item; items]);
        Arc::new(chunk.with_epoch(epoch))
    }

    fn joined(chunks: &[Arc<Chunk>]) -> Vec<(Interval, usize)> {
        join_gaps(chunks, |_| true).map(|joined| (joined.chunk.interval(), joined.chunk.len())).collect()
    }

    #[test]
    fn year_of_one_item_a_day_has_two_chunks_a_day() {
        let year: Vec<_> = (0..366 * 24).map(|hour| chunk(hour, 99, 7, usize::from(hour % 24 == 12))).collect();
        assert_eq!(joined(&year).len(), 2 * 366 + 1);
    }

    #[test]
    fn few_chunks_are_not_joined() {
        let night: Vec<_> = (0..6).map(|hour| chunk(hour, 99, 7, 0)).collect();
        assert_eq!((joined(&night).len(), joined(&night[..5]).len()), (1, 5));
    }

    #[test]
    fn chunks_of_other_fetches_and_open_ones_are_not_joined() {
        let six = |from, fetched_at, epoch| (from..from + 6).map(move |hour| chunk(hour, fetched_at, epoch, 0));
        let count = |next: &[Arc<Chunk>]| joined(&[&six(0, 99, 7).collect::<Vec<_>>(), next].concat()).len();
        assert_eq!(count(&six(6, 99, 7).collect::<Vec<_>>()), 1);
        assert_eq!(count(&[chunk(6, 99, 7, 1)]), 2);
        for next in [six(6, 98, 7), six(6, 99, 8), six(7, 99, 7)] {
            assert_eq!(count(&next.collect::<Vec<_>>()), 2);
        }
        let is_settled = |chunk: &Chunk| chunk.interval().end <= hours(0, 6).end;
        let twelve: Vec<_> = (0..12).map(|hour| chunk(hour, 99, 7, 0)).collect();
        assert_eq!(join_gaps(&twelve, is_settled).count(), 1 + 6);
    }

    proptest! {
        #[test]
        fn joined_chunks_cover_the_same_time_with_the_same_items(
            runs in prop::collection::vec((0i64..3, 0u64..2, prop::collection::vec(prop::bool::weighted(0.1), 1..40)), 1..5),
        ) {
            let hour_of_run = runs.into_iter().flat_map(|(fetched_at, epoch, hours)| {
                hours.into_iter().map(move |has_items| (fetched_at, epoch, usize::from(has_items)))
            });
            let chunks: Vec<_> = (0..).zip(hour_of_run).map(|(hour, (at, epoch, items))| chunk(hour, at, epoch, items)).collect();
            let all: Vec<_> = join_gaps(&chunks, |_| true).collect();
            let parts: Vec<_> = all.iter().flat_map(JoinedChunk::parts).map(|part| part.interval()).collect();
            prop_assert_eq!(parts, chunks.iter().map(|chunk| chunk.interval()).collect::<Vec<_>>());
            for joined in &all {
                let (chunk, parts) = (&joined.chunk, joined.parts());
                let (first, last) = (&parts[0], &parts[parts.len() - 1]);
                prop_assert_eq!(chunk.interval(), Interval::new(first.interval().start, last.interval().end));
                prop_assert_eq!(chunk.len(), parts.iter().map(|part| part.len()).sum::<usize>());
                for part in parts {
                    prop_assert_eq!((chunk.fetched_at(), chunk.epoch()), (part.fetched_at(), part.epoch()));
                }
            }
            // No two neighbours are left that could be joined.
            prop_assert_eq!(joined(&all.iter().map(|joined| joined.chunk.clone()).collect::<Vec<_>>()).len(), all.len());
        }
    }
}
