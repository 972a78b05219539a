//! Deletes purged chunks from Redis. They are not served any more, but contain conversations.
//!
//! The chunks of an erasure are found by their filters of ids, which stand beside them: no chunk is read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::replicator::PurgeReplicator;
use super::types::DeletionStatus;
use crate::cache::chunk::ids_codec;
use crate::cache::redis::keys::{CellKey, ChunkField, all_cells, value_name};
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply, key_segment};
use crate::replicas::{Cipher, Tombstone};
use crate::request::IdFilter;

/// How long the request for a purge waits for the deletion, which continues in the background.
const DELETION_TIMEOUT: Duration = Duration::from_secs(10);
/// Cells whose fields are listed in one call.
const CELLS_PER_CALL: usize = 64;
/// Cells of which the filters of ids are read in one call: each is some kilobytes.
const CELLS_PER_CALL_WITH_FILTERS: usize = 16;

/// Deletes the chunks of one purge.
pub(super) struct PurgeDeleter {
    redis: RedisClient,
    prefix: String,
    account: Arc<str>,
    epoch: u64,
    tombstone: Tombstone,
    cipher: Arc<Cipher>,
    /// Chunks that were deleted.
    deleted: Arc<AtomicU64>,
}

/// A cell that the purge overlaps.
struct Cell {
    key: Bytes,
    /// See [`CellKey::is_current`].
    is_current: bool,
}

/// A cell with the names of the fields that are to be deleted.
struct ListedCell<'a> {
    cell: &'a Cell,
    field_count: usize,
    purged: Vec<Bytes>,
}

impl PurgeDeleter {
    pub(super) fn new(replicator: &PurgeReplicator, account: &Arc<str>, epoch: u64, tombstone: &Tombstone) -> Self {
        Self {
            redis: replicator.redis().clone(),
            prefix: replicator.prefix.clone(),
            account: account.clone(),
            epoch,
            tombstone: tombstone.clone(),
            cipher: replicator.mailbox.cipher().clone(),
            deleted: Arc::default(),
        }
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
        let cells_per_call = if self.tombstone.ids.is_some() { CELLS_PER_CALL_WITH_FILTERS } else { CELLS_PER_CALL };
        while let Some(keys) = scan.next().await? {
            let cells: Vec<Cell> = keys.into_iter().filter_map(|key| self.overlapped_cell(key)).collect();
            for cells in cells.chunks(cells_per_call) {
                let mut listed = self.list(cells).await?;
                self.take_unaffected(&mut listed).await?;
                self.delete_listed(listed).await?;
            }
        }
        Ok(())
    }

    /// The cell of a key, if it is one that the purge overlaps.
    fn overlapped_cell(&self, key: Bytes) -> Option<Cell> {
        let CellKey { account, stream, interval, is_current } = CellKey::parse(&self.prefix, &key)?;
        let is_overlapped = account == key_segment(&self.account)
            && self.tombstone.stream.as_ref().is_none_or(|own| key_segment(own) == stream)
            && self.tombstone.interval.overlaps(interval);
        is_overlapped.then_some(Cell { key, is_current })
    }

    /// Lists the chunks in cells that were fetched before the purge.
    async fn list<'a>(&self, cells: &'a [Cell]) -> Result<Vec<ListedCell<'a>>, ConnectionError> {
        let list = cells.iter().map(|cell| Command::new("HKEYS").arg(cell.key.clone())).collect();
        let mut listed = Vec::new();
        for (cell, reply) in cells.iter().zip(self.redis.run(list).await?) {
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
            listed.push(ListedCell {
                cell,
                field_count: fields.len(),
                purged: fields.iter().filter_map(purged).collect(),
            });
        }
        Ok(listed)
    }

    /// Takes the chunks off the list that hold none of the erased ids, as their filters say. A chunk without a filter
    /// that can be read may hold them. So may those of other versions, which have no filters, and which this version
    /// does not use.
    async fn take_unaffected(&self, listed: &mut [ListedCell<'_>]) -> Result<(), ConnectionError> {
        let Some(ids) = &self.tombstone.ids else { return Ok(()) };
        let mut filtered: Vec<(&mut ListedCell<'_>, Vec<ChunkField>)> = Vec::new();
        for listed in listed.iter_mut().filter(|listed| listed.cell.is_current) {
            let chunks: Vec<ChunkField> = listed.purged.iter().filter_map(|name| ChunkField::parse(name)).collect();
            if !chunks.is_empty() {
                filtered.push((listed, chunks));
            }
        }
        let read = |(listed, chunks): &(&mut ListedCell<'_>, Vec<ChunkField>)| {
            Command::new("HMGET").arg(listed.cell.key.clone()).args(chunks.iter().map(ChunkField::ids_name))
        };
        let replies = self.redis.bulk(filtered.iter().map(read).collect()).await?;
        for ((listed, chunks), reply) in filtered.into_iter().zip(replies) {
            let Reply::Array(values) = reply else { return Err(reply.fault()) };
            let may_hold = |chunk: &ChunkField, value: Reply| match value {
                Reply::Bytes(value) => self.open_filter(&listed.cell.key, chunk, value).may_hold(ids),
                _ => true,
            };
            let unaffected: BTreeSet<String> = chunks
                .iter()
                .zip(values)
                .filter(|(chunk, value)| !may_hold(chunk, value.clone()))
                .flat_map(|(chunk, _)| [chunk.name(), chunk.ids_name()])
                .collect();
            listed.purged.retain(|name| std::str::from_utf8(name).is_ok_and(|name| !unaffected.contains(name)));
        }
        Ok(())
    }

    /// The filter of ids of a chunk, from its value in Redis.
    fn open_filter(&self, cell: &[u8], chunk: &ChunkField, value: Bytes) -> IdFilter {
        let name = value_name(cell, chunk.ids_name().as_bytes());
        let value = self.cipher.open(value, &name).ok();
        value.and_then(|value| ids_codec::from_bytes(&value, &name)).unwrap_or(IdFilter::Any)
    }

    /// Deletes the listed chunks.
    async fn delete_listed(&self, listed: Vec<ListedCell<'_>>) -> Result<(), ConnectionError> {
        let (mut commands, mut counts) = (Vec::new(), Vec::new());
        for ListedCell { cell, field_count, purged } in listed.into_iter().filter(|listed| !listed.purged.is_empty()) {
            counts.push(purged.iter().filter(|name| ChunkField::parse_ids(name).is_none()).count() as u64);
            // Redis frees a whole key in the background.
            commands.push(if purged.len() == field_count {
                Command::new("UNLINK").arg(cell.key.clone())
            } else {
                Command::new("HDEL").arg(cell.key.clone()).args(purged)
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

    /// Whether a field may be purged, as far as its name says.
    fn is_purged(&self, field: &[u8]) -> bool {
        let chunk = ChunkField::parse(field).or_else(|| ChunkField::parse_ids(field));
        // A field with another name was not written by a replica.
        let Some(ChunkField { interval, epoch, .. }) = chunk else { return true };
        epoch < self.epoch && self.tombstone.interval.overlaps(interval)
    }
}
