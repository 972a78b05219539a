//! Cuts the items of a run into chunks.

use std::sync::Arc;

use crate::cache::chunk::{Chunk, Settled};
use crate::paging::{Item, ItemPacker, PlacementCheck, RunPart};
use crate::window::{FreshnessPolicy, Grid, Interval};

/// The most bytes of items in one chunk, unless they all lie in one second.
const MAX_CHUNK_TEXT_BYTES: usize = 1 << 20;

/// Cuts the items of a run into chunks: where they settle, at the lines of the grid, and finer where they are dense.
#[derive(Clone, Debug)]
pub(in crate::cache) struct ChunkPacker {
    freshness_policy: FreshnessPolicy,
    grid: Grid,
    placement: PlacementCheck,
    /// The last purge of the account that was known when the run began.
    epoch: u64,
}

impl ChunkPacker {
    pub(in crate::cache) fn new(
        freshness_policy: &FreshnessPolicy,
        grid: Grid,
        placement: PlacementCheck,
        epoch: u64,
    ) -> Self {
        Self { freshness_policy: freshness_policy.clone(), grid, placement, epoch }
    }

    fn cut(&self, part: &RunPart) -> Vec<Arc<Chunk>> {
        let (settled, open) = part.interval.split_at(self.freshness_policy.settled_before(part.fetched_at));
        [(settled, Settled::Yes), (open, Settled::No)]
            .into_iter()
            .flat_map(|(interval, settled)| {
                let fits = |piece| text_len(items_within(&part.items, piece)) <= MAX_CHUNK_TEXT_BYTES;
                self.grid.cut(interval, fits).into_iter().map(move |piece| (piece, settled))
            })
            .map(|(piece, settled)| {
                let items = items_within(&part.items, piece);
                let chunk = Chunk::new(piece, part.fetched_at, settled, items);
                Arc::new(chunk.with_epoch(self.epoch))
            })
            .collect()
    }
}

impl ItemPacker for ChunkPacker {
    type Packed = Arc<Chunk>;

    fn pack(&self, part: RunPart) -> Vec<Arc<Chunk>> {
        match self.placement {
            PlacementCheck::Checked => self.cut(&part),
            PlacementCheck::Unchecked => {
                let chunk = Chunk::new(part.interval, part.fetched_at, Settled::Yes, &part.items);
                vec![Arc::new(chunk.with_epoch(self.epoch))]
            }
        }
    }

    fn weight(chunk: &Arc<Chunk>) -> usize {
        chunk.weight()
    }
}

fn items_within(items: &[Item], interval: Interval) -> &[Item] {
    let start = items.partition_point(|item| item.at < interval.start);
    let end = items.partition_point(|item| item.at < interval.end);
    &items[start..end]
}

fn text_len(items: &[Item]) -> usize {
    items.iter().map(|item| item.json.len()).sum()
}
