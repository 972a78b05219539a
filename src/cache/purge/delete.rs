//! Deletes from Redis what was purged. Nobody reads it there any more; but it is somebody's conversations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::DeletionStatus;
use super::replicate::PurgeReplicator;
use super::tombstones::Tombstone;
use crate::cache::redis::{encoded, read_field};
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply};
use crate::window::{Interval, Timestamp};

/// How long whoever purges waits for it; after that it goes on behind its back.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many cells are looked into at once.
const CELLS_AT_ONCE: usize = 64;

/// Deletes what one purge has buried.
pub(super) struct PurgeDeleter {
    link: RedisClient,
    prefix: String,
    account: String,
    epoch: u64,
    tomb: Tombstone,
    /// Chunks that have been deleted.
    deleted: Arc<AtomicU64>,
}

impl PurgeDeleter {
    pub(super) fn new(shared: &PurgeReplicator, account: &str, epoch: u64, tomb: &Tombstone) -> Self {
        let (link, prefix, account) = (shared.link().clone(), shared.prefix.clone(), encoded(account));
        Self { link, prefix, account, epoch, tomb: tomb.clone(), deleted: Arc::default() }
    }

    /// Begins to delete, and goes on until it is done, with these pauses after what fails. What came of it so far, as soon
    /// as it is done, has failed, or takes too long to wait for.
    pub(super) async fn begin(self, pauses: impl Iterator<Item = Duration> + Send + 'static) -> DeletionStatus {
        let deleted = self.deleted.clone();
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let mut result = self.erase().await;
            let _ = tell.send(result.clone());
            for pause in pauses {
                if result.is_ok() {
                    return;
                }
                sleep(pause).await;
                result = self.erase().await;
            }
        });
        let told = timeout(PATIENCE, told).await;
        let deleted = deleted.load(Ordering::Relaxed);
        match told {
            Ok(Ok(Ok(()))) => DeletionStatus::All(deleted),
            Ok(Ok(Err(why))) => DeletionStatus::Failed(deleted, why),
            Ok(Err(_)) | Err(_) => DeletionStatus::SoFar(deleted),
        }
    }

    async fn erase(&self) -> Result<(), ConnectionError> {
        // Of every format that there was: what nobody can read any more may be somebody's, too.
        let mut scan = self.link.scan(&format!("{}:c", self.prefix), &format!("[0-9]*:{}:*", self.account));
        while let Some(keys) = scan.next().await? {
            let ours: Vec<Bytes> = keys.into_iter().filter(|key| self.may_hold(key)).collect();
            for cells in ours.chunks(CELLS_AT_ONCE) {
                self.erase_from(cells).await?;
            }
        }
        Ok(())
    }

    /// Whether a key is that of a cell that the purge touches. All else is left alone.
    fn may_hold(&self, key: &Bytes) -> bool {
        let rest = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(self.prefix.as_str()));
        let parts: Vec<&str> = rest.unwrap_or_default().split(':').collect();
        let ["", format, account, _, _, stream, _, _, start, length] = parts[..] else { return false };
        let (Ok(start), Ok(length)) = (start.parse(), length.parse()) else { return false };
        let start = Timestamp::from_seconds(start);
        let cell = Interval::new(start, start + Duration::from_secs(length));
        let of_stream = self.tomb.stream.as_ref().is_none_or(|own| encoded(own) == stream);
        let is_format = format.strip_prefix('c').is_some_and(|number| number.parse::<u8>().is_ok());
        is_format && account == self.account && of_stream && self.tomb.interval.overlaps(cell)
    }

    /// Deletes from cells what was fetched before the purge.
    async fn erase_from(&self, cells: &[Bytes]) -> Result<(), ConnectionError> {
        let ask = cells.iter().map(|cell| Command::new("HKEYS").arg(cell.clone())).collect();
        let replies = self.link.run(ask).await?;
        let (mut commands, mut counts) = (Vec::new(), Vec::new());
        for (cell, reply) in cells.iter().zip(replies) {
            // It has gone, or is something else.
            let Reply::Array(fields) = reply else {
                if reply.is_error("WRONGTYPE") {
                    continue;
                }
                return Err(reply.fault());
            };
            let buried = |field: &Reply| match field {
                Reply::Bytes(name) if self.buries(name) => Some(name.clone()),
                _ => None,
            };
            let buried: Vec<Bytes> = fields.iter().filter_map(buried).collect();
            if buried.is_empty() {
                continue;
            }
            counts.push(buried.len() as u64);
            // A whole cell is freed by Redis behind the backs of all others.
            commands.push(if buried.len() == fields.len() {
                Command::new("UNLINK").arg(cell.clone())
            } else {
                Command::new("HDEL").arg(cell.clone()).args(buried)
            });
        }
        let mut failed = None;
        for (reply, count) in self.link.run(commands).await?.iter().zip(counts) {
            match reply {
                Reply::Integer(_) => drop(self.deleted.fetch_add(count, Ordering::Relaxed)),
                other => failed = Some(other.fault()),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn buries(&self, field: &[u8]) -> bool {
        // What has no right name is nobody's chunk, and has no business there.
        let Some((interval, _, epoch)) = read_field(field) else { return true };
        epoch < self.epoch && self.tomb.interval.overlaps(interval)
    }
}
