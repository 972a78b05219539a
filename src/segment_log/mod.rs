//! Segment log: an append-only log of records in the files of one directory, bounded in bytes: what lies in the directory of
//! the disk tier, and what is evicted. A record is bytes with a short description (the meta bytes); what they mean is the
//! caller's business.
//!
//! Records are appended to the active segment, which is followed by a new one when it is full. What was not used for
//! longest is evicted by segment, so that no record is ever moved or rewritten, with one exception: erasure overwrites
//! the bytes of a record in place. No record is known in memory: the caller keeps an index of [`Slot`]s, and builds it
//! from [`SegmentLog::scan`]. All of this is for a cache: nothing is synced but erasure. After the death of the process
//! everything that was appended is there; after a power failure records may be missing or damaged, and none is wrong,
//! because each has checksums.
//!
//! | file of the directory | |
//! | --- | --- |
//! | `lock` | locked by the process that uses the directory |
//! | `NNNNNNNN.segment` | records; the number, in hexadecimal digits, rises |
//! | `NNNNNNNN.index` | the meta bytes and places of all records of a full segment |
//!
//! Other files are left as they are. Files are overwritten where they lie; a file system that copies on write, or a
//! snapshot of the volume, keeps bytes that were erased here.
//!
//! | module | |
//! | --- | --- |
//! | `log` | the operations of a log |
//! | `writer` | the active segment, and room for it |
//! | `segments` | the segments, and the order of their last uses |
//! | `segment` | reading and listing of one segment |
//! | `erasure` | overwriting of records |
//! | `directory` | names of files, and the lock |
//! | `walk` | finds the records of a segment by their headers |
//! | `codec`, `index` | the bytes of a segment and of an index file |
//! | `files` | calls to the file system that a test can let fail |

mod codec;
mod directory;
mod erasure;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod index;
mod log;
mod segment;
mod segments;
#[cfg(test)]
mod tests;
mod types;
mod walk;
mod writer;

pub use self::log::SegmentLog;
pub use self::types::{LogSettings, OpenError, ReadError, Record, SegmentInfo, Slot};
