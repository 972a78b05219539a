//! Purges: data that was purged is not served from any tier any more, and no fetch that is in flight restores it.
//!
//! A purge is a tombstone with an epoch, and a chunk is purged if a tombstone that overlaps it has a greater epoch than
//! the chunk's run. [`Purges`] applies this rule to memory; with Redis, it keeps all replicas at the same tombstones.
//!
//! | file | contents |
//! | --- | --- |
//! | `types.rs` | a purge, and its result |
//! | `tombstones.rs` | the tombstones of one account, as a value, and the rule by which they purge a chunk; pure |
//! | `purges.rs` | where this replica remembers purges: the tombstones of all accounts; and the sweep of memory |
//! | `journal.rs` | where this replica remembers purges across restarts: beside the chunks on disk |
//! | `replicator.rs` | where purges are remembered for all replicas: in Redis, with a marker of changes |
//! | `sync_with_redis.rs` | writes the purges of this replica to Redis, and learns those of others from there |
//! | `broadcast.rs` | tells other replicas of a purge that is in Redis, and checks for lost messages |
//! | `confirmations.rs` | the purges that wait for confirmations |
//! | `disk_sweeper.rs` | overwrites what is purged on disk in the background, until that succeeds |
//! | `removed_chunks.rs` | how many chunks the last purges have removed from memory |
//! | `delete.rs` | deletes purged chunks from Redis |
//! | `fuzz.rs` | a part of a fuzz target |

mod broadcast;
mod confirmations;
mod delete;
mod disk_sweeper;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod journal;
mod purges;
mod removed_chunks;
mod replicator;
mod sync_with_redis;
mod tombstones;
mod types;

pub use self::purges::Purges;
pub use self::types::{DeletionStatus, Purge, PurgeResult};

pub(in crate::cache) use self::journal::PurgeJournal;
pub(in crate::cache) use self::tombstones::Tombstones;
