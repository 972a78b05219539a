//! What becomes of what a run brings: it is cut into chunks, and these are put on their shelf, if they are worth it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chunk::{Chunk, Settled};
use super::copies::Copy;
use super::fetch::Fetcher;
use super::outcome::NotStored;
use super::shelf::Shelf;
use super::work::Work;
use crate::clock::SKEW;
use crate::repage::{Item, ItemPacker, Placed, RunPart};
use crate::telemetry;
use crate::window::{Grid, Ladder, Moment, Span};

/// The bytes of items that one chunk holds at most, unless they all lie in one second.
const CHUNK_TEXT: usize = 1 << 20;
/// So many chunks are stored between two looks at what has gone from memory.
const STORED_BETWEEN_SWEEPS: u64 = 4096;

/// Cuts what a run brings into chunks.
#[derive(Clone, Debug)]
pub(super) struct ChunkPacker {
    ladder: Ladder,
    grid: Grid,
    placed: Placed,
    /// The last purge of the account that was known when the run began.
    epoch: u64,
}

impl ChunkPacker {
    pub(super) fn new(ladder: &Ladder, grid: Grid, placed: Placed, epoch: u64) -> Self {
        Self { ladder: ladder.clone(), grid, placed, epoch }
    }

    fn cut(&self, part: &RunPart) -> Vec<Arc<Chunk>> {
        let (settled, open) = part.span.split_at(self.ladder.settled_before(part.fetched_at));
        [(settled, Settled::Yes), (open, Settled::No)]
            .into_iter()
            .flat_map(|(span, settled)| {
                let pieces = self.grid.cut(span, |piece| text_len(items_within(&part.items, piece)) <= CHUNK_TEXT);
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
            Placed::Checked => self.cut(&part),
            Placed::Unchecked => {
                let chunk = Chunk::new(part.span, part.fetched_at, Settled::Yes, &part.items);
                vec![Arc::new(chunk.with_epoch(self.epoch))]
            }
        }
    }

    fn weight(chunk: &Arc<Chunk>) -> usize {
        chunk.weight()
    }
}

impl Fetcher {
    /// Keeps those chunks that are worth it, which a flight has brought of `span`.
    pub(super) fn shelve(self: &Arc<Self>, work: &Work, span: Span, chunks: &[Arc<Chunk>]) {
        let mut shelf = work.shelf.lock();
        for chunk in chunks.iter().chain(&self.nothing_ahead(work, span, chunks)) {
            if self.put(work, &mut shelf, chunk).is_err_and(|why| {
                telemetry::not_stored(why.label());
                true
            }) {
                continue;
            }
            if self.stored.fetch_add(1, Ordering::Relaxed) % STORED_BETWEEN_SWEEPS == STORED_BETWEEN_SWEEPS - 1 {
                let fetcher = self.clone();
                drop(tokio::task::spawn_blocking(move || fetcher.shelves.sweep(&fetcher.memory)));
            }
        }
    }

    /// What a run that reached up to now has learnt besides: that nothing lay ahead. So one who asks a moment later, up
    /// to a now that is a moment later, need not ask for that moment before the ladder says so.
    fn nothing_ahead(&self, work: &Work, span: Span, chunks: &[Arc<Chunk>]) -> Option<Arc<Chunk>> {
        let route = &work.flight.route;
        let ahead = self.ladder.ahead_of(span.end);
        // One that was cut has learnt that there is more.
        let is_whole = span.end == route.span.end;
        let is_news = is_whole && route.placed == Placed::Checked && ahead.contains(route.began_at);
        // What another replica has brought may be of a run that began before the errand did.
        let epoch = chunks.iter().map(|chunk| chunk.epoch()).fold(route.epoch, u64::min);
        is_news.then(|| Arc::new(Chunk::new(ahead, ahead.start, Settled::No, &[]).with_epoch(epoch)))
    }

    /// Puts a chunk on its shelf.
    fn put(&self, work: &Work, shelf: &mut Shelf, chunk: &Arc<Chunk>) -> Result<(), NotStored> {
        let (span, placed, rich) = (chunk.span(), work.flight.route.placed, work.flight.route.rich);
        if !self.is_kept(chunk, placed) {
            return Err(NotStored::AlwaysAskedAfresh);
        }
        if self.clock.is_wrong() && span.end <= self.ladder.settled_before(chunk.fetched_at()) {
            return Err(NotStored::WrongClock);
        }
        // Under the shelf's lock: a purge that comes now sweeps the shelf when this is on it, or is known already.
        if self.purges.buries(&work.series, chunk) {
            return Err(NotStored::Purged);
        }
        let exact = placed == Placed::Unchecked;
        let copy = self.keep_copy(chunk);
        let id = copy.id;
        // What another replica has brought, that one has written.
        if let Some(tier) = self.tier.as_ref().filter(|_| !exact && !work.flight.is_elsewhere()) {
            tier.keep(&work.series, chunk);
        }
        if exact {
            shelf.exact.insert((span, rich), copy);
        } else if !shelf.put(rich, copy, &self.memory) {
            self.memory.drop_chunk(id);
            return Err(NotStored::Outdated);
        }
        Ok(())
    }

    /// Keeps a chunk in memory.
    pub(super) fn keep_copy(&self, chunk: &Arc<Chunk>) -> Copy {
        self.latest_fetch.fetch_max(chunk.fetched_at().as_nanos(), Ordering::Relaxed);
        Copy::keep(chunk, &self.memory)
    }

    /// Forgets the copies that memory has from the future, if the clock was ahead when they were fetched and says `now`
    /// again: they may have been taken for settled when they were not.
    pub(super) fn forget_future(&self, now: Moment) {
        let latest = (now + SKEW).as_nanos();
        if self.latest_fetch.load(Ordering::Relaxed) > latest {
            self.latest_fetch.store(latest, Ordering::Relaxed);
            self.shelves.forget_later_than(now + SKEW, &self.memory);
        }
    }

    /// Whether a chunk can serve anybody later.
    pub(super) fn is_kept(&self, chunk: &Chunk, placed: Placed) -> bool {
        let (span, fetched_at) = (chunk.span(), chunk.fetched_at());
        let settled = span.end <= self.ladder.settled_before(fetched_at);
        // An open window that cannot be cut is cut at now, and now never comes again.
        settled || (placed == Placed::Checked && self.ladder.worth_keeping(span, fetched_at))
    }
}

fn items_within(items: &[Item], span: Span) -> &[Item] {
    let start = items.partition_point(|item| item.at < span.start);
    let end = items.partition_point(|item| item.at < span.end);
    &items[start..end]
}

fn text_len(items: &[Item]) -> usize {
    items.iter().map(|item| item.json.len()).sum()
}
