//! The operations of a segment log.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::codec::{MAX_SEGMENT_BYTES, SEGMENT_HEADER_BYTES, record_bytes};
use super::directory::{self, DirectoryLock};
use super::erasure::erase_records;
use super::files::{FileOperations, SystemFiles};
use super::segment::Segment;
use super::segments::Segments;
use super::types::{LogSettings, OpenError, ReadError, Record, SegmentInfo, Slot};
use super::walk::Extent;
use super::writer::Writer;

/// Smallest segment: less is of no use for any record.
const MIN_SEGMENT_BYTES: u32 = 256;

/// A segment log; cheap to clone, and used by any number of threads. All calls but [`SegmentLog::read_cached`],
/// [`SegmentLog::contains`], [`SegmentLog::segments`] and [`SegmentLog::bytes`] may wait for the disk.
#[derive(Clone, Debug)]
pub struct SegmentLog(Arc<Inner>);

/// The mutexes are taken in the order of the fields.
#[derive(Debug)]
struct Inner {
    writer: Mutex<Writer>,
    lock: Mutex<DirectoryLock>,
    segments: Segments,
}

impl SegmentLog {
    /// Opens the log in a directory, which is created if it does not exist and locked until the last clone is dropped.
    /// Reads names and lengths of files, but no record.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: &LogSettings) -> Result<Self, OpenError> {
        Self::open_with(settings, Box::new(SystemFiles))
    }

    /// Whether the directory is one that [`SegmentLog::open`] could use or make; makes nothing. A directory that has been
    /// used as a log passes, because its failures are those of a disk.
    ///
    /// # Errors
    /// A mistake in the path: it is no directory, it cannot be made, or nothing can be written there.
    pub fn inspect(path: &Path) -> io::Result<()> {
        directory::inspect(path)
    }

    pub(super) fn open_with(settings: &LogSettings, files: Box<dyn FileOperations>) -> Result<Self, OpenError> {
        let lock = DirectoryLock::acquire(&settings.path)?;
        let segment_bytes = settings.segment_bytes.clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        let settings = LogSettings { segment_bytes, ..settings.clone() };
        let segments = Segments::load(&settings, files).map_err(|error| OpenError::Io(error, "list the directory"))?;
        let writer = Mutex::new(Writer::new(&segments));
        Ok(Self(Arc::new(Inner { writer, lock: Mutex::new(lock), segments })))
    }

    /// Visits the meta bytes of every live record, segment by segment in the order of writing. Damaged parts are
    /// skipped. Records that are appended meanwhile may be missing.
    ///
    /// # Errors
    /// A segment cannot be read. The others are visited all the same.
    pub fn scan(&self, visit: &mut dyn FnMut(&[u8], Slot)) -> io::Result<()> {
        let mut result = Ok(());
        for segment in self.0.segments.all() {
            let scanned = segment.for_each(self.0.segments.files(), &mut |extent| {
                if let Extent::Live { offset, meta, payload_len } = extent {
                    visit(meta, Slot { segment: segment.number, offset, len: payload_len });
                }
            });
            match scanned {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                scanned => result = result.and(scanned),
            }
        }
        result
    }

    /// Makes sure that the active segment has room for a batch of `bytes`, the sum of [`SegmentLog::record_bytes`] of
    /// records that are appended next. If it has not, a new segment is begun, and what was not used for longest is
    /// evicted as far as necessary; after an append that found the disk full, one segment more. Returns the number of
    /// the active segment.
    ///
    /// # Errors
    /// `InvalidInput` if the batch is larger than [`SegmentLog::max_batch_bytes`]; or that of the disk.
    pub fn reserve(&self, bytes: usize) -> io::Result<u32> {
        let number = self.0.writer().reserve(&self.0.segments, bytes as u64);
        self.0.record_uses_if_due();
        number
    }

    /// Appends a record to the active segment. `meta`, at most 255 bytes, is what [`SegmentLog::scan`] visits.
    ///
    /// # Errors
    /// As of [`SegmentLog::reserve`]. Nothing was appended then, and the next call may succeed.
    pub fn append(&self, meta: &[u8], payload: &[u8]) -> io::Result<Slot> {
        self.0.writer().append(&self.0.segments, meta, payload)
    }

    /// Bytes that a record takes on the disk.
    pub const fn record_bytes(meta_len: usize, payload_len: usize) -> usize {
        record_bytes(meta_len, payload_len)
    }

    /// Bytes of the largest batch that fits into a segment.
    pub fn max_batch_bytes(&self) -> usize {
        usize::try_from(self.0.segments.settings.segment_bytes).unwrap_or(usize::MAX) - SEGMENT_HEADER_BYTES
    }

    /// Reads a record, and counts as a use of its segment.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, slot: Slot) -> Result<Record, ReadError> {
        let segments = &self.0.segments;
        let segment = segments.get(slot.segment).ok_or(ReadError::Gone)?;
        segments.count_use(&segment);
        let record = segment.read(segments.files(), slot);
        self.0.record_uses_if_due();
        record
    }

    /// Does the same as [`SegmentLog::read`] if all bytes of the record are in the page cache; returns `None` if not.
    /// Never waits for the disk.
    pub fn read_cached(&self, slot: Slot) -> Option<Result<Record, ReadError>> {
        let segments = &self.0.segments;
        let Some(segment) = segments.get(slot.segment) else { return Some(Err(ReadError::Gone)) };
        let record = segment.read_cached(segments.files(), slot)?;
        segments.count_use(&segment);
        Some(record)
    }

    /// Whether the segment of the slot is still there.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.segments.get(slot.segment).is_some()
    }

    /// Overwrites each record for whose meta bytes `is_erased` is true with zeros, in all files, and waits until the
    /// disk has the zeros. Records that are superseded for the caller are visited too, and so are those that were
    /// copied; those that are appended during the call are not. A record that is read meanwhile is damaged, or as it
    /// was. Returns the number of erased records. `is_erased` must not call the log.
    ///
    /// Files whose records cannot be told (of another version, unknown to this process, or not readable) are deleted
    /// instead, since they may hold erased records.
    ///
    /// # Errors
    /// Some bytes may still be there. A repeated call finds them.
    pub fn erase(&self, is_erased: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<u64> {
        let segments = &self.0.segments;
        let strays = self.0.remove_strays();
        let mut is_any_deleted = strays.as_ref().is_ok_and(|removed| *removed);
        let mut result = strays.map(|_| 0);
        for segment in segments.all() {
            match self.0.erase_in(&segment, is_erased) {
                Ok(erased) => result = result.map(|sum| sum + erased),
                Err(_) => match self.0.remove(&segment) {
                    Ok(()) => is_any_deleted = true,
                    Err(error) => result = result.and(Err(error)),
                },
            }
        }
        if is_any_deleted {
            directory::sync(segments.directory())?;
        }
        result
    }

    /// Evicts the segment that was not used for longest; the active one only if there is no other. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// The files cannot be deleted.
    pub fn evict(&self) -> io::Result<bool> {
        self.0.writer().evict(&self.0.segments)
    }

    /// The segments with their bytes on the disk, those first that were not used for longest.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.0.segments.infos()
    }

    /// Removes a segment; nothing if it is not there. Without the active one, the next record begins another.
    ///
    /// # Errors
    /// The files cannot be deleted.
    pub fn remove(&self, segment: u32) -> io::Result<()> {
        self.0.segments.get(segment).map_or(Ok(()), |segment| self.0.remove(&segment))
    }

    /// Bytes of all segments on the disk, index files included.
    pub fn bytes(&self) -> u64 {
        self.0.segments.bytes()
    }

    /// Compares the directory with what was opened. Segments whose files are not there any more are forgotten, and
    /// those that came from elsewhere are deleted. A directory that was removed or replaced is created and locked
    /// again.
    ///
    /// # Errors
    /// The directory cannot be used, or another process uses it. The log is empty and refuses records until a later
    /// call succeeds.
    pub fn check(&self) -> io::Result<()> {
        self.0.check()
    }

    /// Deletes all segments, also those of unknown versions.
    ///
    /// # Errors
    /// Some files cannot be deleted.
    pub fn clear(&self) -> io::Result<()> {
        let mut result = Ok(());
        for segment in self.0.segments.all() {
            result = result.and(self.0.remove(&segment));
        }
        self.0.remove_strays()?;
        result
    }
}

