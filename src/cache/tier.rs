//! The second tier: chunks in Redis, which all replicas share.
//!
//! Chunks are cut by the timestamp that `window.field` names, at a bound that `window.upper_bound` names: another setting
//! is another name. Where the setting is found wrong, a mark says so to all replicas, and to those that come after them:
//! then nothing that stands under the name is read or written any more.
//!
//! One hash for each widest cell of the grid of a series, with one field for each chunk of it. So what a window needs is
//! known without an index that could be wrong, and each cell ages by itself. Nothing here is trusted: a value that does
//! not open, does not read back, or stands under another name is a miss.

mod handover;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;

pub(super) use self::handover::{NotHanded, Piece};

use super::chunk::Chunk;
use super::seal::{Seal, Unopened};
use crate::config;
use crate::fleet::{Command, Link, LinkError, Reply};
use crate::repage::Placed;
use crate::telemetry;
use crate::upstream::Series;
use crate::window::{Grid, Moment, Span, SpanSet, UpperBound};

/// The version of what stands in Redis; another version is another name.
const FORMAT: &str = "c1";
/// So many cells are asked for at once: few enough for their values to come within the timeout.
const CELLS_AT_ONCE: usize = 32;
/// Bytes of chunks that wait to be written; what comes when so many do is not kept.
const MOST_WAITING: usize = 64 << 20;
/// A value of this many bytes is not kept: it would hold up all others.
const MOST_BYTES: usize = 32 << 20;

/// Reads and writes chunks in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    inner: Arc<Inner>,
    writes: mpsc::UnboundedSender<Write>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    prefix: String,
    ttl: Duration,
    grid: Grid,
    seal: Seal,
    /// How chunks are cut.
    cut: String,
    /// Bytes of chunks that wait to be written.
    waiting: AtomicUsize,
}

/// A chunk to be written.
#[derive(Debug)]
struct Write {
    account: Arc<str>,
    cell: String,
    chunk: Arc<Chunk>,
}

impl Tier {
    /// The tier behind `link`. Must be called on a runtime, on which it writes.
    pub(super) fn new(redis: &config::Redis, link: Link, window: &config::Window) -> Option<Self> {
        let seal = Seal::new(redis.encryption_key.iter().chain(&redis.previous_encryption_key))?;
        let bound = match window.upper_bound {
            UpperBound::Inclusive => "inclusive",
            UpperBound::Exclusive => "exclusive",
        };
        let cut = format!("{}:{bound}", encoded(&window.field));
        let grid = Grid::new(window.chunk);
        let (prefix, waiting) = (redis.prefix.clone(), AtomicUsize::default());
        let inner = Arc::new(Inner { link, prefix, ttl: redis.ttl, grid, seal, cut, waiting });
        let (writes, waiting) = mpsc::unbounded_channel();
        tokio::spawn(inner.clone().write_all(waiting));
        Some(Self { inner, writes })
    }

    /// Keeps a chunk of a series, soon. Nobody waits for it.
    pub(super) fn keep(&self, series: &Series, chunk: &Arc<Chunk>) {
        let weight = chunk.weight();
        if self.inner.waiting.fetch_add(weight, Ordering::Relaxed) > MOST_WAITING {
            self.inner.waiting.fetch_sub(weight, Ordering::Relaxed);
            telemetry::tier_write("full");
            return;
        }
        let cell = cell_name(&self.inner.series_name(series), self.inner.grid.cell(chunk.span().start));
        // The writer ends with the last tier.
        let _ = self.writes.send(Write { account: series.account.clone(), cell, chunk: chunk.clone() });
    }

