//! Writes chunks into their cells in the background, and deletes those that were purged.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::keys::{ChunkField, value_name};
use super::{CELLS_PER_READ, Inner, RedisTier};
use crate::cache::chunk::{Chunk, ids_codec};
use crate::cache::window_field::FieldScope;
use crate::redis_client::{Command, ConnectionError, Reply};
use crate::request::Series;
use crate::telemetry;

/// A chunk to be written.
#[derive(Debug)]
pub(super) struct ChunkWrite {
    pub(super) account: Arc<str>,
    pub(super) stream: Arc<str>,
    /// The key of the hash.
    pub(super) key: String,
    pub(super) chunk: Arc<Chunk>,
}

impl RedisTier {
    /// Queues a chunk of a series to be written in the background; dropped if too many bytes wait.
    pub(in crate::cache) fn queue_write(&self, series: &Series, chunk: &Arc<Chunk>) {
        if !self.inner.queued_bytes.try_add(chunk.weight()) {
            telemetry::redis_write("full");
            return;
        }
        let key = self.inner.keys.cell(&self.inner.keys.series(series), chunk.interval().start);
        let (account, stream) = (series.account.clone(), series.stream.clone());
        // The writer task ends with the last tier, so it is there.
        let _ = self.writes.send(ChunkWrite { account, stream, key, chunk: chunk.clone() });
    }

    /// Deletes chunks of a series in the background.
    pub(in crate::cache) fn delete(&self, series: &Series, chunks: &[Chunk]) {
        let name = self.inner.keys.series(series);
        for chunk in chunks {
            let cell = self.inner.keys.cell(&name, chunk.interval().start);
            self.inner.delete_purged(&cell, std::slice::from_ref(chunk));
        }
    }
}

impl Inner {
    /// Deletes purged chunks of a cell in the background.
    pub(super) fn delete_purged(self: &Arc<Self>, cell: &str, purged: &[Chunk]) {
        if !purged.is_empty() {
            telemetry::redis_read("purged");
            let fields = purged.iter().flat_map(names);
            let (redis, delete) = (self.redis.clone(), Command::new("HDEL").arg(cell.to_owned()).args(fields));
            tokio::spawn(async move { redis.run(vec![delete]).await });
        }
    }

    fn is_write_purged(&self, ChunkWrite { account, stream, chunk, .. }: &ChunkWrite) -> bool {
        self.purges.is_purged(account, stream, chunk.interval(), chunk.epoch(), chunk.ids())
    }

    fn scope_of(&self, ChunkWrite { account, stream, .. }: &ChunkWrite) -> FieldScope {
        self.keys.field_scope(account, stream)
    }

    /// Writes queued chunks until all tiers are dropped.
    pub(super) async fn write_queued(self: Arc<Self>, mut queued: mpsc::UnboundedReceiver<ChunkWrite>) {
        let mut writes = Vec::new();
        while queued.recv_many(&mut writes, CELLS_PER_READ).await > 0 {
            let batch = std::mem::take(&mut writes);
            let weight: usize = batch.iter().map(|write: &ChunkWrite| write.chunk.weight()).sum();
            let result = self.write(batch).await;
            self.queued_bytes.release(weight);
            if let Some(result) = result {
                telemetry::redis_write(result);
            }
        }
    }

