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
//! | `tier` | the tier, and what its parts share |
//! | `load` | opening the log, and the entries of what it holds |
//! | `read` | reading chunks |
//! | `write` | writing chunks, and making room for them |
//! | `erase` | overwriting what was purged |

mod erase;
mod load;
mod read;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod tier;
mod write;

pub(in crate::cache) use self::read::DiskHit;
pub use self::state::DiskState;
pub(in crate::cache) use self::tier::DiskContext;
pub use self::tier::DiskTier;
