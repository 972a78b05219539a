//! Overwrites what was purged, what has grown too old, and what cannot be told apart from it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, PoisonError};

use super::record::{RecordMeta, SeriesDigest};
use super::tier::{DiskTier, Inner};
use crate::blocking::spawn_work;
use crate::cache::chunk::ids_codec;
use crate::cache::redis::PurgeCheck;
use crate::cache::series::SeriesMap;
use crate::cache::store::ChunkFacts;
use crate::request::{IdFilter, Series};
use crate::segment_log::{SegmentLog, Slot};

/// Chunks on disk.
type ChunkSet = HashSet<(SeriesDigest, ChunkFacts)>;

impl DiskTier {
    /// Overwrites the chunks that are purged, and removes the entries of those that are because of their ids. Returns how
    /// many there were, superseded ones included.
    ///
    /// # Errors
    /// If the disk fails. Then the chunks are still not served.
    pub(in crate::cache) async fn erase_purged(
        &self,
        purges: Arc<dyn PurgeCheck>,
        series_map: SeriesMap,
    ) -> io::Result<u64> {
        self.until_erasable().await?;
        let inner = self.0.clone();
        let erase = move || {
            let Some(log) = inner.log.get() else { return Ok(0) };
            let _guard = inner.erasure.lock().unwrap_or_else(PoisonError::into_inner);
            let by_ids = inner.find_by_ids(log, &*purges)?;
            let by_filter = inner.find_by_filter(&*purges);
            let erased = inner.erase(&by_filter, |digest, series, facts| {
                is_purged(&*purges, series, facts, &IdFilter::default()) || by_ids.contains(&(digest, *facts))
            });
            inner.remove_entries(&series_map, &by_ids);
            erased
        };
        spawn_work(erase).await.unwrap_or_else(|_| Err(io::Error::other("the task was lost")))
    }

    /// Overwrites the chunks for which `is_erased` is true. Those of a series that is unknown, because its record is
    /// damaged, are overwritten too. Returns how many there were.
    ///
    /// # Errors
    /// If the disk fails, or the index is not loaded.
    pub(in crate::cache) async fn erase_if(
        &self,
        is_erased: impl Fn(&Series, &ChunkFacts) -> bool + Send + 'static,
    ) -> io::Result<u64> {
        self.until_erasable().await?;
        let inner = self.0.clone();
        let erase = move || inner.erase(&HashSet::new(), |_, series, facts| is_erased(series, facts));
        spawn_work(erase).await.unwrap_or_else(|_| Err(io::Error::other("the task was lost")))
    }

    /// Waits until the index is loaded. Before that no series is known, so that all chunks would be erased; and nothing is
    /// served from disk.
    ///
    /// # Errors
    /// If the index is not there after a while.
    async fn until_erasable(&self) -> io::Result<()> {
        self.until_loaded().await;
        let state = self.state();
        if state.is_loaded() {
            return Ok(());
        }
        Err(io::Error::other(state.problem().unwrap_or_else(|| "it is not loaded yet".to_owned())))
    }
}

fn is_purged(purges: &dyn PurgeCheck, series: &Series, facts: &ChunkFacts, ids: &IdFilter) -> bool {
    purges.is_purged(&series.account, &series.stream, facts.interval, facts.epoch, ids)
}

impl Inner {
    /// Overwrites the chunks for which `is_erased` is true, and all that is there of `erased_series`.
    fn erase(
        &self,
        erased_series: &HashSet<SeriesDigest>,
        is_erased: impl Fn(SeriesDigest, &Series, &ChunkFacts) -> bool,
    ) -> io::Result<u64> {
        let Some(log) = self.log.get() else { return Ok(0) };
        // A record that is being appended was checked before the purge was known. Those after it are checked by it, and
        // come after the text of their series if that is erased.
        self.active().series.retain(|digest| !erased_series.contains(digest));
        let known = self.known_series().clone();
        let is_erased = |digest: SeriesDigest, facts: &ChunkFacts| {
            erased_series.contains(&digest) || known.get(&digest).is_none_or(|series| is_erased(digest, series, facts))
        };
        let mut chunks = 0;
        log.erase(&mut |meta| match RecordMeta::parse(meta) {
            Some(RecordMeta::Chunk(digest, facts)) => {
                let is_erased = is_erased(digest, &facts);
                chunks += u64::from(is_erased);
                is_erased
            }
            Some(RecordMeta::Ids(digest, facts)) => is_erased(digest, &facts),
            // Nobody could tell whether the filter of an unknown series names an erased id.
            Some(RecordMeta::Series(digest)) => {
                erased_series.contains(&digest) || !self.known_series().contains_key(&digest)
            }
            None => true,
        })?;
        Ok(chunks)
    }

    /// The chunks that are purged because of an id that they may hold, by the filters beside them.
    fn find_by_ids(&self, log: &SegmentLog, purges: &dyn PurgeCheck) -> io::Result<ChunkSet> {
        drop(self.active());
        let known = self.known_series().clone();
        let (mut chunks, mut filters) = (ChunkSet::new(), HashMap::<_, Slot>::new());
        log.scan(&mut |meta, slot| {
            let Some(RecordMeta::Chunk(digest, facts) | RecordMeta::Ids(digest, facts)) = RecordMeta::parse(meta)
            else {
                return;
            };
            let Some(series) = known.get(&digest) else { return };
            let may_be = is_purged(purges, series, &facts, &IdFilter::Any);
            if may_be && !is_purged(purges, series, &facts, &IdFilter::default()) {
                match RecordMeta::parse(meta) {
                    Some(RecordMeta::Ids(..)) => drop(filters.insert((digest, facts), slot)),
                    _ => drop(chunks.insert((digest, facts))),
                }
            }
        })?;
        chunks.retain(|chunk| {
            // A chunk without a readable filter may hold any id.
            let filter = filters.get(chunk).and_then(|slot| self.read_filter(log, *slot));
            let filter = filter.unwrap_or(IdFilter::Any);
            known.get(&chunk.0).is_some_and(|series| is_purged(purges, series, &chunk.1, &filter))
        });
        Ok(chunks)
    }

    /// The series whose filter names an erased id: their text is erased too.
    fn find_by_filter(&self, purges: &dyn PurgeCheck) -> HashSet<SeriesDigest> {
        let known = self.known_series();
        let erased =
            known.iter().filter(|(_, series)| purges.is_erased(&series.account, &series.stream, &series.filter_ids()));
        erased.map(|(digest, _)| *digest).collect()
    }

    fn read_filter(&self, log: &SegmentLog, slot: Slot) -> Option<IdFilter> {
        let record = log.read(slot).ok()?;
        let bytes = self.cipher.open(record.payload, &record.meta).ok()?;
        ids_codec::from_bytes(&bytes, &record.meta)
    }

    /// Removes the entries of these chunks.
    fn remove_entries(&self, series_map: &SeriesMap, chunks: &ChunkSet) {
        let mut by_series = HashMap::<_, HashSet<ChunkFacts>>::new();
        for (digest, facts) in chunks {
            by_series.entry(*digest).or_default().insert(*facts);
        }
        for (digest, facts) in by_series {
            let series = self.known_series().get(&digest).cloned();
            if let Some(state) = series.and_then(|series| series_map.find(&series)) {
                state.lock().entries.retain(|entry| !facts.contains(&entry.facts()));
            }
        }
    }
}