    /// The items of an account do not lie where they were asked for: what was cut is worth nothing, to nobody.
    pub(super) fn give_up(&self, account: &str) {
        let (inner, mark) = (self.inner.clone(), self.inner.mark_name(account));
        tokio::spawn(async move {
            // As long as it takes: what is not marked would be served by the next process.
            while !inner.marked(&mark).await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// What seals and opens what leaves the process.
    pub(super) fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    /// How chunks are cut: replicas that cut otherwise have nothing to say to each other.
    pub(super) fn cut(&self) -> String {
        let cell = self.inner.grid.cell(Moment::from_nanos(0));
        format!("{}:{}", self.inner.cut, cell.length().as_secs())
    }

    /// Whether what is kept of an account may be read.
    pub(super) async fn is_good(&self, account: &str) -> bool {
        self.inner.is_good(account).await
    }

    /// The chunks of a series that are kept for any of `spans`, oldest first. What cannot be had is left out.
    pub(super) async fn look_up(&self, series: &Series, spans: &SpanSet) -> Vec<Chunk> {
        let inner = &self.inner;
        let series = inner.series_name(series);
        let cells: Vec<String> = inner.cells(spans).map(|cell| cell_name(&series, cell)).collect();
        let mut chunks = Vec::new();
        for cells in cells.chunks(CELLS_AT_ONCE) {
            let ask = cells.iter().map(|cell| Command::new("HGETALL").arg(cell.clone())).collect();
            let Ok(replies) = inner.link.bulk(ask).await else {
                telemetry::tier_read("failed");
                break;
            };
            for (cell, reply) in cells.iter().zip(replies) {
                chunks.extend(inner.read(cell, reply).filter(|chunk| overlaps(chunk, spans)));
            }
        }
        chunks.sort_by_key(Chunk::fetched_at);
        chunks
    }
}

fn overlaps(chunk: &Chunk, spans: &SpanSet) -> bool {
    spans.spans().iter().any(|span| span.overlaps(chunk.span()))
}

impl Inner {
    fn mark_name(&self, account: &str) -> String {
        format!("{}:{FORMAT}:{}:{}:wrong", self.prefix, encoded(account), self.cut)
    }

    async fn marked(&self, mark: &str) -> bool {
        let replies = self.link.run(vec![Command::new("SET").arg(mark.to_owned()).arg("1")]).await;
        replies.is_ok_and(|replies| matches!(replies[..], [Reply::Status(_)]))
    }

    /// Whether what is kept of an account may be used: nobody has found that it was cut wrongly.
    async fn is_good(&self, account: &str) -> bool {
        let mark = Command::new("GET").arg(self.mark_name(account));
        self.link.run(vec![mark]).await.is_ok_and(|replies| replies == [Reply::Nil])
    }

    /// Everything that identifies a series, in a name that nobody else's can be: what callers choose freely is hashed.
    fn series_name(&self, series: &Series) -> String {
        // Taken apart, so that a new member cannot be forgotten.
        let Series { account, stream, filter, parameters, rich } = series;
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
        let rich = if *rich { "rich" } else { "plain" };
        format!("{}:{FORMAT}:{account}:{}:{stream}:{rich}:{rest:032x}", self.prefix, self.cut)
    }

    fn cells(&self, spans: &SpanSet) -> impl Iterator<Item = Span> {
        let mut cells = BTreeMap::new();
        for span in spans.spans() {
            let mut at = span.start;
            while at < span.end {
                let cell = self.grid.cell(at);
                cells.insert(cell.start, cell);
                at = cell.end;
            }
        }
        cells.into_values()
    }

    /// The chunks that a cell holds.
    fn read(&self, cell: &str, reply: Reply) -> impl Iterator<Item = Chunk> {
        let Reply::Array(fields) = reply else { return Vec::new().into_iter() };
        let mut chunks = Vec::new();
        let mut fields = fields.into_iter();
        while let (Some(Reply::Bytes(field)), Some(Reply::Bytes(value))) = (fields.next(), fields.next()) {
            match self.decode(cell, &field, value, Placed::Checked) {
                Ok(chunk) => {
                    telemetry::tier_read("hit");
                    chunk.set_shared();
                    chunks.push(chunk);
                }
                Err(Unopened::WrongKey) => telemetry::tier_wrong_key(),
                Err(Unopened::Damaged) => telemetry::tier_read("damaged"),
            }
        }
        chunks.into_iter()
    }

    fn decode(&self, cell: &str, field: &[u8], value: Bytes, placed: Placed) -> Result<Chunk, Unopened> {
        let name = value_name(cell, field);
        let value = self.seal.open(value, &name)?;
        let chunk = match placed {
            Placed::Checked => Chunk::from_bytes(&value, &name),
            Placed::Unchecked => Chunk::from_bytes_uncut(&value, &name),
        };
        let chunk = chunk.ok_or(Unopened::Damaged)?;
        (field_name(chunk.span(), chunk.fetched_at()).as_bytes() == field).then_some(chunk).ok_or(Unopened::Damaged)
    }

    async fn write_all(self: Arc<Self>, mut waiting: mpsc::UnboundedReceiver<Write>) {
        let mut writes = Vec::new();
        while waiting.recv_many(&mut writes, CELLS_AT_ONCE).await > 0 {
            let taken = std::mem::take(&mut writes);
            let weight: usize = taken.iter().map(|write: &Write| write.chunk.weight()).sum();
            let result = self.write(taken).await;
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            telemetry::tier_write(if result.is_ok() { "ok" } else { "failed" });
        }
    }

    /// Writes those chunks of whose account something may be written, and that are not there already.
    async fn write(&self, mut writes: Vec<Write>) -> Result<(), LinkError> {
        writes.retain(|write| !write.chunk.is_shared());
        let accounts: HashSet<Arc<str>> = writes.iter().map(|write| write.account.clone()).collect();
        for account in accounts {
            if !self.is_good(&account).await {
                writes.retain(|write| write.account != account);
            }
        }
        let chunks = writes.iter().map(|write| (write.cell.as_str(), &write.chunk)).collect();
        self.write_into_cells(chunks).await
    }

    /// Writes chunks into their cells, in place of those that they cover.
    async fn write_into_cells(&self, writes: Vec<(&str, &Arc<Chunk>)>) -> Result<(), LinkError> {
        if writes.is_empty() {
            return Ok(());
        }
        let ask = writes.iter().map(|(cell, _)| Command::new("HKEYS").arg((*cell).to_owned())).collect();
        let there = self.link.run(ask).await?;
        let ttl = self.ttl.as_secs().max(1).to_string();
        let (mut commands, mut written) = (Vec::new(), Vec::new());
        for ((cell, chunk), there) in writes.into_iter().zip(there) {
            let Some((field, value)) = self.encode(cell, chunk) else { continue };
            let covered = covered(chunk, there);
            written.push((commands.len(), chunk));
            commands.push(Command::new("HSET").arg(cell.to_owned()).arg(field).arg(value));
            commands.push(Command::new("EXPIRE").arg(cell.to_owned()).arg(ttl.clone()));
            if !covered.is_empty() {
                commands.push(Command::new("HDEL").arg(cell.to_owned()).args(covered));
            }
        }
        let replies = self.link.bulk(commands).await?;
        for (place, chunk) in written {
            if let Some(Reply::Integer(_)) = replies.get(place) {
                chunk.set_shared();
            }
        }
        Ok(())
    }

    /// The field and the value of a chunk, unless it is too large.
    fn encode(&self, cell: &str, chunk: &Chunk) -> Option<(String, Vec<u8>)> {
        let field = field_name(chunk.span(), chunk.fetched_at());
        let name = value_name(cell, field.as_bytes());
        let value = chunk.to_bytes(&name).and_then(|bytes| self.seal.seal(bytes, &name))?;
        (value.len() <= MOST_BYTES).then_some((field, value))
    }
}

/// No sign in it that parts names, or that a pattern could mean.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn cell_name(series: &str, cell: Span) -> String {
    format!("{series}:{}:{}", cell.start.as_seconds(), cell.length().as_secs())
}

/// What a chunk is called in its cell: of which time it is, and when it was fetched.
fn field_name(Span { start, end }: Span, fetched_at: Moment) -> String {
    format!("{}_{}_{}", start.as_nanos(), end.as_nanos(), fetched_at.as_nanos())
}

fn read_field(field: &[u8]) -> Option<(Span, Moment)> {
    let text = std::str::from_utf8(field).ok()?;
    let mut numbers = text.split('_').map(|number| number.parse().ok().map(Moment::from_nanos));
    Some((Span::new(numbers.next()??, numbers.next()??), numbers.next()??))
}

/// The fields whose chunks lie within `chunk` and were fetched before it.
fn covered(chunk: &Chunk, there: Reply) -> Vec<Bytes> {
    let Reply::Array(fields) = there else { return Vec::new() };
    let fields = fields.into_iter().filter_map(|field| match field {
        Reply::Bytes(field) => Some(field),
        _ => None,
    });
    let covered = |field: &Bytes| {
        let Some((span, fetched_at)) = read_field(field) else { return true };
        span.intersection(chunk.span()) == span && fetched_at < chunk.fetched_at()
    };
    fields.filter(covered).collect()
}

/// A value is bound to where it stands.
fn value_name(cell: &str, field: &[u8]) -> Vec<u8> {
    [cell.as_bytes(), b"\0", field].concat()
}
