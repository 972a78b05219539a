//! Deletes purged chunks from Redis. They are not served any more, but contain conversations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::replicator::PurgeReplicator;
use super::types::DeletionStatus;
use crate::cache::redis::keys::{CellKey, ChunkField, all_cells};
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply, key_segment};
use crate::replicas::Tombstone;

/// How long the request for a purge waits for the deletion, which continues in the background.
const DELETION_TIMEOUT: Duration = Duration::from_secs(10);
/// Cells whose fields are listed in one call.
const CELLS_PER_CALL: usize = 64;

/// Deletes the chunks of one purge.
pub(super) struct PurgeDeleter {
    redis: RedisClient,
    prefix: String,
    account: Arc<str>,
    epoch: u64,
    tombstone: Tombstone,
    /// Chunks that were deleted.
    deleted: Arc<AtomicU64>,
}

impl PurgeDeleter {
    pub(super) fn new(replicator: &PurgeReplicator, account: &Arc<str>, epoch: u64, tombstone: &Tombstone) -> Self {
        let (redis, prefix) = (replicator.redis().clone(), replicator.prefix.clone());
        Self { redis, prefix, account: account.clone(), epoch, tombstone: tombstone.clone(), deleted: Arc::default() }
    }

    /// Starts the deletion, which is repeated after each of these pauses until it succeeds. Returns the status when it
    /// is complete, has failed once, or takes longer than [`DELETION_TIMEOUT`].
    pub(super) async fn start(self, pauses: impl Iterator<Item = Duration> + Send + 'static) -> DeletionStatus {
        let deleted = self.deleted.clone();
        let (sender, first_result) = oneshot::channel();
        tokio::spawn(async move {
            let mut result = self.delete().await;
            let _ = sender.send(result.clone());
            for pause in pauses {
                if result.is_ok() {
                    return;
                }
                sleep(pause).await;
                result = self.delete().await;
            }
        });
        let result = timeout(DELETION_TIMEOUT, first_result).await;
        let deleted = deleted.load(Ordering::Relaxed);
        match result {
            Ok(Ok(Ok(()))) => DeletionStatus::Complete(deleted),
            Ok(Ok(Err(why))) => DeletionStatus::Failed(deleted, why),
            Ok(Err(_)) | Err(_) => DeletionStatus::InProgress(deleted),
        }
    }

    async fn delete(&self) -> Result<(), ConnectionError> {
        // Cells of all versions: those that no program reads any more may contain conversations too.
        let (prefix, pattern) = all_cells(&self.prefix, &self.account);
        let mut scan = self.redis.scan(&prefix, &pattern);
        while let Some(keys) = scan.next().await? {
            let cells: Vec<Bytes> = keys.into_iter().filter(|key| self.overlaps_cell(key)).collect();
            for cells in cells.chunks(CELLS_PER_CALL) {
                self.delete_from(cells).await?;
            }
        }
        Ok(())
    }

    /// Whether a key is that of a cell that the purge overlaps.
    fn overlaps_cell(&self, key: &[u8]) -> bool {
        CellKey::parse(&self.prefix, key).is_some_and(|CellKey { account, stream, interval }| {
            account == key_segment(&self.account)
                && self.tombstone.stream.as_ref().is_none_or(|own| key_segment(own) == stream)
                && self.tombstone.interval.overlaps(interval)
        })
    }

    /// Deletes the chunks in cells that were fetched before the purge.
    async fn delete_from(&self, cells: &[Bytes]) -> Result<(), ConnectionError> {
        let list = cells.iter().map(|cell| Command::new("HKEYS").arg(cell.clone())).collect();
        let replies = self.redis.run(list).await?;
        let (mut commands, mut counts) = (Vec::new(), Vec::new());
        for (cell, reply) in cells.iter().zip(replies) {
            let Reply::Array(fields) = reply else {
                // A key of another type is not a cell.
                if reply.is_error("WRONGTYPE") {
                    continue;
                }
                return Err(reply.fault());
            };
            let purged = |field: &Reply| match field {
                Reply::Bytes(name) if self.is_purged(name) => Some(name.clone()),
                _ => None,
            };
            let purged: Vec<Bytes> = fields.iter().filter_map(purged).collect();
            if purged.is_empty() {
                continue;
            }
            counts.push(purged.len() as u64);
            // Redis frees a whole key in the background.
            commands.push(if purged.len() == fields.len() {
                Command::new("UNLINK").arg(cell.clone())
            } else {
                Command::new("HDEL").arg(cell.clone()).args(purged)
            });
        }
        let mut failed = None;
        for (reply, count) in self.redis.run(commands).await?.iter().zip(counts) {
            match reply {
                Reply::Integer(_) => drop(self.deleted.fetch_add(count, Ordering::Relaxed)),
                other => failed = Some(other.fault()),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn is_purged(&self, field: &[u8]) -> bool {
        // A field that is not the name of a chunk was not written by a replica.
        let Some(ChunkField { interval, epoch, .. }) = ChunkField::parse(field) else { return true };
        epoch < self.epoch && self.tombstone.interval.overlaps(interval)
    }
}
