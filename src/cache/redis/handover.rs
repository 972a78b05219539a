//! How one replica hands another the chunks that an answer is made of.
//!
//! What the tier keeps anyhow stands in its cell. What it does not keep (what is always asked for afresh, what cannot be
//! cut, what was made for one answer, what was purged while it was fetched) stands for a minute in a hash of its own,
//! sealed and bound to its name all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CELLS_AT_ONCE, RedisTier, Write, cell_name, field_of};
use crate::cache::chunk::Chunk;
use crate::paging::PlacementCheck;
use crate::redis_client::{Command, ConnectionError, Reply};
use crate::request::Series;
use crate::window::{Interval, Timestamp};

/// So many seconds there is to take over what is kept nowhere else.
const PASSING: &str = "60";
/// So many bytes are written at once: few enough for them to go within the timeout.
const BYTES_AT_ONCE: usize = 4 << 20;

/// Where a chunk of a series is to be found, without the name of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64, i64, u64, bool)", into = "(i64, i64, i64, u64, bool)")]
pub(in crate::cache) struct ChunkRef {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) fetched_at: Timestamp,
    /// The last purge that the one who calls knew of when the chunk's run began.
    pub(in crate::cache) epoch: u64,
    /// Whether it stands in the hash of this hand-over, and not in its cell.
    pub(in crate::cache) passing: bool,
}

impl From<(i64, i64, i64, u64, bool)> for ChunkRef {
    fn from((start, end, fetched_at, epoch, passing): (i64, i64, i64, u64, bool)) -> Self {
        let [start, end, fetched_at] = [start, end, fetched_at].map(Timestamp::from_nanos);
        Self { interval: Interval::new(start, end), fetched_at, epoch, passing }
    }
}

impl From<ChunkRef> for (i64, i64, i64, u64, bool) {
    fn from(ChunkRef { interval, fetched_at, epoch, passing }: ChunkRef) -> Self {
        (interval.start.as_nanos(), interval.end.as_nanos(), fetched_at.as_nanos(), epoch, passing)
    }
}

/// Why chunks could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cache) enum HandoverError {
    /// Redis did not take them; it may when it is asked again.
    Refused,
    /// One of them is larger than a value may be.
    TooLarge,
}

impl From<ConnectionError> for HandoverError {
    fn from(_: ConnectionError) -> Self {
        Self::Refused
    }
}

impl RedisTier {
    /// Sees to it that chunks of a series can be taken over, those that are `kept` from their cells, the others from the
    /// hash `passing`. With `anew`, all of them from there, whatever should be in the cells. What was purged since its run
    /// began is not written into cells; whoever asked for it before may still have it.
    pub(in crate::cache) async fn hand_over(
        &self,
        series: &Series,
        passing: &str,
        chunks: &[(Arc<Chunk>, bool)],
        anew: bool,
    ) -> Result<Vec<ChunkRef>, HandoverError> {
        if chunks.iter().any(|(chunk, _)| chunk.weight() > self.inner.max_value) {
            return Err(HandoverError::TooLarge);
        }
        let name = self.inner.series_name(series);
        let use_cells = !anew && self.is_good(series).await;
        let mut pieces = Vec::with_capacity(chunks.len());
        let (mut passed, mut unwritten) = (Vec::new(), Vec::new());
        for (chunk, kept) in chunks {
            let (interval, fetched_at, epoch) = (chunk.interval(), chunk.fetched_at(), chunk.epoch());
            let in_cell = *kept && use_cells && !self.inner.purges.buries(series, chunk);
            pieces.push(ChunkRef { interval, fetched_at, epoch, passing: !in_cell });
            let write = |cell| {
                let (account, stream) = (series.account.clone(), series.stream.clone());
                Write { account, stream, cell, chunk: chunk.clone() }
            };
            if !in_cell {
                passed.push(write(passing.to_owned()));
            } else if !chunk.is_shared() {
                unwritten.push(write(cell_name(&name, self.inner.grid.cell(interval.start))));
            }
        }
        for batch in batches(&unwritten) {
            self.inner.write_into_cells(batch).await?;
            // What was purged meanwhile is not there either, and passes at the next try.
            if !batch.iter().all(|write| write.chunk.is_shared()) {
                return Err(HandoverError::Refused);
            }
        }
        for batch in batches(&passed) {
            self.pass(batch).await?;
        }
        Ok(pieces)
    }

