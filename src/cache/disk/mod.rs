//! The tier between memory and Redis: chunks in files of this machine, which outlive the process.
//!
//! The bytes lie in a [`SegmentLog`](crate::segment_log), which knows nothing of chunks. The index is that of memory: a
//! cache entry says where its chunk lies on disk ([`CacheEntry::slot`](super::store::CacheEntry)), whether memory has it
//! too or not, so that item counts, costs and coverage are right for both. At the start of the process the entries are
//! made again from the meta bytes of the records, while requests wait for that and the process is ready.
//!
//! Writing never delays an answer, and no failure of the disk is one of a request: what cannot be read is a miss. A
//! record is used only if its checksum, its seal and its facts are those of its entry.
//!
//! Nothing is loaded before the purges that were confirmed are known: those of the journal (`purge/journal`) and, if
//! there is Redis, those of Redis. A purge overwrites the records that it covers.
//!
//! | file | contents |
//! | --- | --- |
//! | `record` | the meta bytes of records, and the text of a series (pure) |
//! | `state` | whether the tier works |
//! | `load` | opening the log, and the entries of what it holds |
//! | `read` | reading chunks |
//! | `write` | writing chunks, and making room for them |
//! | `erase` | overwriting what was purged |

mod erase;
mod load;
mod read;
mod record;
mod state;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub(in crate::cache) use self::read::DiskHit;
use self::record::SeriesDigest;
pub use self::state::DiskState;
use self::write::{ActiveSegment, DiskWrite};
use super::redis::PurgeCheck;
use super::redis::keys::ChunkKeys;
use super::series::SeriesMap;
use super::store::{CacheEntry, ChunkFacts, Memory};
use crate::config;
use crate::replicas::Cipher;
use crate::request::Series;
use crate::segment_log::SegmentLog;

/// The longest that a request waits for the index to be loaded.
const LOADING_TIMEOUT: Duration = Duration::from_secs(10);

/// The disk tier. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct DiskTier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: config::DiskConfig,
    keys: ChunkKeys,
    cipher: Arc<Cipher>,
    /// Set as soon as it is open.
    log: OnceLock<SegmentLog>,
    state: watch::Sender<DiskState>,
    writes: mpsc::UnboundedSender<DiskWrite>,
    /// The other end of `writes`, until the tier is started.
    queue: Mutex<Option<mpsc::UnboundedReceiver<DiskWrite>>>,
    /// Bytes of chunks that wait to be written.
    queued_bytes: AtomicUsize,
    /// The series of which something is on disk.
    series: Mutex<HashMap<SeriesDigest, Arc<Series>>>,
    /// Locked while a record is appended, from the check whether it is purged to its last byte.
    active: Mutex<ActiveSegment>,
}

/// Decides on a chunk of a series.
type ChunkFilter = Box<dyn Fn(&Series, &ChunkFacts) -> bool + Send + Sync>;

/// What the tier fills and asks while it runs.
pub(in crate::cache) struct DiskContext {
    pub(in crate::cache) series_map: SeriesMap,
    pub(in crate::cache) memory: Memory,
    pub(in crate::cache) purges: Arc<dyn PurgeCheck>,
    /// Whether a chunk of a series may still serve a request: false if it is too old, or from the future.
    pub(in crate::cache) is_useful: ChunkFilter,
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
            queued_bytes: AtomicUsize::default(),
            series: Mutex::default(),
            active: Mutex::default(),
        }))
    }

    /// Loads what is on disk, and writes from then on. Must be called on a runtime.
    pub(in crate::cache) fn start(&self, context: DiskContext) {
        if let Some(queue) = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let inner = Arc::downgrade(&self.0);
            tokio::spawn(load::run(inner, Arc::new(context), queue));
        }
    }

    /// Whether the tier works.
    pub fn state(&self) -> DiskState {
        self.0.state.borrow().clone()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.log.get().map_or(0, SegmentLog::bytes)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0.config.path
    }

    /// Whether the index is still being loaded.
    pub(in crate::cache) fn is_loading(&self) -> bool {
        self.0.state.borrow().is_loading()
    }

    /// Waits until the index is loaded, or it is known that it will not be soon.
    pub(in crate::cache) async fn until_loaded(&self) {
        let mut state = self.0.state.subscribe();
        let loaded = state.wait_for(|state| !state.is_loading());
        // A disk that hangs must not hold up requests for ever.
        let _ = timeout(LOADING_TIMEOUT, loaded).await;
    }

    /// Whether the chunk of an entry is on disk, as far as is known.
    pub(in crate::cache) fn has(&self, entry: &CacheEntry) -> bool {
        entry.slot.zip(self.0.log.get()).is_some_and(|(slot, log)| log.contains(slot))
    }
}

impl Inner {
    /// The digest of a series.
    fn digest(&self, series: &Series) -> SeriesDigest {
        SeriesDigest::of(&self.keys.series(series))
    }

    fn known_series(&self) -> MutexGuard<'_, HashMap<SeriesDigest, Arc<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, ActiveSegment> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release_queued(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
