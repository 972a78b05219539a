//! The values that a caller of the segment log sees.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;

/// Bytes of a segment where the log is large enough for them.
const DEFAULT_SEGMENT_BYTES: u32 = 64 << 20;
/// Number of segments that a log has at least, so that an eviction loses at most an eighth of it.
const MIN_SEGMENTS: u64 = 8;

/// Place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the record in the file of the segment.
    pub offset: u32,
    /// Bytes of the payload.
    pub len: u32,
}

/// Where a log lies, and how large it may become.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The directory; created if it does not exist.
    pub path: PathBuf,
    /// Most bytes of all files together. For moments they may be more by the index file of one segment.
    pub max_bytes: u64,
    /// Bytes at which a segment is full; at most 1 GiB.
    pub segment_bytes: u32,
}

impl LogSettings {
    /// Settings with segments of 64 MiB, or of an eighth of `max_bytes` if that is less.
    pub fn new(path: impl Into<PathBuf>, max_bytes: u64) -> Self {
        let segment_bytes = u32::try_from(max_bytes / MIN_SEGMENTS).unwrap_or(u32::MAX).min(DEFAULT_SEGMENT_BYTES);
        Self { path: path.into(), max_bytes, segment_bytes }
    }
}

/// A record that was read, and is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The meta bytes.
    pub meta: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: u32,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether records are appended to it.
    pub is_active: bool,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another log of this process, has locked the directory.
    #[error("another process uses this directory")]
    InUse,
    /// The operating system refuses what is named.
    #[error("cannot {1}: {0}")]
    Io(io::Error, &'static str),
}

/// Why there is no record at a slot.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment was evicted or removed.
    #[error("the segment is gone")]
    Gone,
    /// There are other bytes: the record was erased, or the disk has damaged it.
    #[error("the record is damaged or erased")]
    Damaged,
    /// The disk cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}
