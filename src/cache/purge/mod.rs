//! Purges: data that was purged is not served from any tier any more, and no fetch that is in flight restores it.
//!
//! A purge is a tombstone with an epoch, and a chunk is purged if a tombstone that overlaps it has a greater epoch than
//! the chunk's run. [`Purges`] applies this rule to memory; with Redis, it keeps all replicas at the same tombstones.
//!
//! | file | contents |
//! | --- | --- |
//! | `types.rs` | a purge, and its result |
//! | `tombstones.rs` | the rule, and the purges of an account; pure |
//! | `purges.rs` | the known purges, and the sweep of memory |
//! | `replicator.rs` | the tombstones in Redis, and the marker that says whether they have changed |
//! | `replicate.rs` | keeps the known purges and those in Redis the same |
//! | `broadcast.rs` | messages to other replicas, and the check for lost ones |
//! | `confirmations.rs` | the purges that wait for confirmations |
//! | `delete.rs` | deletes purged chunks from Redis |
//! | `fuzz.rs` | a part of a fuzz target |

mod broadcast;
mod confirmations;
mod delete;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod purges;
mod replicate;
mod replicator;
mod tombstones;
mod types;

pub use self::purges::Purges;
pub use self::types::{DeletionStatus, Purge, PurgeResult};

pub(in crate::cache) use self::tombstones::Tombstones;
