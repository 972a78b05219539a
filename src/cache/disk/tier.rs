//! The disk tier and its state, which the other files of this folder work on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::record::SeriesDigest;
use super::state::DiskState;
use crate::cache::chunk::Chunk;
use crate::cache::queued_bytes::QueuedBytes;
use crate::cache::redis::PurgeCheck;
use crate::cache::redis::keys::ChunkKeys;
use crate::cache::series::SeriesMap;
use crate::cache::store::{CacheEntry, ChunkFacts, ChunkId, Memory};
use crate::config;
use crate::replicas::Cipher;
use crate::request::Series;
use crate::segment_log::SegmentLog;

/// Series with a filter or other parameters of which something is on disk. Each takes some kilobytes of memory.
pub(super) const MAX_SERIES: usize = 16_384;
/// The longest that a request waits for the index to be loaded.
const LOADING_TIMEOUT: Duration = Duration::from_secs(10);

/// The disk tier. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct DiskTier(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: config::DiskConfig,
    pub(super) keys: ChunkKeys,
    pub(super) cipher: Arc<Cipher>,
    /// Set as soon as it is open.
    pub(super) log: OnceLock<SegmentLog>,
    pub(super) state: watch::Sender<DiskState>,
    pub(super) writes: mpsc::UnboundedSender<DiskWrite>,
    /// The other end of `writes`, until the tier is started.
    pub(super) queue: Mutex<Option<mpsc::UnboundedReceiver<DiskWrite>>>,
    pub(super) queued_bytes: QueuedBytes,
    /// The series of which something is on disk.
    pub(super) series: Mutex<HashMap<SeriesDigest, Arc<Series>>>,
    /// Held while chunks are erased: two erasures at a time would each find some of them.
    pub(super) erasure: Mutex<()>,
    /// Locked while a record is appended, from the check whether it is purged to its last byte.
    pub(super) active: Mutex<ActiveSegment>,
}

/// Decides on a chunk of a series.
type ChunkFilter = Box<dyn Fn(&Series, &ChunkFacts) -> bool + Send + Sync>;

/// The parts of the cache that the tier fills and asks while it runs.
pub(in crate::cache) struct DiskContext {
    pub(in crate::cache) series_map: SeriesMap,
    pub(in crate::cache) memory: Memory,
    pub(in crate::cache) purges: Arc<dyn PurgeCheck>,
    /// Whether a chunk of a series may still serve a request: false if it is too old, or from the future.
    pub(in crate::cache) is_useful: ChunkFilter,
}

/// A chunk to be written.
#[derive(Debug)]
pub(super) struct DiskWrite {
    pub(super) series: Arc<Series>,
    pub(super) chunk: Arc<Chunk>,
    /// The key of the chunk in memory, by which its entry is found.
    pub(super) id: ChunkId,
}

/// The segment that is written to, and the series whose text it has.
#[derive(Debug, Default)]
pub(super) struct ActiveSegment {
    pub(super) number: Option<u32>,
    pub(super) series: HashSet<SeriesDigest>,
}

impl DiskTier {
    /// A tier that is not started yet.
    pub fn new(config: &config::DiskConfig, settings: &config::SeriesSettings, cipher: Arc<Cipher>) -> Self {
        let (writes, queue) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            config: config.clone(),
            keys: ChunkKeys::new("", settings),
            cipher,
            log: OnceLock::new(),
            state: watch::Sender::new(DiskState::Opening),
            writes,
            queue: Mutex::new(Some(queue)),
            queued_bytes: QueuedBytes::new(),
            series: Mutex::default(),
            erasure: Mutex::default(),
            active: Mutex::default(),
        }))
    }

    /// Whether a tier could use the directory: it is there and writable, or can be made. Makes nothing.
    ///
    /// A directory that was used before is none of the configuration's faults, whatever has become of its disk:
    /// koregate serves without it.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn inspect(directory: &Path) -> io::Result<()> {
        SegmentLog::inspect(directory)
    }

    /// Whether the tier works.
    pub fn state(&self) -> DiskState {
        self.0.state.borrow().clone()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.log.get().map_or(0, SegmentLog::bytes)
    }

    /// Maximum bytes on disk.
    pub fn limit(&self) -> u64 {
        self.0.config.size
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0.config.path
    }

    /// Whether the index is still being loaded.
    pub(in crate::cache) fn is_loading(&self) -> bool {
        self.0.state.borrow().is_loading()
    }

    /// Whether the index is loaded.
    pub(in crate::cache) fn is_loaded(&self) -> bool {
        self.0.state.borrow().is_loaded()
    }

    /// Waits until the index is loaded, or it is known that it will not be soon.
    pub(in crate::cache) async fn until_loaded(&self) {
        let mut state = self.0.state.subscribe();
        let loaded = state.wait_for(|state| !state.is_loading());
        // A disk that hangs must not hold up requests for ever.
        let _ = timeout(LOADING_TIMEOUT, loaded).await;
    }

    /// Waits until no chunk waits to be written.
    pub(in crate::cache) async fn until_written(&self) {
        self.0.queued_bytes.until_none().await;
    }

    /// Whether the chunk of an entry is on disk, as far as is known.
    pub(in crate::cache) fn has(&self, entry: &CacheEntry) -> bool {
        entry.slot.zip(self.0.log.get()).is_some_and(|(slot, log)| log.contains(slot))
    }
}

impl Inner {
    /// The digest of a series.
    pub(super) fn digest(&self, series: &Series) -> SeriesDigest {
        SeriesDigest::of(&self.keys.series(series))
    }

    /// Whether chunks of a series may be on disk: it is all of its stream, it is known, or one more may be.
    pub(super) fn has_room_for(&self, digest: SeriesDigest, series: &Series) -> bool {
        let known = self.known_series();
        series.is_plain() || known.len() < MAX_SERIES || known.contains_key(&digest)
    }

    pub(super) fn known_series(&self) -> MutexGuard<'_, HashMap<SeriesDigest, Arc<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> MutexGuard<'_, ActiveSegment> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
