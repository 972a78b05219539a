//! The second tier: chunks in Redis, which all replicas share.
//!
//! Chunks are cut by the timestamp that `window.field` names, at a bound that `window.upper_bound` names: another setting
//! is another name. Where the setting is found wrong, a mark says so to all replicas, and to those that come after them:
//! then nothing that stands under the name is read or written any more.
//!
//! One hash for each widest cell of the grid of a series, with one field for each chunk of it. So what a window needs is
//! known without an index that could be wrong, and each cell ages by itself. Nothing here is trusted: a value that does
//! not open, does not read back, or stands under another name is a miss. So is what was purged since it was fetched; it
//! is deleted where it is met.

mod cipher;
mod handover;
mod listing;
mod marks;
mod named;

pub(in crate::cache) use self::cipher::Cipher;
pub(in crate::cache) use self::listing::{READ_BYTES, RedisListing};

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;

pub(super) use self::handover::{ChunkRef, HandoverError};

use self::cipher::DecryptError;
use super::chunk::Chunk;
use super::purge::Purges;
use super::window_field::WindowFields;
use crate::config;
use crate::paging::PlacementCheck;
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply};
use crate::request::Series;
use crate::telemetry;
use crate::window::{Grid, Interval, IntervalSet, Timestamp, UpperBound};

/// The version of what stands in Redis; another version is another name.
const FORMAT: &str = "c3";
/// The version of what replicas say to each other; those of another one have nothing to say to each other either.
const LETTERS: &str = "2";
/// So many cells are asked for at once: few enough for their values to come within the timeout.
const CELLS_AT_ONCE: usize = 32;
/// Bytes of chunks that wait to be written; what comes when so many do is not kept.
const MOST_WAITING: usize = 64 << 20;

/// Reads and writes chunks in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RedisTier {
    inner: Arc<Inner>,
    writes: mpsc::UnboundedSender<Write>,
}

#[derive(Debug)]
struct Inner {
    link: RedisClient,
    prefix: String,
    ttl: Duration,
    /// Bytes of the largest value: a larger one would hold up all others, and is not read.
    max_value: usize,
    grid: Grid,
    seal: Cipher,
    /// How chunks are cut.
    cut: String,
    purges: Purges,
    fields: WindowFields,
    /// Bytes of chunks that wait to be written.
    waiting: AtomicUsize,
}

/// A chunk to be written.
#[derive(Debug)]
struct Write {
    account: Arc<str>,
    stream: Arc<str>,
    cell: String,
    chunk: Arc<Chunk>,
}

impl RedisTier {
    /// The tier behind `link`. Must be called on a runtime, on which it writes.
    pub(super) fn new(
        redis: &config::RedisConfig,
        link: RedisClient,
        window: &config::WindowConfig,
        purges: &Purges,
        fields: &WindowFields,
    ) -> Option<Self> {
        let seal = Cipher::new(redis.encryption_key.iter().chain(&redis.previous_encryption_key))?;
        let bound = match window.upper_bound {
            UpperBound::Inclusive => "inclusive",
            UpperBound::Exclusive => "exclusive",
        };
        let cut = format!("{}:{bound}", encoded(&window.field));
        let grid = Grid::new(window.chunk);
        let (prefix, waiting) = (redis.prefix.clone(), AtomicUsize::default());
        let (purges, fields) = (purges.clone(), fields.clone());
        let max_value = usize::try_from(redis.max_value).unwrap_or(usize::MAX);
        let inner =
            Arc::new(Inner { link, prefix, ttl: redis.ttl, max_value, grid, seal, cut, purges, fields, waiting });
        let (writes, waiting) = mpsc::unbounded_channel();
        tokio::spawn(inner.clone().write_all(waiting));
        Some(Self { inner, writes })
    }

    /// Keeps a chunk of a series, soon. Nobody waits for it.
    pub(super) fn keep(&self, series: &Series, chunk: &Arc<Chunk>) {
        let weight = chunk.weight();
        if self.inner.waiting.fetch_add(weight, Ordering::Relaxed) > MOST_WAITING {
            self.inner.waiting.fetch_sub(weight, Ordering::Relaxed);
            telemetry::redis_write("full");
            return;
        }
        let cell = cell_name(&self.inner.series_name(series), self.inner.grid.cell(chunk.interval().start));
        // The writer ends with the last tier.
        let (account, stream) = (series.account.clone(), series.stream.clone());
        let _ = self.writes.send(Write { account, stream, cell, chunk: chunk.clone() });
    }

    /// What seals and opens what leaves the process.
    pub(super) fn seal(&self) -> &Cipher {
        &self.inner.seal
    }

    /// How chunks are cut: replicas that cut otherwise have nothing to say to each other.
    pub(super) fn cut(&self) -> String {
        let cell = self.inner.grid.cell(Timestamp::from_nanos(0));
        format!("{LETTERS}:{}:{}", self.inner.cut, cell.length().as_secs())
    }

