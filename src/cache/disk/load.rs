//! What happens at the start with what is on disk: the log is opened, the purges are learned, and the entries are made
//! again. Then chunks are written until the tier is dropped. Whatever fails is tried again.

use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::record::{RecordMeta, SeriesDigest, series_from_bytes};
use super::state::DiskState;
use super::tier::{DiskContext, DiskTier, DiskWrite, Inner};
use super::write::write_queued;
use crate::blocking::spawn_work;
use crate::cache::series::SharedSeriesState;
use crate::cache::store::{CacheEntry, ChunkFacts};
use crate::request::{IdFilter, Series};
use crate::segment_log::{LogSettings, OpenError, SegmentLog, Slot};
use crate::telemetry;

/// Pause between two attempts to open the directory, or to learn the purges.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

impl DiskTier {
    /// Loads what is on disk, and writes from then on. Must be called on a runtime.
    pub(in crate::cache) fn start(&self, context: DiskContext) {
        if let Some(queue) = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let inner = Arc::downgrade(&self.0);
            tokio::spawn(run(inner, Arc::new(context), queue));
        }
    }
}

/// Runs the tier until it is dropped.
async fn run(tier: Weak<Inner>, context: Arc<DiskContext>, queue: mpsc::UnboundedReceiver<DiskWrite>) {
    let Some(log) = open(&tier).await else { return };
    loop {
        let why = match context.purges.learn_all().await {
            Ok(true) => break,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let Some(inner) = tier.upgrade() else { return };
        match why {
            None => inner.set_state(DiskState::AwaitingPurges),
            Some(error) => {
                inner.set_state(DiskState::Unavailable(error.to_string()));
                if error.kind() == io::ErrorKind::InvalidData {
                    // What was purged will never be known, so everything is deleted.
                    let (log, purges) = (log.clone(), context.purges.clone());
                    let cleared = spawn_work(move || log.clear().and_then(|()| purges.forget_journal())).await;
                    if let Ok(Err(error)) = cleared {
                        telemetry::disk_failed("clear", &error);
                    }
                }
            }
        }
        drop(inner);
        sleep(RETRY_INTERVAL).await;
    }
    let Some(inner) = tier.upgrade() else { return };
    inner.set_state(DiskState::Loading);
    let loader = (inner.clone(), log.clone(), context.clone());
    // A panic would leave requests waiting.
    let has_purged = spawn_work(move || loader.0.load(&loader.1, &loader.2)).await.unwrap_or(true);
    inner.set_state(DiskState::Ready);
    // What was purged while this replica was away, or when it ended, is still there.
    if has_purged {
        let erased = DiskTier(inner).erase_purged(context.purges.clone(), context.series_map.clone()).await;
        if let Err(error) = erased {
            telemetry::disk_failed("erase", &error);
        }
    } else {
        drop(inner);
    }
    write_queued(tier, log, context, queue).await;
}

/// Opens the log as soon as that is possible; `None` if the tier was dropped.
async fn open(tier: &Weak<Inner>) -> Option<SegmentLog> {
    loop {
        let inner = tier.upgrade()?;
        let settings = LogSettings::new(&inner.config.path, inner.config.size);
        let opened = spawn_work(move || SegmentLog::open(&settings)).await;
        let why = match opened {
            Ok(Ok(log)) => {
                let _ = inner.log.set(log.clone());
                return Some(log);
            }
            Ok(Err(OpenError::InUse)) => "another process uses the directory".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the task was lost".to_owned(),
        };
        inner.set_state(DiskState::Unavailable(why));
        drop(inner);
        sleep(RETRY_INTERVAL).await;
    }
}

impl Inner {
    /// Sets the state, which is logged if it has changed.
    pub(super) fn set_state(&self, state: DiskState) {
        self.state.send_if_modified(|known| {
            let has_changed = *known != state;
            if has_changed {
                telemetry::disk_state(state.is_working(), state.problem().as_deref());
                *known = state;
            }
            has_changed
        });
    }

    /// Makes an entry for each chunk that may still serve a request. Returns whether some chunk may be purged.
    fn load(&self, log: &SegmentLog, context: &DiskContext) -> bool {
        let mut loader = Loader { inner: self, log, context, current: None, has_purged: false };
        if let Err(error) = log.scan(&mut |meta, slot| loader.visit(meta, slot)) {
            telemetry::disk_failed("load", &error);
        }
        loader.has_purged
    }
}

/// The state of a scan.
struct Loader<'a> {
    inner: &'a Inner,
    log: &'a SegmentLog,
    context: &'a DiskContext,
    /// The series of the last chunk: chunks of one series follow each other.
    current: Option<(SeriesDigest, Arc<Series>, SharedSeriesState)>,
    /// Whether a chunk may be purged.
    has_purged: bool,
}

impl Loader<'_> {
    fn visit(&mut self, meta: &[u8], slot: Slot) {
        match RecordMeta::parse(meta) {
            Some(RecordMeta::Series(digest)) => self.add_series(meta, digest, slot),
            Some(RecordMeta::Chunk(digest, facts)) => self.add_chunk(digest, facts, slot),
            Some(RecordMeta::Ids(..)) | None => {}
        }
    }

    fn add_series(&self, meta: &[u8], digest: SeriesDigest, slot: Slot) {
        if self.inner.known_series().contains_key(&digest) {
            return;
        }
        let Ok(record) = self.log.read(slot) else { return };
        let Ok(text) = self.inner.cipher.open(record.payload, meta) else { return };
        // With other settings of the window, the same series has another digest, and its chunks are not used.
        let series = series_from_bytes(&text).filter(|series| self.inner.digest(series) == digest);
        if let Some(series) = series.filter(|series| self.inner.has_room_for(digest, series)) {
            self.inner.known_series().insert(digest, Arc::new(series));
        }
    }

    fn add_chunk(&mut self, digest: SeriesDigest, facts: ChunkFacts, slot: Slot) {
        if self.current.as_ref().is_none_or(|(current, ..)| *current != digest) {
            let Some(series) = self.inner.known_series().get(&digest).cloned() else { return };
            let state = self.context.series_map.get_or_insert(&series);
            self.current = Some((digest, series, state));
        }
        let Some((_, series, state)) = &self.current else { return };
        let mut state = state.lock();
        // Under the lock: a purge that comes now either sweeps the entry, or is known already.
        // Erasures by ids are applied when the chunk is read, and when all are loaded.
        let Series { account, stream, .. } = &**series;
        let is_purged =
            |ids: &IdFilter| self.context.purges.is_purged(account, stream, facts.interval, facts.epoch, ids);
        self.has_purged |= is_purged(&IdFilter::Any);
        let is_purged = is_purged(&IdFilter::default());
        if !is_purged && (self.context.is_useful)(series, &facts) {
            state.insert(series.agentic, CacheEntry::on_disk(facts, Some(slot)), &self.context.memory);
        }
    }
}
