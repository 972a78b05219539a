//! When chunks are written to disk: in the background, as soon as they are cached; if that fails, again after a pause.
//! Also makes room for them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::read::DiskHit;
use super::record::{RecordMeta, series_to_bytes};
use super::state::DiskState;
use super::tier::{ActiveSegment, DiskContext, DiskTier, DiskWrite, Inner, MAX_SERIES};
use crate::blocking::spawn_work;
use crate::cache::chunk::{Chunk, ids_codec};
use crate::cache::store::{CacheEntry, ChunkFacts, ChunkId, EntryIndex};
use crate::request::Series;
use crate::segment_log::{SegmentLog, Slot};
use crate::telemetry;
use crate::window::Interval;

/// Chunks that are written at a time.
const MAX_BATCH: usize = 64;
/// After a failure, so long nothing is written.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// How often it is checked whether the files are still there.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The longest text of a series, with its filter, of which chunks are written.
const MAX_SERIES_BYTES: usize = 4 << 10;
/// A segment of which less is still used than this share is written anew before others are evicted.
const SPARSE_DIVISOR: u64 = 2;

impl DiskTier {
    /// Queues a chunk of a series, with its key in memory, to be written in the background; dropped if too many bytes
    /// wait.
    pub(in crate::cache) fn queue_write(&self, series: &Arc<Series>, chunk: &Arc<Chunk>, id: ChunkId) {
        if matches!(self.state(), DiskState::Unavailable(_) | DiskState::AwaitingPurges) {
            // Nobody knows for how long, and what waits is held in memory.
            telemetry::disk_write("failed");
            return;
        }
        if !self.0.queued_bytes.try_add(chunk.weight()) {
            telemetry::disk_write("full");
            return;
        }
        let (series, chunk) = (series.clone(), chunk.clone());
        // The task ends with the last tier, so it is there.
        let _ = self.0.writes.send(DiskWrite { series, chunk, id });
    }
}

/// Writes what is queued until the tier is dropped.
pub(super) async fn write_queued(
    tier: Weak<Inner>,
    log: SegmentLog,
    context: Arc<DiskContext>,
    mut queue: mpsc::UnboundedReceiver<DiskWrite>,
) {
    let mut failed_at: Option<Instant> = None;
    let mut checked_at = Instant::now();
    loop {
        let mut batch = Vec::new();
        let received = timeout(CHECK_INTERVAL, queue.recv_many(&mut batch, MAX_BATCH)).await;
        let Some(inner) = tier.upgrade() else { return };
        if received == Ok(0) {
            return;
        }
        let weight = batch.iter().map(|write| write.chunk.weight()).sum();
        let is_check_due = checked_at.elapsed() >= CHECK_INTERVAL;
        if is_check_due {
            checked_at = Instant::now();
        } else if failed_at.is_some_and(|at| at.elapsed() < FAILURE_PAUSE) {
            for _ in &batch {
                telemetry::disk_write("failed");
            }
            inner.queued_bytes.release(weight);
            continue;
        }
        let (log, context) = (log.clone(), context.clone());
        let writer = inner.clone();
        let result = spawn_work(move || writer.write_batch(&log, &context, batch, is_check_due)).await;
        inner.queued_bytes.release(weight);
        match result.unwrap_or_else(|_| Err(io::Error::other("the task was lost"))) {
            // A check that finds nothing wrong says nothing about a full disk.
            Ok(0) => {}
            Ok(_) => {
                failed_at = None;
                inner.set_state(DiskState::Ready);
            }
            Err(error) => {
                failed_at = Some(Instant::now());
                inner.set_state(DiskState::ReadOnly(error.to_string()));
            }
        }
    }
}

impl Inner {
    /// Writes chunks, and tells their entries where they are. Returns how many were written.
    fn write_batch(
        &self,
        log: &SegmentLog,
        context: &DiskContext,
        batch: Vec<DiskWrite>,
        is_check_due: bool,
    ) -> io::Result<usize> {
        if is_check_due {
            log.check()?;
            if self.known_series().len() >= MAX_SERIES {
                self.forget_series(log, context);
            }
        }
        let before = self.active().number;
        let mut count = 0;
        for DiskWrite { series, chunk, id } in batch {
            let Some(state) = context.series_map.find(&series) else { continue };
            // An entry that was replaced meanwhile needs no disk.
            if !state
                .lock()
                .entries
                .by_agentic(series.agentic)
                .within(chunk.interval())
                .any(|(_, entry)| entry.id == id)
            {
                continue;
            }
            let slot = match self.append(log, context, &series, &chunk) {
                Ok(slot) => slot,
                Err(error) => {
                    telemetry::disk_write("failed");
                    return Err(error);
                }
            };
            let Some(slot) = slot else { continue };
            telemetry::disk_write("ok");
            count += 1;
            state.lock().entries.set_slot(series.agentic, chunk.interval(), id, slot);
        }
        let after = self.active().number;
        if before != after && before.is_some() {
            self.make_room(log, context)?;
        }
        Ok(count)
    }