    /// Writes those chunks that Redis does not have yet, and whose `window.field` is not known to be wrong.
    /// Returns the result for the metric; `None` if there was nothing to write.
    async fn write(self: &Arc<Self>, mut writes: Vec<ChunkWrite>) -> Option<&'static str> {
        writes.retain(|write| !write.chunk.is_shared());
        let mut scopes: Vec<FieldScope> = Vec::new();
        for scope in writes.iter().map(|write| self.scope_of(write)) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let mut has_failed = false;
        for scope in scopes {
            let is_usable = self.is_usable(&scope, None).await;
            has_failed |= is_usable.is_none();
            if is_usable != Some(true) {
                writes.retain(|write| self.scope_of(write) != scope);
            }
        }
        has_failed |= self.write_into_cells(&writes).await.is_err();
        if has_failed { Some("failed") } else { (!writes.is_empty()).then_some("ok") }
    }

    /// Writes chunks into their cells in place of those that they cover, except those that were purged.
    pub(super) async fn write_into_cells(&self, writes: &[ChunkWrite]) -> Result<(), ConnectionError> {
        if writes.is_empty() {
            return Ok(());
        }
        let list = writes.iter().map(|write| Command::new("HKEYS").arg(write.key.clone())).collect();
        let existing = self.redis.run(list).await?;
        let now = self.clock.now();
        let (mut commands, mut written) = (Vec::new(), Vec::new());
        for (write, existing) in writes.iter().zip(existing).filter(|(write, _)| !self.is_write_purged(write)) {
            let ChunkWrite { account, stream, key, chunk } = write;
            // A whole cell that is too old is gone after a second.
            let ttl =
                self.keys.ttl(account, stream, chunk.interval().start, now, self.ttl).as_secs().max(1).to_string();
            let Some((field, value)) = self.encode(key, chunk) else { continue };
            let Some((ids_field, ids)) = self.encode_ids(key, chunk) else { continue };
            let covered = covered_fields(chunk, existing);
            written.push((commands.len(), write));
            commands.push(Command::new("HSET").arg(key.clone()).arg(field).arg(value).arg(ids_field).arg(ids));
            commands.push(Command::new("EXPIRE").arg(key.clone()).arg(ttl));
            if !covered.is_empty() {
                commands.push(Command::new("HDEL").arg(key.clone()).args(covered));
            }
        }
        let replies = self.redis.bulk(commands).await;
        // A purge that was learned meanwhile may have scanned the cell before the value was written.
        let (purged, valid): (Vec<_>, Vec<_>) = written.into_iter().partition(|(_, write)| self.is_write_purged(write));
        for (place, write) in valid {
            if let Ok(Some(Reply::Integer(_))) = replies.as_ref().map(|replies| replies.get(place)) {
                write.chunk.set_shared();
            }
        }
        let deletes = purged
            .into_iter()
            .map(|(_, ChunkWrite { key, chunk, .. })| Command::new("HDEL").arg(key.clone()).args(names(chunk)));
        self.redis.run(deletes.collect()).await.and(replies.map(drop))
    }

    /// The field and the sealed value of a chunk; `None` if the value is too large.
    pub(super) fn encode(&self, key: &str, chunk: &Chunk) -> Option<(String, Vec<u8>)> {
        let field = ChunkField::of(chunk).name();
        let name = value_name(key.as_bytes(), field.as_bytes());
        let value = chunk.to_bytes(&name).and_then(|bytes| self.cipher.seal(bytes, &name))?;
        (value.len() <= self.max_value).then_some((field, value))
    }

    /// The field and the sealed value of a chunk's filter of ids.
    fn encode_ids(&self, key: &str, chunk: &Chunk) -> Option<(String, Vec<u8>)> {
        let field = ChunkField::of(chunk).ids_name();
        let name = value_name(key.as_bytes(), field.as_bytes());
        Some((field, self.cipher.seal(ids_codec::to_bytes(chunk.ids(), &name), &name)?))
    }
}

/// The names of a chunk's fields.
fn names(chunk: &Chunk) -> [String; 2] {
    let field = ChunkField::of(chunk);
    [field.name(), field.ids_name()]
}

/// The fields, also those of filters, whose chunks lie within `chunk` and were fetched before it, and those that are not chunks.
fn covered_fields(chunk: &Chunk, existing: Reply) -> Vec<Bytes> {
    let Reply::Array(names) = existing else { return Vec::new() };
    let names = names.into_iter().filter_map(|name| match name {
        Reply::Bytes(name) => Some(name),
        _ => None,
    });
    let is_covered = |name: &Bytes| {
        let field = ChunkField::parse(name).or_else(|| ChunkField::parse_ids(name));
        let Some(ChunkField { interval, fetched_at, .. }) = field else { return true };
        interval.intersection(chunk.interval()) == interval && fetched_at < chunk.fetched_at()
    };
    names.filter(is_covered).collect()
}
