//! A purge, and its result.

use std::sync::Arc;

use crate::redis_client::ConnectionError;
use crate::request::IdHashes;
use crate::window::Interval;

/// The data to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// The account.
    pub account: Arc<str>,
    /// The stream; `None` means all streams of the account.
    pub stream: Option<Arc<str>>,
    /// The time.
    pub interval: Interval,
    /// The ids whose chunks are purged; `None` means all chunks.
    pub ids: Option<IdHashes>,
}

/// The result of a purge. It is complete in this replica's memory in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeResult {
    /// The epoch of the purge: chunks of smaller epochs are not served any more.
    pub epoch: u64,
    /// Chunks that were removed from this replica's memory.
    pub memory_chunks: usize,
    /// Chunks that were overwritten on this replica's disk, or why that or the journal failed, so that the purge may not
    /// outlive the process; `None` without a disk tier.
    pub disk: Option<Result<u64, String>>,
    /// The result beyond this replica; `None` without Redis. A purge that Redis does not take is retried for as long as
    /// the process runs.
    pub delivery: Option<Result<PurgeDelivery, ConnectionError>>,
}

/// The result of a purge beyond this replica, once its tombstone is in Redis, so that no replica reads purged chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeDelivery {
    /// Other replicas that have confirmed that their memory is clean.
    pub confirmed: usize,
    /// Other replicas that receive messages; `None` if the message could not be sent. A replica that misses it reads
    /// the marker in Redis once a second.
    pub expected: Option<usize>,
    /// Chunks that the replicas that have confirmed have removed from their memory; known of a purge with ids only.
    pub replica_chunks: u64,
    /// Whether the purged chunks have been deleted from Redis.
    pub deletion: DeletionStatus,
}

/// Whether purged chunks have been deleted from Redis. They are not read there in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionStatus {
    /// All, which are so many chunks.
    Complete(u64),
    /// Continues; the number of chunks up to now.
    InProgress(u64),
    /// Failed after so many chunks; it is retried for as long as the process runs.
    Failed(u64, ConnectionError),
}
