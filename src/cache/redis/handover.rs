//! Chunks that the leader hands over to a follower.
//!
//! A chunk that is cached anyway is in its cell. All others (open data that is always fetched again, exact windows,
//! what was derived for one answer, what was purged while it was fetched) are for a minute in a hash of this handover,
//! sealed and bound to its name as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::ChunkField;
use super::write::ChunkWrite;
use super::{CELLS_PER_READ, RedisTier};
use crate::cache::chunk::Chunk;
use crate::paging::PlacementCheck;
use crate::redis_client::{Command, ConnectionError, Reply};
use crate::replicas::ChunkRef;
use crate::request::Series;

/// Seconds for which the hash of a handover is kept.
const HANDOVER_TTL_SECONDS: &str = "60";
/// Bytes that are written in one call: few enough to be written within the timeout.
const MAX_WRITE_BYTES: usize = 4 << 20;

/// Why chunks could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cache) enum HandoverError {
    /// Redis did not take them now.
    Refused,
    /// A chunk is larger than a value may be.
    TooLarge,
}

impl From<ConnectionError> for HandoverError {
    fn from(_: ConnectionError) -> Self {
        Self::Refused
    }
}

impl RedisTier {
    /// Writes the chunks of a series where a follower finds them: those that are `storable` into their cells, the
    /// others into the hash `handover`. With `avoid_cells`, all go into the hash. A chunk that was purged since its run
    /// began goes into the hash too, since the follower may have requested it before the purge.
    ///
    /// # Errors
    /// If Redis does not take them, or a chunk is too large.
    pub(in crate::cache) async fn hand_over(
        &self,
        series: &Series,
        handover: &str,
        chunks: &[(Arc<Chunk>, bool)],
        avoid_cells: bool,
    ) -> Result<Vec<ChunkRef>, HandoverError> {
        let inner = &self.inner;
        if chunks.iter().any(|(chunk, _)| chunk.weight() > inner.max_value) {
            return Err(HandoverError::TooLarge);
        }
        let name = inner.keys.series(series);
        let use_cells = !avoid_cells && self.is_usable(series).await;
        let mut refs = Vec::with_capacity(chunks.len());
        let (mut into_hash, mut into_cells) = (Vec::new(), Vec::new());
        for (chunk, storable) in chunks {
            let ChunkField { interval, fetched_at, epoch } = ChunkField::of(chunk);
            let in_cell = *storable && use_cells && !inner.is_purged(series, chunk);
            refs.push(ChunkRef { interval, fetched_at, epoch, is_in_handover: !in_cell });
            let write = |key| {
                let (account, stream) = (series.account.clone(), series.stream.clone());
                ChunkWrite { account, stream, key, chunk: chunk.clone() }
            };
            if !in_cell {
                into_hash.push(write(handover.to_owned()));
            } else if !chunk.is_shared() {
                into_cells.push(write(inner.keys.cell(&name, interval.start)));
            }
        }
        for batch in batches(&into_cells) {
            inner.write_into_cells(batch).await?;
            // A chunk that was purged meanwhile was not written; the next attempt puts it into the hash.
            if !batch.iter().all(|write| write.chunk.is_shared()) {
                return Err(HandoverError::Refused);
            }
        }
        for batch in batches(&into_hash) {
            self.write_into_hash(batch).await?;
        }
        Ok(refs)
    }

    /// Writes chunks into the hash of a handover. The follower decides for which requests a purged chunk may be used,
    /// so purged chunks are written too.
    async fn write_into_hash(&self, writes: &[ChunkWrite]) -> Result<(), HandoverError> {
        let mut commands = Vec::with_capacity(2 * writes.len());
        for ChunkWrite { key, chunk, .. } in writes {
            let (field, value) = self.inner.encode(key, chunk).ok_or(HandoverError::TooLarge)?;
            commands.push(Command::new("HSET").arg(key.clone()).arg(field).arg(value));
            commands.push(Command::new("EXPIRE").arg(key.clone()).arg(HANDOVER_TTL_SECONDS));
        }
        let replies = self.inner.redis.bulk(commands).await?;
        let is_written = replies.iter().all(|reply| matches!(reply, Reply::Integer(_)));
        if is_written { Ok(()) } else { Err(HandoverError::Refused) }
    }

    /// Reads chunks that were handed over, oldest first; `None` if one of them is missing. The purges of the account
    /// are known then, but not applied to the chunks: that depends on when the request was made.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(in crate::cache) async fn take_over(
        &self,
        series: &Series,
        handover: &str,
        chunks: &[ChunkRef],
        placement: PlacementCheck,
    ) -> Result<Option<Vec<Chunk>>, ConnectionError> {
        let name = self.inner.keys.series(series);
        let mut taken = Vec::with_capacity(chunks.len());
        for refs in chunks.chunks(CELLS_PER_READ) {
            let mut hashes: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
            for ChunkRef { interval, fetched_at, epoch, is_in_handover } in refs.iter().copied() {
                let cell = || self.inner.keys.cell(&name, interval.start);
                let key = if is_in_handover { handover.to_owned() } else { cell() };
                let field = ChunkField { interval, fetched_at, epoch }.name();
                hashes.entry(key).or_default().push((field, is_in_handover));
            }
            let reads = hashes.iter().map(|(key, fields)| {
                Command::new("HMGET").arg(key.clone()).args(fields.iter().map(|(field, _)| field.clone()))
            });
            let purges = &self.inner.purges;
            let commands = reads.chain(purges.marker_command(&series.account)).collect();
            let replies = self.inner.redis.bulk(commands).await?;
            if !purges.apply_marker(&series.account, replies.get(hashes.len())).await {
                return Err(ConnectionError::NotReady("the purges are not known".to_owned()));
            }
            for ((key, fields), reply) in hashes.iter().zip(replies) {
                let values = match reply {
                    Reply::Array(values) => values,
                    Reply::Error(error) => return Err(ConnectionError::NotReady(error)),
                    _ => return Ok(None),
                };
                for ((field, is_in_handover), value) in fields.iter().zip(values) {
                    let Reply::Bytes(value) = value else { return Ok(None) };
                    let Ok(chunk) = self.inner.decode(key, field.as_bytes(), value, placement) else { return Ok(None) };
                    if !is_in_handover {
                        chunk.set_shared();
                    }
                    taken.push(chunk);
                }
            }
        }
        taken.sort_by_key(Chunk::fetched_at);
        Ok((taken.len() == chunks.len()).then_some(taken))
    }
}

/// Batches of few chunks and few bytes.
fn batches(mut writes: &[ChunkWrite]) -> impl Iterator<Item = &[ChunkWrite]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = writes.iter().take(CELLS_PER_READ).take_while(|write| {
            let before = bytes;
            bytes += write.chunk.weight();
            before < MAX_WRITE_BYTES
        });
        let (batch, rest) = writes.split_at(fits.count());
        writes = rest;
        (!batch.is_empty()).then_some(batch)
    })
}