    /// Deletes chunks of a series, soon.
    pub(super) fn delete(&self, series: &Series, chunks: &[Chunk]) {
        let name = self.inner.series_name(series);
        for chunk in chunks {
            let cell = cell_name(&name, self.inner.grid.cell(chunk.interval().start));
            self.inner.delete(&cell, std::slice::from_ref(chunk));
        }
    }

    /// The chunks of a series that are kept for any of `intervals`, oldest first. What cannot be had is left out.
    pub(super) async fn look_up(&self, series: &Series, intervals: &IntervalSet) -> Vec<Chunk> {
        let inner = &self.inner;
        let name = inner.series_name(series);
        let cells: Vec<String> = inner.cells(intervals).map(|cell| cell_name(&name, cell)).collect();
        let mut chunks = Vec::new();
        for cells in cells.chunks(CELLS_AT_ONCE) {
            let Some(found) = inner.read_cells(series, cells, intervals).await else { break };
            chunks.extend(found);
        }
        chunks.sort_by_key(Chunk::fetched_at);
        chunks
    }
}

fn overlaps(chunk: &Chunk, intervals: &IntervalSet) -> bool {
    intervals.intervals().iter().any(|interval| interval.overlaps(chunk.interval()))
}

impl Inner {
    /// Everything that identifies a series, in a name that nobody else's can be: what callers choose freely is hashed.
    fn series_name(&self, series: &Series) -> String {
        // Taken apart, so that a new member cannot be forgotten.
        let Series { account, stream, filter, parameters, agentic } = series;
        let mut hash = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(&filter.body().unwrap_or_default());
        for (name, value) in parameters {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        let hash = hash.finish();
        let rest = u128::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"));
        let [account, stream] = [account, stream].map(|name| encoded(name));
        let agentic = if *agentic { "rich" } else { "plain" };
        format!("{}:{FORMAT}:{account}:{}:{stream}:{agentic}:{rest:032x}", self.prefix, self.cut)
    }

    fn cells(&self, intervals: &IntervalSet) -> impl Iterator<Item = Interval> {
        let mut cells = BTreeMap::new();
        for interval in intervals.intervals() {
            let mut at = interval.start;
            while at < interval.end {
                let cell = self.grid.cell(at);
                cells.insert(cell.start, cell);
                at = cell.end;
            }
        }
        cells.into_values()
    }

    /// The chunks that these cells of a series hold for any of `intervals`. `None` if Redis does not say.
    async fn read_cells(
        self: &Arc<Self>,
        series: &Series,
        cells: &[String],
        intervals: &IntervalSet,
    ) -> Option<Vec<Chunk>> {
        let ask = cells.iter().map(|cell| Command::new("HGETALL").arg(cell.clone()));
        let replies = self.ask(series, ask, cells.len()).await?;
        let mut chunks = Vec::new();
        for (cell, reply) in cells.iter().zip(replies) {
            let found = self.read(cell, reply);
            let (buried, good): (Vec<_>, Vec<_>) = found.partition(|chunk| self.purges.buries(series, chunk));
            self.delete(cell, &buried);
            chunks.extend(good.into_iter().filter(|chunk| overlaps(chunk, intervals)));
        }
        Some(chunks)
    }

    /// The chunks that a cell holds.
    fn read(&self, cell: &str, reply: Reply) -> impl Iterator<Item = Chunk> {
        let Reply::Array(fields) = reply else { return Vec::new().into_iter() };
        let mut chunks = Vec::new();
        let mut fields = fields.into_iter();
        while let (Some(Reply::Bytes(field)), Some(value)) = (fields.next(), fields.next()) {
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
        chunks.into_iter()
    }

    fn decode(&self, cell: &str, field: &[u8], value: Bytes, placed: PlacementCheck) -> Result<Chunk, DecryptError> {
        let name = value_name(cell, field);
        let value = self.seal.open(value, &name)?;
        let chunk = match placed {
            PlacementCheck::Checked => Chunk::from_bytes(&value, &name),
            PlacementCheck::Unchecked => Chunk::from_bytes_unplaced(&value, &name),
        };
        let chunk = chunk.ok_or(DecryptError::Damaged)?;
        (field_name(&chunk).as_bytes() == field).then_some(chunk).ok_or(DecryptError::Damaged)
    }

    /// Deletes what was purged, behind the back of whoever has met it.
    fn delete(self: &Arc<Self>, cell: &str, buried: &[Chunk]) {
        if !buried.is_empty() {
            telemetry::redis_read("purged");
            let fields = buried.iter().map(field_name);
            let (link, delete) = (self.link.clone(), Command::new("HDEL").arg(cell.to_owned()).args(fields));
            tokio::spawn(async move { link.run(vec![delete]).await });
        }
    }

    fn is_buried(&self, Write { account, stream, chunk, .. }: &Write) -> bool {
        self.purges.buries_of(account, stream, chunk.interval(), chunk.epoch())
    }

    async fn write_all(self: Arc<Self>, mut waiting: mpsc::UnboundedReceiver<Write>) {
        let mut writes = Vec::new();
        while waiting.recv_many(&mut writes, CELLS_AT_ONCE).await > 0 {
            let taken = std::mem::take(&mut writes);
            let weight: usize = taken.iter().map(|write: &Write| write.chunk.weight()).sum();
            let result = self.write(taken).await;
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            telemetry::redis_write(if result.is_ok() { "ok" } else { "failed" });
        }
    }

    /// Writes those chunks of whose account something may be written, and that are not there already.
    async fn write(self: &Arc<Self>, mut writes: Vec<Write>) -> Result<(), ConnectionError> {
        writes.retain(|write| !write.chunk.is_shared());
        let accounts: HashSet<Arc<str>> = writes.iter().map(|write| write.account.clone()).collect();
        for account in accounts {
            if !self.is_good(&account, None).await {
                writes.retain(|write| write.account != account);
            }
        }
        self.write_into_cells(&writes).await
    }

    /// Writes chunks into their cells, in place of those that they cover; but nothing that was purged.
    async fn write_into_cells(&self, writes: &[Write]) -> Result<(), ConnectionError> {
        if writes.is_empty() {
            return Ok(());
        }
        let ask = writes.iter().map(|write| Command::new("HKEYS").arg(write.cell.clone())).collect();
        let there = self.link.run(ask).await?;
        let ttl = self.ttl.as_secs().max(1).to_string();
        let (mut commands, mut written) = (Vec::new(), Vec::new());
        for (write, there) in writes.iter().zip(there).filter(|(write, _)| !self.is_buried(write)) {
            let Write { cell, chunk, .. } = write;
            let Some((field, value)) = self.encode(cell, chunk) else { continue };
            let covered = covered(chunk, there);
            written.push((commands.len(), write));
            commands.push(Command::new("HSET").arg(cell.clone()).arg(field).arg(value));
            commands.push(Command::new("EXPIRE").arg(cell.clone()).arg(ttl.clone()));
            if !covered.is_empty() {
                commands.push(Command::new("HDEL").arg(cell.clone()).args(covered));
            }
        }
        let replies = self.link.bulk(commands).await;
        // A purge that came meanwhile may have been here before the value was.
        let (late, good): (Vec<_>, Vec<_>) = written.into_iter().partition(|(_, write)| self.is_buried(write));
        for (place, write) in good {
            if let Ok(Some(Reply::Integer(_))) = replies.as_ref().map(|replies| replies.get(place)) {
                write.chunk.set_shared();
            }
        }
        let late = late
            .into_iter()
            .map(|(_, Write { cell, chunk, .. })| Command::new("HDEL").arg(cell.clone()).arg(field_name(chunk)));
        self.link.run(late.collect()).await.and(replies.map(drop))
    }

    /// The field and the value of a chunk, unless it is too large.
    fn encode(&self, cell: &str, chunk: &Chunk) -> Option<(String, Vec<u8>)> {
        let field = field_name(chunk);
        let name = value_name(cell, field.as_bytes());
        let value = chunk.to_bytes(&name).and_then(|bytes| self.seal.seal(bytes, &name))?;
        (value.len() <= self.max_value).then_some((field, value))
    }
}

/// No sign in it that parts names, or that a pattern could mean.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn cell_name(series: &str, cell: Interval) -> String {
    format!("{series}:{}:{}", cell.start.as_seconds(), cell.length().as_secs())
}

fn field_name(chunk: &Chunk) -> String {
    field_of(chunk.interval(), chunk.fetched_at(), chunk.epoch())
}

/// What a chunk is called in its cell: of which time it is, when it was fetched, and the epoch of its run. So it can be
/// told without its value whether it was purged.
fn field_of(Interval { start, end }: Interval, fetched_at: Timestamp, epoch: u64) -> String {
    format!("{}_{}_{}_{epoch}", start.as_nanos(), end.as_nanos(), fetched_at.as_nanos())
}

/// The span, when it was fetched, and the epoch; it is 0 where it does not say.
pub(super) fn read_field(field: &[u8]) -> Option<(Interval, Timestamp, u64)> {
    let mut numbers = std::str::from_utf8(field).ok()?.split('_');
    let mut moment = || numbers.next()?.parse().ok().map(Timestamp::from_nanos);
    let (interval, fetched_at) = (Interval::new(moment()?, moment()?), moment()?);
    Some((interval, fetched_at, numbers.next().map_or(Some(0), |epoch| epoch.parse().ok())?))
}

/// The fields whose chunks lie within `chunk` and were fetched before it.
fn covered(chunk: &Chunk, there: Reply) -> Vec<Bytes> {
    let Reply::Array(fields) = there else { return Vec::new() };
    let fields = fields.into_iter().filter_map(|field| match field {
        Reply::Bytes(field) => Some(field),
        _ => None,
    });
    let covered = |field: &Bytes| {
        let Some((interval, fetched_at, _)) = read_field(field) else { return true };
        interval.intersection(chunk.interval()) == interval && fetched_at < chunk.fetched_at()
    };
    fields.filter(covered).collect()
}

/// A value is bound to where it stands.
fn value_name(cell: &str, field: &[u8]) -> Vec<u8> {
    [cell.as_bytes(), b"\0", field].concat()
}
