//! One segment: reading of its records, and listing of them by the index file or by their heads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use super::codec::{
    CHECKSUM_BYTES, MAX_HEAD_BYTES, MAX_SEGMENT_BYTES, SEGMENT_HEADER_BYTES, decode_record, decode_segment_header,
};
use super::directory::{FileIdentity, identity, index_path, segment_path};
use super::files::{FileOperations, remove_if_there, write_all};
use super::index::{Index, IndexBuilder, IndexEntry, MAX_SURPLUS_BYTES};
use super::types::{ReadError, Record, Slot};
use super::walk::{Extent, read_full, walk};

/// A segment. Its file is opened when it is read for the first time.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) index_path: PathBuf,
    /// Which file it is. Another file at the path is another segment.
    identity: FileIdentity,
    contents: OnceLock<Contents>,
    /// Bytes of the file. Of the active segment, the end of its records.
    pub(super) len: AtomicU64,
    /// Bytes of the index file; 0 if there is none.
    pub(super) index_len: AtomicU64,
    /// Rank of the last use among the uses of all segments.
    pub(super) last_use: AtomicU64,
    /// The last use that is recorded in the file's time of change.
    pub(super) recorded_use: AtomicU64,
    /// Whether records are appended.
    pub(super) is_active: AtomicBool,
    /// Held while records are listed to be overwritten or indexed.
    maintenance: Mutex<()>,
}

/// The contents of a segment file.
#[derive(Debug)]
pub(super) enum Contents {
    /// Records.
    Readable(OpenFile),
    /// The format of another version, or no header.
    Unknown,
}

/// A segment file that is open for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) salt: u64,
}

/// An index file.
pub(super) enum IndexFile {
    Absent,
    /// Other bytes than those of an index of this segment.
    Invalid,
    Valid(Vec<u8>),
}

impl Segment {
    /// A segment with a file of `len` bytes.
    pub(super) fn new(directory: &Path, number: u32, identity: FileIdentity, len: u64) -> Self {
        Self {
            number,
            identity,
            path: segment_path(directory, number),
            index_path: index_path(directory, number),
            contents: OnceLock::new(),
            len: len.into(),
            index_len: 0.into(),
            last_use: 0.into(),
            recorded_use: 0.into(),
            is_active: false.into(),
            maintenance: Mutex::default(),
        }
    }

    /// Bytes of both files.
    pub(super) fn bytes(&self) -> u64 {
        self.len.load(Ordering::Acquire) + self.index_len.load(Ordering::Acquire)
    }