    /// Appends a chunk, after the text of its series if the segment does not have it, and the filter of its ids; `None` if it
    /// was purged, or cannot be kept.
    fn append(
        &self,
        log: &SegmentLog,
        context: &DiskContext,
        series: &Arc<Series>,
        chunk: &Chunk,
    ) -> io::Result<Option<Slot>> {
        let (digest, facts) = (self.digest(series), ChunkFacts::of(chunk));
        // First, since sealing costs processor time.
        if !self.has_room_for(digest, series) {
            telemetry::disk_write("full");
            return Ok(None);
        }
        let text = self.sealed(RecordMeta::Series(digest), |_| series_to_bytes(series));
        let ids = self.sealed(RecordMeta::Ids(digest, facts), |meta| Some(ids_codec::to_bytes(chunk.ids(), meta)));
        let bytes = self.sealed(RecordMeta::Chunk(digest, facts), |meta| chunk.to_bytes(meta));
        let (Some(text), Some(ids), Some(bytes)) = (text, ids, bytes) else { return Ok(None) };
        let needed = [&text, &ids, &bytes].map(|(meta, payload)| SegmentLog::record_bytes(meta.len(), payload.len()));
        let needed = needed.iter().sum();
        if needed > log.max_batch_bytes() || text.1.len() > MAX_SERIES_BYTES {
            return Ok(None);
        }
        let mut active = self.active();
        let Series { account, stream, .. } = &**series;
        if context.purges.is_purged(account, stream, facts.interval, facts.epoch, chunk.ids()) {
            return Ok(None);
        }
        let number = log.reserve(needed)?;
        if active.number != Some(number) {
            *active = ActiveSegment { number: Some(number), series: HashSet::new() };
        }
        if !active.series.contains(&digest) {
            // First, as an erasure overwrites the texts of unknown series.
            self.known_series().insert(digest, series.clone());
            log.append(&text.0, &text.1)?;
            active.series.insert(digest);
        }
        log.append(&ids.0, &ids.1)?;
        log.append(&bytes.0, &bytes.1).map(Some)
    }

    /// The meta bytes and the sealed payload of a record; `encode` is given the meta bytes, its name.
    fn sealed(&self, meta: RecordMeta, encode: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<(Vec<u8>, Vec<u8>)> {
        let meta = meta.to_bytes();
        let payload = encode(&meta).and_then(|bytes| self.cipher.seal(bytes, &meta))?;
        Some((meta, payload))
    }

    /// After a segment was filled: forgets the entries of evicted segments, and writes one anew that is mostly unused.
    fn make_room(&self, log: &SegmentLog, context: &DiskContext) -> io::Result<()> {
        let is_on_disk = |entry: &CacheEntry| entry.slot.is_some_and(|slot| log.contains(slot));
        context.series_map.sweep(&context.memory, is_on_disk);
        self.forget_series(log, context);
        // Not needed as long as there is room for more than one further segment.
        if log.bytes() < self.config.size - self.config.size / 8 {
            return Ok(());
        }
        let used = used_bytes(context);
        let is_sparse = |number: u32, bytes: u64| used.get(&number).copied().unwrap_or(0) < bytes / SPARSE_DIVISOR;
        let active = self.active().number;
        let sparse = log.segments().into_iter().filter(|segment| Some(segment.segment) != active);
        let sparsest = sparse
            .filter(|segment| is_sparse(segment.segment, segment.bytes))
            .min_by_key(|segment| used.get(&segment.segment).copied().unwrap_or(0));
        match sparsest {
            Some(segment) => self.compact(log, context, segment.segment),
            None => Ok(()),
        }
    }

    /// Forgets the series of which no entry refers to the disk any more, since each takes memory. The active segment has the
    /// text of its series, and further chunks of them come without it.
    pub(super) fn forget_series(&self, log: &SegmentLog, context: &DiskContext) {
        let active = self.active().series.clone();
        let is_on_disk = |(_, entry): (Interval, &CacheEntry)| entry.slot.is_some_and(|slot| log.contains(slot));
        let known = self.known_series().clone();
        let gone = known.into_iter().filter(|(digest, series)| {
            let state = context.series_map.find(series);
            !active.contains(digest) && !state.is_some_and(|state| state.lock().entries.all().any(is_on_disk))
        });
        let gone: HashSet<_> = gone.map(|(digest, _)| digest).collect();
        self.known_series().retain(|digest, _| !gone.contains(digest));
    }

    /// Writes the chunks of a segment anew that entries still refer to, and removes the segment.
    fn compact(&self, log: &SegmentLog, context: &DiskContext, number: u32) -> io::Result<()> {
        let all: Vec<_> = self.known_series().values().cloned().collect();
        for series in all {
            let Some(state) = context.series_map.find(&series) else { continue };
            let entries = slots_in(&state.lock().entries, series.agentic, number);
            for (slot, facts) in entries {
                let hit = DiskHit { slot, facts, agentic: series.agentic, is_unfiltered: false };
                let Some(chunk) = self.decode(&series, &hit, log.read(slot)) else { continue };
                if let Some(moved) = self.append(log, context, &series, &chunk)? {
                    state.lock().entries.move_slot(series.agentic, facts.interval, slot, moved);
                }
            }
        }
        log.remove(number)
    }
}

/// Bytes that entries refer to, by segment.
fn used_bytes(context: &DiskContext) -> HashMap<u32, u64> {
    let mut used = HashMap::new();
    let mut last = None;
    for state in context.series_map.all() {
        for (_, entry) in state.lock().entries.all() {
            // A chunk may have several entries, side by side.
            if let Some(slot) = entry.slot.filter(|slot| last != Some(*slot)) {
                *used.entry(slot.segment).or_default() += u64::from(slot.len);
                last = Some(slot);
            }
        }
    }
    used
}

/// The chunks of a segment that entries refer to.
fn slots_in(entries: &EntryIndex, agentic: bool, number: u32) -> Vec<(Slot, ChunkFacts)> {
    let all = entries.by_agentic(agentic).within(Interval::EVER);
    let own = all.filter_map(|(_, entry)| Some((entry.slot.filter(|slot| slot.segment == number)?, entry.facts())));
    let mut slots: Vec<_> = own.collect();
    slots.dedup_by_key(|(slot, _)| *slot);
    slots
}
