//! Lists and reads the chunks of a series. The names of fields say what is there without any value, so a long window is
//! listed first, and read little by little.

use std::sync::Arc;

use bytes::Bytes;

use super::keys::{ChunkField, value_name};
use super::{CELLS_PER_READ, Inner, RedisTier};
use crate::cache::chunk::Chunk;
use crate::paging::PlacementCheck;
use crate::redis_client::{Command, Reply};
use crate::replicas::DecryptError;
use crate::request::{IdFilter, Series};
use crate::telemetry;
use crate::telemetry::Tier;
use crate::window::{Interval, IntervalSet, Timestamp};

/// Cells that are listed in one call. Names of fields are short.
const CELLS_PER_LISTING: usize = 256;

impl RedisTier {
    /// The chunks of a series in the cells of `intervals`, each with its interval and the time of its fetch, without
    /// those that were purged. What cannot be listed is left out. A listed value may be damaged or gone.
    pub(in crate::cache) async fn list(&self, series: &Series, intervals: &IntervalSet) -> Vec<(Interval, Timestamp)> {
        let inner = &self.inner;
        let mut listed = Vec::new();
        for cells in inner.keys.cells(series, intervals).chunks(CELLS_PER_LISTING) {
            let commands = cells.iter().map(|cell| Command::new("HKEYS").arg(cell.clone()));
            let Some(replies) = inner.run_with_marker(series, commands, cells.len()).await else { break };
            let names = replies.into_iter().filter_map(|reply| match reply {
                Reply::Array(names) => Some(names),
                _ => None,
            });
            let fields = names.flatten().filter_map(|name| match name {
                Reply::Bytes(name) => ChunkField::parse(&name),
                _ => None,
            });
            // Which ids a chunk holds is found out when it is read.
            let valid = fields.filter(|field| !inner.is_field_purged(series, field, &IdFilter::default()));
            listed.extend(valid.map(|field| (field.interval, field.fetched_at)));
        }
        listed
    }

    /// The chunks of a series that overlap `intervals`, oldest first. What cannot be read is left out.
    pub(in crate::cache) async fn look_up(&self, series: &Series, intervals: &IntervalSet) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for cells in self.inner.keys.cells(series, intervals).chunks(CELLS_PER_READ) {
            let Some(found) = self.inner.read_cells(series, cells, intervals).await else { break };
            chunks.extend(found);
        }
        chunks.sort_by_key(Chunk::fetched_at);
        chunks
    }

    /// The chunks of a series that overlap `intervals`, which lie in few cells, oldest first. `None` if Redis does not
    /// answer.
    pub(in crate::cache) async fn read(&self, series: &Series, intervals: &IntervalSet) -> Option<Vec<Chunk>> {
        let cells = self.inner.keys.cells(series, intervals);
        let mut chunks = self.inner.read_cells(series, &cells, intervals).await?;
        chunks.sort_by_key(Chunk::fetched_at);
        Some(chunks)
    }
}

impl Inner {
    /// Runs `count` commands, and reads the marker of the account's purges in the same call, since a purge that this
    /// replica has not heard of may precede the request. `None` if either fails.
    async fn run_with_marker(
        &self,
        series: &Series,
        commands: impl Iterator<Item = Command>,
        count: usize,
    ) -> Option<Vec<Reply>> {
        let commands = commands.chain(self.purges.marker_command(&series.account)).collect();
        let replies = self.redis.bulk(commands).await;
        let marker = replies.as_ref().ok().and_then(|replies| replies.get(count));
        let is_current = self.purges.apply_marker(&series.account, marker).await;
        let replies = replies.ok().filter(|_| is_current);
        if replies.is_none() {
            telemetry::redis_read("failed");
        }
        replies.map(|mut replies| {
            replies.truncate(count);
            replies
        })
    }

    /// The chunks in these cells of a series that overlap `intervals`. `None` if Redis does not answer.
    async fn read_cells(
        self: &Arc<Self>,
        series: &Series,
        cells: &[String],
        intervals: &IntervalSet,
    ) -> Option<Vec<Chunk>> {
        let commands = cells.iter().map(|cell| Command::new("HGETALL").arg(cell.clone()));
        let replies = self.run_with_marker(series, commands, cells.len()).await?;
        let mut chunks = Vec::new();
        for (cell, reply) in cells.iter().zip(replies) {
            let found = self.decode_cell(cell, reply).into_iter();
            let (purged, valid): (Vec<_>, Vec<_>) = found.partition(|chunk| self.is_purged(series, chunk));
            self.delete_purged(cell, &purged);
            let before = chunks.len();
            chunks.extend(valid.into_iter().filter(|chunk| overlaps(chunk, intervals)));
            let is_hit = chunks.len() > before;
            telemetry::tier_lookups(Tier::Redis, usize::from(is_hit), usize::from(!is_hit));
        }
        Some(chunks)
    }

    /// The chunks that can be decoded of a cell.
    fn decode_cell(&self, cell: &str, reply: Reply) -> Vec<Chunk> {
        let Reply::Array(fields) = reply else { return Vec::new() };
        let mut chunks = Vec::new();
        let mut fields = fields.into_iter();
        while let (Some(Reply::Bytes(field)), Some(value)) = (fields.next(), fields.next()) {
            // The chunk holds its filter of ids too.
            if ChunkField::parse_ids(&field).is_some() {
                continue;
            }
            let Reply::Bytes(value) = value else {
                telemetry::redis_read(if value.is_too_large() { "too_large" } else { "damaged" });
                continue;
            };
            match self.decode(cell, &field, value, PlacementCheck::Checked) {
                Ok(chunk) => {
                    telemetry::redis_read("hit");
                    chunk.set_shared();
                    chunks.push(chunk);
                }
                Err(DecryptError::WrongKey) => telemetry::redis_wrong_key(),
                Err(DecryptError::Damaged) => telemetry::redis_read("damaged"),
            }
        }
        chunks
    }

    /// Opens and decodes the value of a field.
    pub(super) fn decode(
        &self,
        cell: &str,
        field: &[u8],
        value: Bytes,
        placement: PlacementCheck,
    ) -> Result<Chunk, DecryptError> {
        let name = value_name(cell.as_bytes(), field);
        let value = self.cipher.open(value, &name)?;
        let chunk = match placement {
            PlacementCheck::Checked => Chunk::from_bytes(&value, &name),
            PlacementCheck::Unchecked => Chunk::from_bytes_unplaced(&value, &name),
        };
        let chunk = chunk.ok_or(DecryptError::Damaged)?;
        (ChunkField::of(&chunk).name().as_bytes() == field).then_some(chunk).ok_or(DecryptError::Damaged)
    }

    /// Whether a chunk was purged since its run began.
    pub(super) fn is_purged(&self, series: &Series, chunk: &Chunk) -> bool {
        self.is_field_purged(series, &ChunkField::of(chunk), chunk.ids())
    }

    fn is_field_purged(&self, Series { account, stream, .. }: &Series, field: &ChunkField, ids: &IdFilter) -> bool {
        self.purges.is_purged(account, stream, field.interval, field.epoch, ids)
    }
}

fn overlaps(chunk: &Chunk, intervals: &IntervalSet) -> bool {
    intervals.intervals().iter().any(|interval| interval.overlaps(chunk.interval()))
}
