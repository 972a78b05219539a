//! What becomes of what a run brings: it is cut into chunks, and these are put on their shelf, if they are worth it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::entries::CacheEntry;
use crate::cache::chunk::{Chunk, Settled};
use crate::cache::fetch::FetchTask;
use crate::cache::fetch::Fetcher;
use crate::cache::outcome::NotStored;
use crate::cache::series::SeriesState;
use crate::clock::SKEW;
use crate::paging::{Item, ItemPacker, PlacementCheck, RunPart};
use crate::telemetry;
use crate::window::{FreshnessPolicy, Grid, Interval, Timestamp};

/// The bytes of items that one chunk holds at most, unless they all lie in one second.
const CHUNK_TEXT: usize = 1 << 20;
/// So many chunks are stored between two looks at what has gone from memory.
const STORED_BETWEEN_SWEEPS: u64 = 4096;

/// Cuts what a run brings into chunks.
#[derive(Clone, Debug)]
pub(in crate::cache) struct ChunkPacker {
    freshness_policy: FreshnessPolicy,
    grid: Grid,
    placed: PlacementCheck,
    /// The last purge of the account that was known when the run began.
    epoch: u64,
}

impl ChunkPacker {
    pub(in crate::cache) fn new(
        freshness_policy: &FreshnessPolicy,
        grid: Grid,
        placed: PlacementCheck,
        epoch: u64,
    ) -> Self {
        Self { freshness_policy: freshness_policy.clone(), grid, placed, epoch }
    }

    fn cut(&self, part: &RunPart) -> Vec<Arc<Chunk>> {
        let (settled, open) = part.interval.split_at(self.freshness_policy.settled_before(part.fetched_at));
        [(settled, Settled::Yes), (open, Settled::No)]
            .into_iter()
            .flat_map(|(interval, settled)| {
                let pieces = self.grid.cut(interval, |piece| text_len(items_within(&part.items, piece)) <= CHUNK_TEXT);
                pieces.into_iter().map(move |piece| (piece, settled))
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
        match self.placed {
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

impl Fetcher {
    /// Keeps those chunks that are worth it, which a flight has brought of `interval`.
    pub(in crate::cache) fn store_chunks(
        self: &Arc<Self>,
        work: &FetchTask,
        interval: Interval,
        chunks: &[Arc<Chunk>],
    ) {
        let mut shelf = work.shelf.lock();
        for chunk in chunks.iter().chain(&self.nothing_ahead(work, interval, chunks)) {
            if self.put(work, &mut shelf, chunk).is_err_and(|why| {
                telemetry::not_stored(why.label());
                true
            }) {
                continue;
            }
            if self.stored.fetch_add(1, Ordering::Relaxed) % STORED_BETWEEN_SWEEPS == STORED_BETWEEN_SWEEPS - 1 {
                let fetcher = self.clone();
                drop(tokio::task::spawn_blocking(move || fetcher.series_map.sweep(&fetcher.memory)));
            }
        }
    }

    /// What a run that reached up to now has learnt besides: that nothing lay ahead. So one who asks a moment later, up
    /// to a now that is a moment later, need not ask for that moment before the ladder says so.
    fn nothing_ahead(&self, work: &FetchTask, interval: Interval, chunks: &[Arc<Chunk>]) -> Option<Arc<Chunk>> {
        let spec = &work.flight.spec;
        let ahead = self.freshness_policy.ahead_of(interval.end);
        // One that was cut has learnt that there is more.
        let is_whole = interval.end == spec.interval.end;
        let is_news = is_whole && spec.placed == PlacementCheck::Checked && ahead.contains(spec.began_at);
        // What another replica has brought may be of a run that began before the errand did.
        let epoch = chunks.iter().map(|chunk| chunk.epoch()).fold(spec.epoch, u64::min);
        is_news.then(|| Arc::new(Chunk::new(ahead, ahead.start, Settled::No, &[]).with_epoch(epoch)))
    }

    /// Puts a chunk on its shelf.
    fn put(&self, work: &FetchTask, shelf: &mut SeriesState, chunk: &Arc<Chunk>) -> Result<(), NotStored> {
        let (interval, placed, agentic) = (chunk.interval(), work.flight.spec.placed, work.flight.spec.agentic);
        if !self.is_storable(chunk, placed) {
            return Err(NotStored::AlwaysAskedAfresh);
        }
        if self.clock.is_wrong() && interval.end <= self.freshness_policy.settled_before(chunk.fetched_at()) {
            return Err(NotStored::WrongClock);
        }
        // Under the shelf's lock: a purge that comes now sweeps the shelf when this is on it, or is known already.
        if self.purges.is_purged(&work.series, chunk) {
            return Err(NotStored::Purged);
        }
        let exact = placed == PlacementCheck::Unchecked;
        let copy = self.insert_entry(chunk);
        let id = copy.id;
        // What another replica has brought, that one has written.
        if let Some(tier) = self.redis.as_ref().filter(|_| !exact && !work.flight.is_remote()) {
            tier.queue_write(&work.series, chunk);
        }
        if exact {
            shelf.exact.insert((interval, agentic), copy);
        } else if !shelf.put(agentic, copy, &self.memory) {
            self.memory.remove(id);
            return Err(NotStored::Outdated);
        }
        Ok(())
    }

    /// Keeps a chunk in memory.
    pub(in crate::cache) fn insert_entry(&self, chunk: &Arc<Chunk>) -> CacheEntry {
        self.latest_fetch.fetch_max(chunk.fetched_at().as_nanos(), Ordering::Relaxed);
        CacheEntry::keep(chunk, &self.memory)
    }

    /// Forgets the copies that memory has from the future, if the clock was ahead when they were fetched and says `now`
    /// again: they may have been taken for settled when they were not.
    pub(in crate::cache) fn remove_future_entries(&self, now: Timestamp) {
        let latest = (now + SKEW).as_nanos();
        if self.latest_fetch.load(Ordering::Relaxed) > latest {
            self.latest_fetch.store(latest, Ordering::Relaxed);
            self.series_map.remove_fetched_after(now + SKEW, &self.memory);
        }
    }

    /// Whether a chunk can serve anybody later.
    pub(in crate::cache) fn is_storable(&self, chunk: &Chunk, placed: PlacementCheck) -> bool {
        let (interval, fetched_at) = (chunk.interval(), chunk.fetched_at());
        let settled = interval.end <= self.freshness_policy.settled_before(fetched_at);
        // An open window that cannot be cut is cut at now, and now never comes again.
        settled || (placed == PlacementCheck::Checked && self.freshness_policy.worth_keeping(interval, fetched_at))
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