    /// Keeps others from overwriting or indexing the segment.
    pub(super) fn lock_maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of the file. Opens it if that was not done before.
    pub(super) fn contents(&self, files: &dyn FileOperations) -> io::Result<&Contents> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents);
        }
        let file = files.open(&self.path)?;
        if identity(&file.metadata()?) != self.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = read_full(&mut |buffer, offset| files.read_at(&file, buffer, offset), &mut header, 0)?;
        let salt = decode_segment_header(&header[..read]);
        let fits = self.len.load(Ordering::Acquire) <= u64::from(MAX_SEGMENT_BYTES);
        let contents = match salt.filter(|_| fits) {
            Some(salt) => Contents::Readable(OpenFile { file, salt }),
            None => Contents::Unknown,
        };
        Ok(self.contents.get_or_init(|| contents))
    }

    /// The file with records; `None` for a file of another content.
    pub(super) fn open_file(&self, files: &dyn FileOperations) -> io::Result<Option<&OpenFile>> {
        Ok(match self.contents(files)? {
            Contents::Readable(open) => Some(open),
            Contents::Unknown => None,
        })
    }

    /// Whether the file is known to have another content than records.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.contents.get(), Some(Contents::Unknown))
    }

    /// Whether the file at the path of the segment is still its own.
    pub(super) fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity)
    }

    /// The record at `slot`.
    ///
    /// # Errors
    /// [`ReadError`]. A file that was deleted is gone.
    pub(super) fn read(&self, files: &dyn FileOperations, slot: Slot) -> Result<Record, ReadError> {
        let open = match self.open_file(files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Gone),
            open => open?.ok_or(ReadError::Damaged)?,
        };
        let mut buffer = self.buffer(slot);
        let mut read = |buffer: &mut [u8], offset| files.read_at(&open.file, buffer, offset);
        let count = read_full(&mut read, &mut buffer, u64::from(slot.offset))?;
        buffer.truncate(count);
        record(buffer, open.salt, slot).ok_or(ReadError::Damaged)
    }

    /// The record at `slot`, if it is in the page cache as a whole. The file must have been opened before.
    pub(super) fn read_cached(&self, files: &dyn FileOperations, slot: Slot) -> Option<Result<Record, ReadError>> {
        let open = match self.contents.get()? {
            Contents::Readable(open) => open,
            Contents::Unknown => return Some(Err(ReadError::Damaged)),
        };
        let mut buffer = self.buffer(slot);
        let count = files.read_cached_at(&open.file, &mut buffer, u64::from(slot.offset)).ok()?;
        let is_partial = count < buffer.len();
        buffer.truncate(count);
        match record(buffer, open.salt, slot) {
            Some(record) => Some(Ok(record)),
            // The rest may be on the disk.
            None if is_partial => None,
            None => Some(Err(ReadError::Damaged)),
        }
    }

    /// A buffer for the record at `slot`, whose meta length is not known, within the bounds of the file.
    fn buffer(&self, slot: Slot) -> Vec<u8> {
        let left = self.len.load(Ordering::Acquire).saturating_sub(u64::from(slot.offset));
        let wanted = u64::from(slot.len) + (MAX_HEAD_BYTES + CHECKSUM_BYTES) as u64;
        vec![0; usize::try_from(wanted.min(left)).unwrap_or_default()]
    }

    /// Visits all parts of the segment: its live records if the index file is valid, and all parts if not. An unknown
    /// file has none.
    ///
    /// # Errors
    /// The disk cannot be read. What was visited before counts.
    pub(super) fn for_each(&self, files: &dyn FileOperations, visit: &mut dyn FnMut(Extent<'_>)) -> io::Result<()> {
        let Some(open) = self.open_file(files)? else { return Ok(()) };
        if let IndexFile::Valid(bytes) = self.read_index(files, open.salt)? {
            for entry in Index::decode(&bytes, open.salt).into_iter().flat_map(|index| index.entries()) {
                visit(Extent::Live { offset: entry.offset, meta: entry.meta, payload_len: entry.payload_len });
            }
            return Ok(());
        }
        self.walk(files, open, visit).map(drop)
    }

    /// Visits all parts of the segment by their heads. Returns the end of the last record.
    pub(super) fn walk(
        &self,
        files: &dyn FileOperations,
        open: &OpenFile,
        visit: &mut dyn FnMut(Extent<'_>),
    ) -> io::Result<u32> {
        let len = u32::try_from(self.len.load(Ordering::Acquire)).unwrap_or(u32::MAX);
        walk(&mut |buffer, offset| files.read_at(&open.file, buffer, offset), len, open.salt, visit)
    }

    /// Reads the index file.
    pub(super) fn read_index(&self, files: &dyn FileOperations, salt: u64) -> io::Result<IndexFile> {
        let (len, index_len) = (self.len.load(Ordering::Acquire), self.index_len.load(Ordering::Acquire));
        if index_len == 0 {
            return Ok(IndexFile::Absent);
        }
        if index_len > len + MAX_SURPLUS_BYTES {
            return Ok(IndexFile::Invalid);
        }
        let file = match files.open(&self.index_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(IndexFile::Absent),
            file => file?,
        };
        let mut bytes = vec![0; usize::try_from(index_len).unwrap_or_default()];
        let count = read_full(&mut |buffer, offset| files.read_at(&file, buffer, offset), &mut bytes, 0)?;
        bytes.truncate(count);
        // A segment that was cut has the rest of a record that the index lists as a whole.
        let is_valid = Index::decode(&bytes, salt).is_some_and(|index| u64::from(index.segment_len) == len);
        Ok(if is_valid { IndexFile::Valid(bytes) } else { IndexFile::Invalid })
    }

    /// Writes the index file of a full segment, unless it has damaged parts. Without one the heads are read instead, so
    /// failures have no other consequence.
    pub(super) fn write_index(&self, files: &dyn FileOperations) {
        let _guard = self.lock_maintenance();
        if let Ok(Some(bytes)) = self.build_index(files) {
            let written = files.create(&self.index_path).and_then(|file| write_all(files, &file, &bytes, 0));
            match written {
                Ok(()) => self.index_len.store(bytes.len() as u64, Ordering::Release),
                Err(_) => drop(remove_if_there(files, &self.index_path)),
            }
        }
    }

    fn build_index(&self, files: &dyn FileOperations) -> io::Result<Option<Vec<u8>>> {
        let Some(open) = self.open_file(files)? else { return Ok(None) };
        let len = u32::try_from(self.len.load(Ordering::Acquire)).unwrap_or(u32::MAX);
        let mut builder = IndexBuilder::new(open.salt, len);
        let mut is_whole = true;
        self.walk(files, open, &mut |extent| match extent {
            Extent::Live { offset, meta, payload_len } => builder.push(IndexEntry { offset, payload_len, meta }),
            Extent::Erased => {}
            Extent::Gap { .. } => is_whole = false,
        })?;
        Ok(is_whole.then(|| builder.finish()))
    }
}

/// The record in the bytes that were read at `slot`.
fn record(bytes: Vec<u8>, salt: u64, slot: Slot) -> Option<Record> {
    let parts = decode_record(&bytes, salt, slot.offset)?;
    (parts.payload.len() == usize::try_from(slot.len).ok()?).then_some(())?;
    let bytes = Bytes::from(bytes);
    Some(Record { meta: bytes.slice(parts.meta), payload: bytes.slice(parts.payload) })
}