impl Inner {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, DirectoryLock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, segment: &Segment) -> io::Result<()> {
        self.writer().remove(&self.segments, segment)
    }

    /// Erases records of one segment. A segment that is not there any more has none; one of an unknown content is an
    /// error.
    fn erase_in(&self, segment: &Segment, is_erased: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<u64> {
        let files = self.segments.files();
        let Some(open) = segment.open_file(files)? else { return Err(io::ErrorKind::InvalidData.into()) };
        erase_records(segment, open, files, is_erased)
    }

    /// Deletes files of the log that belong to no segment. Returns whether there was one.
    fn remove_strays(&self) -> io::Result<bool> {
        // No segment is begun meanwhile.
        let _writer = self.writer();
        let strays = self.segments.strays()?;
        strays.iter().try_for_each(|stray| self.segments.files().remove(&stray.path))?;
        Ok(!strays.is_empty())
    }

    fn check(&self) -> io::Result<()> {
        let mut writer = self.writer();
        let directory = self.segments.directory();
        let mut lock = self.lock();
        if !lock.is_in_place(directory) {
            match DirectoryLock::acquire(directory) {
                Ok(acquired) => *lock = acquired,
                Err(error) => {
                    writer.detach();
                    self.segments.all().iter().for_each(|segment| self.segments.forget(segment.number));
                    return Err(match error {
                        OpenError::InUse => io::Error::new(io::ErrorKind::AddrInUse, error),
                        OpenError::Io(error, _) => error,
                    });
                }
            }
        }
        for segment in self.segments.all().iter().filter(|segment| !segment.is_in_place()) {
            self.segments.forget(segment.number);
        }
        writer.attach(&self.segments);
        drop((writer, lock));
        self.remove_strays().map(drop)
    }

    /// Records the uses of segments for the next process, at most once a minute.
    fn record_uses_if_due(&self) {
        if self.segments.is_recording_due() {
            self.record_uses();
        }
    }

    /// Records the uses of segments. They are recorded the next time if that fails.
    fn record_uses(&self) {
        let lock = self.lock();
        let _ = lock.stamp().and_then(|clock| self.segments.record_uses(clock));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.record_uses();
    }
}
