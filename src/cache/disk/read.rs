//! Reads chunks. What is not exactly what its entry says is a miss.

use std::sync::Arc;

use super::record::RecordMeta;
use super::tier::{DiskTier, Inner};
use crate::blocking::spawn_work;
use crate::cache::chunk::Chunk;
use crate::cache::store::ChunkFacts;
use crate::request::Series;
use crate::segment_log::{ReadError, Record, SegmentLog, Slot};
use crate::telemetry;
use crate::telemetry::Tier;

/// Bytes up to which chunks are read at once if the operating system has them in memory: less than it costs to move to
/// another thread.
const MAX_INLINE_BYTES: u64 = 256 << 10;

/// A chunk on disk that serves a part of a window.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct DiskHit {
    pub(in crate::cache) slot: Slot,
    pub(in crate::cache) facts: ChunkFacts,
    pub(in crate::cache) agentic: bool,
    /// Whether the filter of the request is still to be applied to the items.
    pub(in crate::cache) is_unfiltered: bool,
}

impl DiskTier {
    /// The chunks of a series at `hits`, in their order; `None` for those that cannot be read.
    pub(in crate::cache) async fn read(&self, series: &Arc<Series>, hits: &[DiskHit]) -> Vec<Option<Arc<Chunk>>> {
        let Some(log) = self.0.log.get() else { return vec![None; hits.len()] };
        let mut chunks = Vec::with_capacity(hits.len());
        let is_small = hits.iter().map(|hit| u64::from(hit.slot.len)).sum::<u64>() <= MAX_INLINE_BYTES;
        for hit in hits.iter().take_while(|_| is_small) {
            let Some(read) = log.read_cached(hit.slot) else { break };
            chunks.push(self.0.decode(series, hit, read));
        }
        let rest = hits[chunks.len()..].to_vec();
        if !rest.is_empty() {
            let (inner, log, series) = (self.0.clone(), log.clone(), series.clone());
            let count = rest.len();
            let read = spawn_work(move || inner.read_all(&log, &series, &rest)).await;
            chunks.extend(read.unwrap_or_else(|_| vec![None; count]));
        }
        chunks
    }
}

impl Inner {
    fn read_all(&self, log: &SegmentLog, series: &Series, hits: &[DiskHit]) -> Vec<Option<Arc<Chunk>>> {
        let chunks: Vec<_> = hits.iter().map(|hit| self.decode(series, hit, log.read(hit.slot))).collect();
        let found = chunks.iter().flatten().count();
        telemetry::tier_lookups(Tier::Disk, found, chunks.len() - found);
        chunks
    }

    /// The chunk of a record, if it is the one that the hit names.
    pub(super) fn decode(&self, series: &Series, hit: &DiskHit, read: Result<Record, ReadError>) -> Option<Arc<Chunk>> {
        let record = match read {
            Ok(record) => record,
            Err(error) => {
                telemetry::disk_read(match &error {
                    ReadError::Gone => "gone",
                    ReadError::Damaged => "damaged",
                    ReadError::Io(_) => "failed",
                });
                if let ReadError::Io(error) = error {
                    telemetry::disk_failed("read", &error);
                }
                return None;
            }
        };
        let is_named = record.meta[..] == RecordMeta::Chunk(self.digest(series), hit.facts).to_bytes()[..];
        let opened = if is_named { self.cipher.open(record.payload, &record.meta).ok() } else { None };
        let chunk = opened.and_then(|bytes| Chunk::from_bytes(&bytes, &record.meta));
        let chunk = chunk.filter(|chunk| ChunkFacts::of(chunk) == hit.facts);
        telemetry::disk_read(if chunk.is_some() { "hit" } else { "damaged" });
        chunk.map(Arc::new)
    }
}
