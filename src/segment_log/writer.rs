//! The active segment, and room for it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::codec::{MAX_META_BYTES, SEGMENT_HEADER_BYTES, encode_record, encode_segment_header, record_bytes};
use super::directory::{identity, segment_path};
use super::files::{is_out_of_space, remove_if_there, write_all};
use super::segment::Segment;
use super::segments::Segments;
use super::types::Slot;

/// Appends records. Only one thread has it at a time.
#[derive(Debug)]
pub(super) struct Writer {
    state: WriterState,
    /// Number of the next segment; `None` after the last.
    next: Option<u32>,
    /// Whether the disk was full at the last append.
    is_disk_full: bool,
}

#[derive(Debug)]
enum WriterState {
    /// Nothing was appended yet; the newest segment of the process before this one may have room.
    Restored,
    /// Records are appended.
    Active(ActiveSegment),
    /// The next record begins a segment.
    Ended,
    /// The directory belongs to another process, or is not there.
    Detached,
}

/// The segment that records are appended to.
#[derive(Debug)]
struct ActiveSegment {
    segment: Arc<Segment>,
    /// The file, open for writing.
    file: File,
    salt: u64,
}

impl ActiveSegment {
    /// Offset of the end of the records.
    fn end(&self) -> u64 {
        self.segment.len.load(Ordering::Acquire)
    }
}

impl Writer {
    /// A writer that continues or follows the newest of the segments.
    pub(super) fn new(segments: &Segments) -> Self {
        let next = segments.newest().map_or(Some(0), |newest| newest.number.checked_add(1));
        Self { state: WriterState::Restored, next, is_disk_full: false }
    }