    /// Writes chunks where only the one who has asked for them reads them. That one tells by itself what of them may be
    /// used for whom, so what was purged passes too.
    async fn pass(&self, writes: &[Write]) -> Result<(), HandoverError> {
        let mut commands = Vec::with_capacity(2 * writes.len());
        for Write { cell: key, chunk, .. } in writes {
            let (field, value) = self.inner.encode(key, chunk).ok_or(HandoverError::TooLarge)?;
            commands.push(Command::new("HSET").arg(key.clone()).arg(field).arg(value));
            commands.push(Command::new("EXPIRE").arg(key.clone()).arg(PASSING));
        }
        let replies = self.inner.link.bulk(commands).await?;
        let taken = replies.iter().all(|reply| matches!(reply, Reply::Integer(_)));
        if taken { Ok(()) } else { Err(HandoverError::Refused) }
    }

    /// The chunks that were handed over, oldest first; `None` if one of them is not there any more. It is known then what
    /// was purged before they were read, but not looked whether they were: that depends on for whom they are.
    pub(in crate::cache) async fn take_over(
        &self,
        series: &Series,
        passing: &str,
        pieces: &[ChunkRef],
        placed: PlacementCheck,
    ) -> Result<Option<Vec<Chunk>>, ConnectionError> {
        let name = self.inner.series_name(series);
        let mut chunks = Vec::with_capacity(pieces.len());
        for pieces in pieces.chunks(CELLS_AT_ONCE) {
            let mut places: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
            for piece in pieces {
                let cell = || cell_name(&name, self.inner.grid.cell(piece.interval.start));
                let key = if piece.passing { passing.to_owned() } else { cell() };
                places
                    .entry(key)
                    .or_default()
                    .push((field_of(piece.interval, piece.fetched_at, piece.epoch), piece.passing));
            }
            let ask = places.iter().map(|(key, fields)| {
                Command::new("HMGET").arg(key.clone()).args(fields.iter().map(|(field, _)| field.clone()))
            });
            let purges = &self.inner.purges;
            let replies = self.inner.link.bulk(ask.chain(purges.ask(&series.account)).collect()).await?;
            if !purges.heard(&series.account, replies.get(places.len())).await {
                return Err(ConnectionError::NotReady("it does not tell what was purged".to_owned()));
            }
            for ((key, fields), reply) in places.iter().zip(replies) {
                let values = match reply {
                    Reply::Array(values) => values,
                    Reply::Error(error) => return Err(ConnectionError::NotReady(error)),
                    _ => return Ok(None),
                };
                for ((field, passing), value) in fields.iter().zip(values) {
                    let Reply::Bytes(value) = value else { return Ok(None) };
                    let Ok(chunk) = self.inner.decode(key, field.as_bytes(), value, placed) else { return Ok(None) };
                    if !passing {
                        chunk.set_shared();
                    }
                    chunks.push(chunk);
                }
            }
        }
        chunks.sort_by_key(Chunk::fetched_at);
        Ok((chunks.len() == pieces.len()).then_some(chunks))
    }
}

/// Few enough chunks at a time, and not too many bytes of them.
fn batches(mut writes: &[Write]) -> impl Iterator<Item = &[Write]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = writes.iter().take(CELLS_AT_ONCE).take_while(|write| {
            let before = bytes;
            bytes += write.chunk.weight();
            before < BYTES_AT_ONCE
        });
        let (batch, rest) = writes.split_at(fits.count());
        writes = rest;
        (!batch.is_empty()).then_some(batch)
    })
}
