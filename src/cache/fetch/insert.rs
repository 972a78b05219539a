//! Storing of fetched chunks in memory, on disk and in Redis, and the reasons for not caching one that was fetched.

use std::sync::Arc;

use super::fetcher::Fetcher;
use super::task::FetchTask;
use crate::blocking::spawn_work;
use crate::cache::chunk::{Chunk, Settled};
use crate::cache::outcome::NotStored;
use crate::cache::series::SeriesState;
use crate::cache::store::{CacheEntry, ChunkFacts, JoinedChunk, join_gaps};
use crate::clock::SKEW;
use crate::paging::PlacementCheck;
use crate::request::Series;
use crate::telemetry;
use crate::window::{Interval, Timestamp};

impl Fetcher {
    /// Stores the chunks that a fetch has brought of `interval`, ascending. Returns them as they are in memory.
    pub(in crate::cache) fn store_chunks(
        self: &Arc<Self>,
        task: &FetchTask,
        interval: Interval,
        chunks: &[Arc<Chunk>],
    ) -> Vec<Arc<Chunk>> {
        let joined = self.join_gaps(&task.series, chunks);
        let ahead = self.empty_chunk_ahead(task, interval, chunks);
        let mut state = task.state.lock();
        for chunk in joined.iter().chain(&ahead.as_ref().map(JoinedChunk::alone)) {
            if let Err(reason) = self.store_chunk(task, &mut state, chunk) {
                telemetry::not_stored(reason.label());
                continue;
            }
            self.count_insert();
        }
        drop(state);
        joined.into_iter().map(|joined| joined.chunk).collect()
    }

    /// Joins the empty chunks of a series.
    pub(super) fn join_gaps(&self, series: &Series, chunks: &[Arc<Chunk>]) -> Vec<JoinedChunk> {
        let settings = self.settings.of(series);
        let settled_before = |chunk: &Chunk| settings.freshness_policy.settled_before(chunk.fetched_at());
        join_gaps(chunks, |chunk| chunk.interval().end <= settled_before(chunk)).collect()
    }

    /// An empty chunk ahead of a run that reached up to now: there were no items in the future. So a request a
    /// little later, up to a slightly later now, need not fetch the time between before it is stale.
    fn empty_chunk_ahead(&self, task: &FetchTask, interval: Interval, chunks: &[Arc<Chunk>]) -> Option<Arc<Chunk>> {
        let spec = &task.fetch.spec;
        let ahead = self.settings.of(&task.series).freshness_policy.ahead_of(interval.end);
        // A run that ended early has learnt that there is more.
        let is_whole = interval.end == spec.interval.end;
        let is_news = is_whole && spec.placement == PlacementCheck::Checked && ahead.contains(spec.began_at);
        // Chunks from the leader may be of a run that began before the remote fetch did.
        let epoch = chunks.iter().map(|chunk| chunk.epoch()).fold(spec.epoch, u64::min);
        is_news.then(|| Arc::new(Chunk::new(ahead, ahead.start, Settled::No, &[]).with_epoch(epoch)))
    }

    /// Stores one chunk. The caller holds the lock of the series.
    fn store_chunk(&self, task: &FetchTask, state: &mut SeriesState, joined: &JoinedChunk) -> Result<(), NotStored> {
        let chunk = &joined.chunk;
        let (interval, placement, agentic) = (chunk.interval(), task.fetch.spec.placement, task.fetch.spec.agentic);
        if !self.is_storable(&task.series, chunk, placement) {
            return Err(NotStored::AlwaysAskedAfresh);
        }
        let settings = self.settings.of(&task.series);
        if settings.retained_since(self.clock.now()).is_some_and(|since| interval.end <= since) {
            return Err(NotStored::TooOld);
        }
        let settled_before = settings.freshness_policy.settled_before(chunk.fetched_at());
        if self.clock.is_wrong() && interval.end <= settled_before {
            return Err(NotStored::WrongClock);
        }
        // Under the lock: a purge that comes now either sweeps the series when the chunk is in it, or is known already.
        if self.purges.is_purged(&task.series, chunk) {
            return Err(NotStored::Purged);
        }
        let exact = placement == PlacementCheck::Unchecked;
        let entry = CacheEntry::insert(chunk, &self.memory);
        let id = entry.id;
        // The leader writes the chunks that it fetches to Redis itself.
        if let Some(redis) = self.redis.as_ref().filter(|_| !exact && !task.fetch.is_remote()) {
            for part in joined.parts() {
                redis.queue_write(&task.series, part);
            }
        }
        if exact {
            state.exact.insert((interval, agentic), entry);
        } else if !state.insert(agentic, entry, &self.memory) {
            self.memory.remove(id);
            return Err(NotStored::Outdated);
        } else if let Some(disk) = &self.disk {
            let series = task.series.with_agentic(agentic);
            disk.queue_write(&series, chunk, id);
        }
        Ok(())
    }

    /// Counts a chunk that was inserted into memory. Once in a while, the entries of chunks are removed that are in no tier
    /// any more.
    pub(in crate::cache) fn count_insert(self: &Arc<Self>) {
        if self.series_map.count_insert() {
            let fetcher = self.clone();
            drop(spawn_work(move || {
                let is_on_disk = |entry: &CacheEntry| fetcher.disk.as_ref().is_some_and(|disk| disk.has(entry));
                fetcher.series_map.sweep(&fetcher.memory, is_on_disk);
            }));
        }
    }

    /// Removes the entries that lie in the future, if the clock was ahead when they were fetched and was set back to
    /// `now`: they may have been taken for settled when they were not.
    pub(in crate::cache) fn remove_future_entries(&self, now: Timestamp) {
        let latest = now + SKEW;
        if self.memory.take_fetched_after(latest) {
            self.series_map.remove_fetched_after(latest, &self.memory);
            self.erase_from_disk(move |_, facts| facts.fetched_at > latest);
        }
    }

    /// Overwrites chunks on disk in the background, so that the next process does not find them.
    pub(in crate::cache) fn erase_from_disk(&self, is_erased: impl Fn(&Series, &ChunkFacts) -> bool + Send + 'static) {
        if let Some(disk) = self.disk.clone() {
            tokio::spawn(async move {
                if let Err(error) = disk.erase_if(is_erased).await {
                    telemetry::disk_failed("erase", &error);
                }
            });
        }
    }

    /// Whether a chunk can serve a later request.
    pub(in crate::cache) fn is_storable(&self, series: &Series, chunk: &Chunk, placement: PlacementCheck) -> bool {
        let (interval, fetched_at) = (chunk.interval(), chunk.fetched_at());
        let settings = self.settings.of(series);
        let policy = &settings.freshness_policy;
        let settled = interval.end <= policy.settled_before(fetched_at);
        // An open window that is fetched exactly ends at now, and no later window ends there.
        settled || (placement == PlacementCheck::Checked && policy.worth_keeping(interval, fetched_at))
    }
}
