//! The segments of a log, and the order of their last uses.
//!
//! The order is kept in memory, and recorded at most once a minute in the times of change of the files, for the next
//! process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::directory::{FileKind, ListedFile, index_path, list};
use super::files::{FileOperations, remove_if_there};
use super::segment::Segment;
use super::types::{LogSettings, SegmentInfo};

/// Interval at which uses are recorded.
const RECORDING_INTERVAL: Duration = Duration::from_mins(1);

/// All segments of a log.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) settings: LogSettings,
    pub(super) files: Box<dyn FileOperations>,
    by_number: RwLock<BTreeMap<u32, Arc<Segment>>>,
    /// Number of uses.
    uses: AtomicU64,
    recorded_at: Mutex<Instant>,
}

impl Segments {
    /// The segments of the directory. Nothing but names, lengths and times of change is read.
    pub(super) fn load(settings: &LogSettings, files: Box<dyn FileOperations>) -> io::Result<Self> {
        let (mut listed, indexes): (Vec<_>, Vec<_>) =
            list(&settings.path)?.into_iter().partition(|file| file.kind == FileKind::Segment);
        listed.sort_unstable_by_key(|file| (file.modified, file.number));
        let mut by_number = BTreeMap::new();
        let mut uses = 0;
        for file in &listed {
            let segment = Segment::new(&settings.path, file.number, file.identity, file.len);
            uses += 1;
            segment.last_use.store(uses, Ordering::Relaxed);
            segment.recorded_use.store(uses, Ordering::Relaxed);
            by_number.insert(file.number, Arc::new(segment));
        }
        for index in indexes {
            match by_number.get(&index.number) {
                Some(segment) => segment.index_len.store(index.len, Ordering::Release),
                // Its segment was removed.
                None => drop(files.remove(&index.path)),
            }
        }
        Ok(Self {
            settings: settings.clone(),
            files,
            by_number: RwLock::new(by_number),
            uses: uses.into(),
            recorded_at: Mutex::new(Instant::now()),
        })
    }

    /// The calls to the file system.
    pub(super) fn files(&self) -> &dyn FileOperations {
        &*self.files
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.settings.path
    }

    /// The segment of this number.
    pub(super) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// All segments, by rising number.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The segment that was begun last.
    pub(super) fn newest(&self) -> Option<Arc<Segment>> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).values().next_back().cloned()
    }

    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.by_number.write().unwrap_or_else(PoisonError::into_inner).insert(segment.number, segment);
    }

    /// Forgets a segment, whose files are not there any more.
    pub(super) fn forget(&self, number: u32) {
        self.by_number.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let by_number = self.by_number.read().unwrap_or_else(PoisonError::into_inner);
        by_number.values().map(|segment| segment.bytes()).sum()
    }

    /// Deletes the files of a segment, and forgets it.
    pub(super) fn remove(&self, segment: &Segment) -> io::Result<()> {
        remove_if_there(self.files(), &segment.index_path)?;
        segment.index_len.store(0, Ordering::Release);
        remove_if_there(self.files(), &segment.path)?;
        self.forget(segment.number);
        Ok(())
    }

    /// The segment to evict: an unknown file if there is one, else what was not used for longest. The active segment
    /// only if it is the only one.
    pub(super) fn least_recently_used(&self) -> Option<Arc<Segment>> {
        let rank = |segment: &Arc<Segment>| {
            let last_use = segment.last_use.load(Ordering::Relaxed);
            (segment.is_active.load(Ordering::Acquire), !segment.is_unknown(), last_use)
        };
        self.all().into_iter().min_by_key(rank)
    }

    /// The segments with records, those first that were not used for longest.
    pub(super) fn infos(&self) -> Vec<SegmentInfo> {
        let mut segments = self.all();
        segments.retain(|segment| !segment.is_unknown());
        segments.sort_by_cached_key(|segment| segment.last_use.load(Ordering::Relaxed));
        let info = |segment: &Arc<Segment>| SegmentInfo {
            segment: segment.number,
            bytes: segment.bytes(),
            is_active: segment.is_active.load(Ordering::Acquire),
        };
        segments.iter().map(info).collect()
    }

    /// Files of the log that belong to no known segment.
    pub(super) fn strays(&self) -> io::Result<Vec<ListedFile>> {
        let mut listed = list(self.directory())?;
        listed.retain(|file| self.get(file.number).is_none());
        Ok(listed)
    }

    /// Deletes the index file that a new segment of this number would be taken to have.
    pub(super) fn remove_index(&self, number: u32) -> io::Result<()> {
        remove_if_there(self.files(), &index_path(self.directory(), number))
    }

    /// Counts a use of a segment.
    pub(super) fn count_use(&self, segment: &Segment) {
        segment.last_use.store(self.uses.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether uses were not recorded for a minute. Returns true once a minute.
    pub(super) fn is_recording_due(&self) -> bool {
        let now = Instant::now();
        let mut recorded_at = self.recorded_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = now.duration_since(*recorded_at) >= RECORDING_INTERVAL;
        if is_due {
            *recorded_at = now;
        }
        is_due
    }

    /// Records the order of the uses since the last call in the times of change. `clock` is a file that was changed now.
    ///
    /// # Errors
    /// The time cannot be read. A time that cannot be set is left.
    pub(super) fn record_uses(&self, clock: &File) -> io::Result<()> {
        let now = clock.metadata()?.modified()?;
        let mut used = self.all();
        used.retain(|segment| segment.last_use.load(Ordering::Relaxed) > segment.recorded_use.load(Ordering::Relaxed));
        used.sort_by_cached_key(|segment| segment.last_use.load(Ordering::Relaxed));
        for (rank, segment) in (0..).zip(used) {
            let last_use = segment.last_use.load(Ordering::Relaxed);
            if let Ok(Some(open)) = segment.open_file(self.files()) {
                let _ = open.file.set_modified(now + Duration::from_nanos(rank));
            }
            segment.recorded_use.store(last_use, Ordering::Relaxed);
        }
        Ok(())
    }
}
