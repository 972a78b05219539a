//! The second tier: chunks in Redis, which all replicas share.
//!
//! Each cell of a series' grid is one hash with a field for each chunk, so what is there is listed without an index
//! that could be wrong, and each cell expires by itself. No value is trusted: one that does not open, cannot be decoded
//! or stands under another name is a miss, and so is one that was purged, which is deleted where it is found.
//!
//! The settings by which time is divided into chunks are a part of each key. Where `window.field` is found wrong, a
//! marker in Redis says so to all replicas, and nothing below it is read or written any more.
//!
//! | file | contents |
//! | --- | --- |
//! | `keys.rs` | the spelling of all keys and fields |
//! | `read.rs` | lists and reads the chunks of a series |
//! | `write.rs` | writes chunks, and deletes those that were purged |
//! | `listing.rs` | the listing of a long window, and how much of it is read at a time |
//! | `handover.rs` | chunks that the leader hands over to a follower |
//! | `markers.rs` | the markers of a wrong `window.field` |
//! | `fuzz.rs` | a part of a fuzz target |

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handover;
pub(in crate::cache) mod keys;
mod listing;
mod markers;
mod read;
mod write;

pub(super) use self::handover::HandoverError;
pub(in crate::cache) use self::listing::{READ_BYTES, RedisListing};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use self::keys::ChunkKeys;
use self::write::ChunkWrite;
use super::queued_bytes::QueuedBytes;
use super::window_field::WindowFields;
use crate::clock::Clock;
use crate::config;
use crate::redis_client::{Command, RedisClient, Reply};
use crate::replicas::{Cipher, FetchSettings, Mailbox};
use crate::request::IdFilter;
use crate::window::Interval;

/// Cells that are read in one call: few enough for their values to arrive within the timeout.
const CELLS_PER_READ: usize = 32;

/// The purges that the tier respects. `cache/purge` implements it, so that the tier does not depend on it.
pub(in crate::cache) trait PurgeCheck: std::fmt::Debug + Send + Sync {
    /// Whether a chunk of this interval, epoch and ids is known to be purged.
    fn is_purged(&self, account: &str, stream: &str, interval: Interval, epoch: u64, ids: &IdFilter) -> bool;

    /// Whether any of these ids is known to be erased from the stream.
    fn is_erased(&self, account: &str, stream: &str, ids: &IdFilter) -> bool;

    /// Learns the purges that were confirmed before this process began: from the journal of the disk tier, and from
    /// Redis. `false` if Redis does not answer.
    ///
    /// # Errors
    /// If the journal cannot be read. Then nothing on disk may be used.
    fn learn_all(&self) -> BoxFuture<'_, io::Result<bool>>;

    /// Deletes the journal of the disk tier, because there is nothing on disk any more. Blocks.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn forget_journal(&self) -> io::Result<()>;

    /// The command that reads the marker of an account's purges, to be run along with others; `None` if purges are not
    /// shared.
    fn marker_command(&self, account: &str) -> Option<Command>;

    /// Learns the purges of an account if `reply` to [`PurgeCheck::marker_command`] has changed. `false` if they could
    /// not be learned: then nothing that came from Redis may be used.
    fn apply_marker<'a>(&'a self, account: &'a str, reply: Option<&'a Reply>) -> BoxFuture<'a, bool>;
}

/// Reads and writes chunks in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RedisTier {
    inner: Arc<Inner>,
    writes: mpsc::UnboundedSender<ChunkWrite>,
}

#[derive(Debug)]
struct Inner {
    redis: RedisClient,
    keys: ChunkKeys,
    ttl: Duration,
    /// Bytes of the largest value: a larger one would delay all others, and is not read.
    max_value: usize,
    cipher: Arc<Cipher>,
    purges: Arc<dyn PurgeCheck>,
    fields: WindowFields,
    clock: Clock,
    queued_bytes: QueuedBytes,
}

impl RedisTier {
    /// The tier behind the Redis of `mailbox`, with its cipher. Must be called on a runtime, on which it writes.
    pub(super) fn new(
        redis: &config::RedisConfig,
        mailbox: &Mailbox,
        series_settings: &config::SeriesSettings,
        purges: Arc<dyn PurgeCheck>,
        fields: &WindowFields,
        queued_bytes: &QueuedBytes,
        clock: &Clock,
    ) -> Self {
        let inner = Arc::new(Inner {
            redis: mailbox.redis().clone(),
            keys: ChunkKeys::new(&redis.prefix, series_settings),
            ttl: redis.ttl,
            max_value: usize::try_from(redis.max_value).unwrap_or(usize::MAX),
            cipher: mailbox.cipher().clone(),
            purges,
            fields: fields.clone(),
            clock: clock.clone(),
            queued_bytes: queued_bytes.clone(),
        });
        let (writes, queued) = mpsc::unbounded_channel();
        tokio::spawn(inner.clone().write_queued(queued));
        Self { inner, writes }
    }

    /// The settings by which chunks of a stream are divided, with the version of messages: only replicas with equal ones
    /// fetch for each other.
    pub(super) fn settings(&self, account: &str, stream: &str) -> FetchSettings {
        FetchSettings::new(&self.inner.keys.settings(account, stream))
    }
}
