//! Erasure: records are overwritten with zeros where they lie, in the segment and in its index file.
//!
//! The payloads are overwritten first, and are on the disk before the heads follow. So an erasure that is interrupted
//! finds the same records when it is repeated. Parts without a valid head may hold anything; they are overwritten too,
//! and become an erased record, so that this is done once. Neighbours are overwritten together and become one erased
//! record, so that a slow disk has few writes to do.

use std::io;
use std::sync::atomic::Ordering;

use super::codec::{CHECKSUM_BYTES, MIN_RECORD_BYTES, encode_erased_head, head_bytes};
use super::files::{FileOperations, remove_if_there, write_all};
use super::index::{Index, IndexBuilder};
use super::segment::{IndexFile, OpenFile, Segment};
use super::walk::Extent;

/// Zeros that are written at once.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Part of a segment to overwrite.
#[derive(Clone, Copy)]
struct Target {
    offset: u32,
    meta_len: usize,
    payload_len: u32,
}

impl Target {
    /// A target of all bytes of a gap; `None` if it is too small for a record.
    fn of_gap(start: u32, end: u32) -> Option<Self> {
        let payload_len = (end - start).checked_sub(u32::try_from(MIN_RECORD_BYTES).ok()?)?;
        Some(Self { offset: start, meta_len: 0, payload_len })
    }

    fn payload_offset(&self) -> u64 {
        u64::from(self.offset) + head_bytes(self.meta_len) as u64
    }

    /// The payload and its checksum.
    fn zeros(&self) -> u64 {
        u64::from(self.payload_len) + CHECKSUM_BYTES as u64
    }

    /// The end of the record.
    fn end(&self) -> u64 {
        self.payload_offset() + self.zeros()
    }

    /// One target instead of this one and `next`; `None` if there is anything between them.
    fn joined(&self, next: &Self) -> Option<Self> {
        let end = u32::try_from(next.end()).ok()?;
        if self.end() == u64::from(next.offset) { Self::of_gap(self.offset, end) } else { None }
    }
}

/// Ascending targets, neighbours joined.
fn join_neighbours(targets: &[Target]) -> Vec<Target> {
    let mut joined: Vec<Target> = Vec::new();
    for target in targets {
        match joined.last_mut().and_then(|last| Some((last.joined(target)?, last))) {
            Some((both, last)) => *last = both,
            None => joined.push(*target),
        }
    }
    joined
}

/// The findings of an erasure in a segment.
#[derive(Default)]
struct Found {
    targets: Vec<Target>,
    /// Gaps that are too small for a record.
    small_gaps: Vec<(u32, u32)>,
    /// Number of erased records.
    count: u64,
}

/// Erases records of a segment with a known content. Returns how many.
///
/// # Errors
/// The disk cannot be read or written. Some records may be erased then.
pub(super) fn erase_records(
    segment: &Segment,
    open: &OpenFile,
    files: &dyn FileOperations,
    is_erased: &mut dyn FnMut(&[u8]) -> bool,
) -> io::Result<u64> {
    let _guard = segment.lock_maintenance();
    let index = segment.read_index(files, open.salt)?;
    if matches!(index, IndexFile::Invalid) {
        wipe_index(segment, files)?;
    }
    let mut found = Found::default();
    segment.for_each(files, &mut |extent| match extent {
        Extent::Live { offset, meta, payload_len } if is_erased(meta) => {
            found.targets.push(Target { offset, meta_len: meta.len(), payload_len });
            found.count += 1;
        }
        Extent::Gap { start, end } => match Target::of_gap(start, end) {
            Some(target) => found.targets.push(target),
            None => found.small_gaps.push((start, end)),
        },
        Extent::Live { .. } | Extent::Erased => {}
    })?;
    if found.targets.is_empty() && found.small_gaps.is_empty() {
        return Ok(0);
    }
    overwrite(segment, open.salt, files, &found)?;
    if let IndexFile::Valid(bytes) = index {
        shorten_index(segment, open.salt, files, &bytes, &found.targets)?;
    }
    Ok(found.count)
}

/// Overwrites targets and small gaps in the segment file.
fn overwrite(segment: &Segment, salt: u64, files: &dyn FileOperations, found: &Found) -> io::Result<()> {
    let file = files.open_for_writing(&segment.path)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let targets = join_neighbours(&found.targets);
    for target in &targets {
        write_zeros(files, &file, target.payload_offset(), target.zeros())?;
    }
    for (start, end) in &found.small_gaps {
        write_zeros(files, &file, u64::from(*start), u64::from(end - start))?;
    }
    files.sync(&file)?;
    for target in &targets {
        let head = encode_erased_head(target.meta_len, target.payload_len, salt, target.offset);
        write_all(files, &file, &head.unwrap_or_default(), u64::from(target.offset))?;
    }
    files.sync(&file)?;
    // An erasure is no use. Without the old time it counts as one for the next process.
    let _ = modified.and_then(|modified| file.set_modified(modified));
    Ok(())
}

/// Overwrites the index file with one that lacks the targets.
fn shorten_index(
    segment: &Segment,
    salt: u64,
    files: &dyn FileOperations,
    bytes: &[u8],
    targets: &[Target],
) -> io::Result<()> {
    let Some(index) = Index::decode(bytes, salt) else { return Ok(()) };
    let mut builder = IndexBuilder::new(salt, index.segment_len);
    let is_target = |offset: u32| targets.binary_search_by_key(&offset, |target| target.offset).is_ok();
    index.entries().filter(|entry| !is_target(entry.offset)).for_each(|entry| builder.push(entry));
    let mut shortened = builder.finish();
    let len = shortened.len();
    shortened.resize(bytes.len().max(len), 0);
    let file = files.open_for_writing(&segment.index_path)?;
    write_all(files, &file, &shortened, 0)?;
    files.sync(&file)?;
    files.set_len(&file, len as u64)?;
    segment.index_len.store(len as u64, Ordering::Release);
    Ok(())
}

/// Overwrites an index file with zeros, and deletes it.
fn wipe_index(segment: &Segment, files: &dyn FileOperations) -> io::Result<()> {
    let file = files.open_for_writing(&segment.index_path)?;
    let len = file.metadata()?.len();
    write_zeros(files, &file, 0, len)?;
    files.sync(&file)?;
    remove_if_there(files, &segment.index_path)?;
    segment.index_len.store(0, Ordering::Release);
    Ok(())
}

fn write_zeros(files: &dyn FileOperations, file: &std::fs::File, offset: u64, len: u64) -> io::Result<()> {
    let end = offset + len;
    let mut place = offset;
    while place < end {
        let part = usize::try_from(end - place).unwrap_or(usize::MAX).min(ZEROS.len());
        write_all(files, file, &ZEROS[..part], place)?;
        place += part as u64;
    }
    Ok(())
}