    /// Makes sure that the active segment has room for `bytes`. Returns its number.
    ///
    /// # Errors
    /// `InvalidInput` if no segment is so large; or that of the disk.
    pub(super) fn reserve(&mut self, segments: &Segments, bytes: u64) -> io::Result<u32> {
        Ok(self.active_with_room(segments, bytes)?.segment.number)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// As of [`Writer::reserve`]. Nothing was appended.
    pub(super) fn append(&mut self, segments: &Segments, meta: &[u8], payload: &[u8]) -> io::Result<Slot> {
        if meta.len() > MAX_META_BYTES {
            return Err(invalid("the meta bytes are too many"));
        }
        let bytes = record_bytes(meta.len(), payload.len()) as u64;
        let active = self.active_with_room(segments, bytes)?;
        let end = active.end();
        let slot = u32::try_from(end).ok().zip(u32::try_from(payload.len()).ok());
        let record = slot.and_then(|(offset, _)| encode_record(meta, payload, active.salt, offset));
        let Some(((offset, len), record)) = slot.zip(record) else { return Err(invalid("the record is too large")) };
        if let Err(error) = write_all(segments.files(), &active.file, &record, end) {
            self.is_disk_full = is_out_of_space(&error);
            self.cut_off(segments, end);
            return Err(error);
        }
        active.segment.len.store(end + bytes, Ordering::Release);
        segments.count_use(&active.segment);
        Ok(Slot { segment: active.segment.number, offset, len })
    }

    fn active_with_room(&mut self, segments: &Segments, bytes: u64) -> io::Result<&ActiveSegment> {
        let segment_bytes = segments.settings.segment_bytes.into();
        if bytes > segment_bytes - SEGMENT_HEADER_BYTES as u64 {
            return Err(invalid("no segment is so large"));
        }
        if matches!(self.state, WriterState::Detached) {
            return Err(io::Error::other("the directory was removed or is used by another process"));
        }
        if self.is_disk_full {
            self.evict(segments)?;
            self.is_disk_full = false;
        }
        if matches!(self.state, WriterState::Restored) {
            self.state = continue_newest(segments).ok().flatten().map_or(WriterState::Ended, WriterState::Active);
        }
        let has_room = |active: &ActiveSegment| active.end() + bytes <= segment_bytes;
        if matches!(&self.state, WriterState::Active(active) if has_room(active)) {
            make_room(segments, 0)?;
        } else {
            self.begin(segments, segment_bytes)?;
        }
        match &self.state {
            WriterState::Active(active) => Ok(active),
            _ => Err(io::Error::other("no segment is active")),
        }
    }

    /// Ends the active segment and begins another. On a full disk, evicts one and tries again.
    fn begin(&mut self, segments: &Segments, segment_bytes: u64) -> io::Result<()> {
        if let Some(full) = self.end() {
            full.write_index(segments.files());
        }
        make_room(segments, segment_bytes)?;
        let mut begun = self.create(segments);
        if begun.as_ref().is_err_and(is_out_of_space) && self.evict(segments)? {
            begun = self.create(segments);
        }
        self.state = WriterState::Active(begun?);
        Ok(())
    }

    fn create(&mut self, segments: &Segments) -> io::Result<ActiveSegment> {
        let number = self.next.ok_or_else(|| io::Error::other("all numbers of segments were used"))?;
        let files = segments.files();
        segments.remove_index(number)?;
        let path = segment_path(segments.directory(), number);
        let salt = fastrand::u64(..);
        let created = files.create(&path).and_then(|file| {
            write_all(files, &file, &encode_segment_header(salt), 0)?;
            let identity = identity(&file.metadata()?);
            let segment = Segment::new(segments.directory(), number, identity, SEGMENT_HEADER_BYTES as u64);
            segment.contents(files)?;
            Ok((segment, file))
        });
        let (segment, file) = created.inspect_err(|_| drop(remove_if_there(files, &path)))?;
        self.next = number.checked_add(1);
        segment.is_active.store(true, Ordering::Release);
        segments.count_use(&segment);
        let segment = Arc::new(segment);
        segments.insert(segment.clone());
        Ok(ActiveSegment { segment, file, salt })
    }

    /// Evicts one segment, the active one only if there is no other. Returns whether there was one.
    pub(super) fn evict(&mut self, segments: &Segments) -> io::Result<bool> {
        let Some(unused) = segments.least_recently_used() else { return Ok(false) };
        self.remove(segments, &unused)?;
        Ok(true)
    }

    /// Removes a segment.
    pub(super) fn remove(&mut self, segments: &Segments, segment: &Segment) -> io::Result<()> {
        if segment.is_active.load(Ordering::Acquire) {
            self.end();
        }
        segments.remove(segment)
    }

    /// Cuts off what a failed append has left behind `end`. A segment that cannot be cut is not continued.
    fn cut_off(&mut self, segments: &Segments, end: u64) {
        let WriterState::Active(active) = &self.state else { return };
        if segments.files().set_len(&active.file, end).is_err() {
            let len = active.file.metadata().map_or(end, |metadata| metadata.len());
            active.segment.len.store(len.max(end), Ordering::Release);
            self.end();
        }
    }

    /// Ends the active segment, and returns it.
    fn end(&mut self) -> Option<Arc<Segment>> {
        match std::mem::replace(&mut self.state, WriterState::Ended) {
            WriterState::Active(active) => {
                active.segment.is_active.store(false, Ordering::Release);
                Some(active.segment)
            }
            _ => None,
        }
    }

    /// Refuses to write until [`Writer::attach`].
    pub(super) fn detach(&mut self) {
        self.end();
        self.state = WriterState::Detached;
    }

    /// Writes again after [`Writer::detach`]. Ends the active segment if its file is not there any more, or was cut.
    pub(super) fn attach(&mut self, segments: &Segments) {
        let is_lost = match &self.state {
            WriterState::Restored | WriterState::Ended => false,
            WriterState::Active(active) => {
                let is_cut = active.file.metadata().is_ok_and(|metadata| metadata.len() < active.end());
                is_cut || segments.get(active.segment.number).is_none()
            }
            WriterState::Detached => true,
        };
        if is_lost {
            self.end();
        }
    }
}

/// Evicts segments until `bytes` more may be written, or only the active segment is left.
fn make_room(segments: &Segments, bytes: u64) -> io::Result<()> {
    while segments.bytes().saturating_add(bytes) > segments.settings.max_bytes {
        let Some(unused) = segments.least_recently_used() else { break };
        if unused.is_active.load(Ordering::Acquire) {
            break;
        }
        segments.remove(&unused)?;
    }
    Ok(())
}

/// Opens the newest segment for more records, behind its last one. `None` if it is full or of another content.
fn continue_newest(segments: &Segments) -> io::Result<Option<ActiveSegment>> {
    let files = segments.files();
    let Some(segment) = segments.newest() else { return Ok(None) };
    if segment.index_len.load(Ordering::Acquire) > 0 {
        return Ok(None);
    }
    let guard = segment.lock_maintenance();
    let Some(open) = segment.open_file(files)? else { return Ok(None) };
    let salt = open.salt;
    let file = files.open_for_writing(&segment.path)?;
    // Bytes behind the last record are of one that was not written as a whole.
    let end = u64::from(segment.walk(files, open, &mut |_| {})?);
    if end < segment.len.load(Ordering::Acquire) {
        files.set_len(&file, end)?;
        segment.len.store(end, Ordering::Release);
    }
    drop(guard);
    segment.is_active.store(true, Ordering::Release);
    Ok(Some(ActiveSegment { segment, file, salt }))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
