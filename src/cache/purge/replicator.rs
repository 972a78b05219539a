//! Where purges are remembered for all replicas, across restarts: in Redis, a hash of tombstones for each account, and
//! a marker that changes with it.
//!
//! No marker is ever used twice. A replica that reads the marker that it read last knows everything in the hash, even
//! if Redis was emptied meanwhile. A replica that knows more than the hash writes it there again, so that Redis knows
//! as much as the best informed replica. Plain commands are used, since scripts may be forbidden.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::confirmations::Confirmations;
use super::tombstones::Tombstones;
use crate::cache::redis::keys;
use crate::live::Live;
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply};
use crate::replicas::{Mailbox, Tombstone, parse_epoch};

/// The field with the epoch before which purges are forgotten.
const FLOOR_FIELD: &[u8] = b"floor";

/// Keeps the purges of this replica and those in Redis the same.
pub(super) struct PurgeReplicator {
    pub(super) mailbox: Mailbox,
    /// `cache.redis.prefix`.
    pub(super) prefix: String,
    /// The accounts whose markers are checked.
    pub(super) accounts: Live<Vec<Arc<str>>>,
    pub(super) confirmations: Confirmations,
    /// Triggers a check of the markers.
    pub(super) check_now: Notify,
    /// Locked for bookkeeping only.
    accounts_state: Mutex<HashMap<Arc<str>, AccountState>>,
    /// Makes each marker of this replica unique.
    next_marker: AtomicU64,
}

#[derive(Default)]
pub(super) struct AccountState {
    /// The marker under which everything in Redis is known; empty if there was none, `None` before the first read.
    pub(super) known_marker: Option<Bytes>,
    /// Purges of this replica that are not in Redis yet.
    pub(super) unwritten: Vec<PurgeTicket>,
    /// Held while Redis is read and written, so that this replica does one exchange at a time.
    pub(super) exchange_lock: Arc<tokio::sync::Mutex<()>>,
}

/// A purge of this replica on its way to Redis. Clones are the same.
#[derive(Clone)]
pub(super) struct PurgeTicket(pub(super) Arc<(Tombstone, Mutex<TicketProgress>)>);

pub(super) struct TicketProgress {
    /// Raised if other replicas have used greater epochs by the time that the purge is written.
    pub(super) epoch: u64,
    pub(super) is_written: bool,
    /// A later purge that is on its way too covers this one.
    pub(super) is_superseded: bool,
}

impl PurgeTicket {
    pub(super) fn tombstone(&self) -> &Tombstone {
        &self.0.0
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, TicketProgress> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The purges of an account in Redis.
pub(super) struct StoredPurges {
    pub(super) marker: Bytes,
    pub(super) tombstones: Tombstones,
}

impl StoredPurges {
    /// Decodes the reply to [`PurgeReplicator::marker_command`], and the fields and values of the hash.
    ///
    /// # Errors
    /// If a reply is of another kind.
    pub(super) fn decode(marker: &Reply, fields: &[Reply]) -> Result<Self, ConnectionError> {
        let marker = parse_marker(marker)?;
        let mut tombstones = Tombstones::default();
        for pair in fields.chunks(2) {
            let [Reply::Bytes(field), Reply::Bytes(value)] = pair else { return Err(ConnectionError::Nonsense) };
            let [field, value] = [field, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            match (field.as_bytes() == FLOOR_FIELD, parse_epoch(&field)) {
                (true, _) => tombstones.raise_floor(parse_epoch(&value).unwrap_or_default()),
                (false, Some(epoch)) => tombstones.add(epoch, Tombstone::parse(&value)),
                (false, None) => {}
            }
        }
        // The last purge is always in the hash. If it is not, the hash was evicted, and anything may have been purged.
        let last = String::from_utf8_lossy(&marker).split('-').next().and_then(parse_epoch).unwrap_or_default();
        if tombstones.epoch() < last {
            tombstones.add(last, Tombstone::EVERYTHING);
        }
        Ok(Self { marker, tombstones })
    }
}

impl PurgeReplicator {
    pub(super) fn new(prefix: &str, mailbox: Mailbox, accounts: Vec<Arc<str>>) -> Self {
        let (prefix, confirmations) = (prefix.to_owned(), Confirmations::default());
        let (accounts_state, next_marker) = (Mutex::default(), AtomicU64::default());
        let accounts = Live::new(accounts);
        Self { mailbox, prefix, accounts, confirmations, check_now: Notify::new(), accounts_state, next_marker }
    }

    pub(super) fn redis(&self) -> &RedisClient {
        self.mailbox.redis()
    }

    /// Registers a purge to be written, in place of unwritten ones that it covers, so that repeated purges while Redis
    /// is away do not accumulate.
    pub(super) fn register(&self, account: &Arc<str>, epoch: u64, tombstone: Tombstone) -> PurgeTicket {
        let progress = TicketProgress { epoch, is_written: false, is_superseded: false };
        let ticket = PurgeTicket(Arc::new((tombstone, Mutex::new(progress))));
        self.with_state(account, |state| {
            let covered = state.unwritten.extract_if(.., |known| ticket.tombstone().covers(known.tombstone()));
            covered.for_each(|known| known.progress().is_superseded = true);
            state.unwritten.push(ticket.clone());
        });
        ticket
    }

    /// The command that reads the marker of an account.
    pub(super) fn marker_command(&self, account: &str) -> Command {
        Command::new("GET").arg(keys::purge_marker(&self.prefix, account))
    }

    /// Reads the markers of these accounts, in their order. In a Cluster each is read by itself, since they lie on
    /// several nodes.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(super) async fn read_markers(&self, accounts: &[Arc<str>]) -> Result<Vec<Reply>, ConnectionError> {
        if self.redis().is_cluster() {
            return self.redis().run(accounts.iter().map(|account| self.marker_command(account)).collect()).await;
        }
        let names = accounts.iter().map(|account| keys::purge_marker(&self.prefix, account));
        match self.redis().run(vec![Command::new("MGET").args(names)]).await?.pop() {
            Some(Reply::Array(markers)) => Ok(markers),
            other => Err(other.map_or(ConnectionError::Nonsense, |reply| reply.fault())),
        }
    }

    /// Whether the marker has not changed since the tombstones were read, by the reply to
    /// [`PurgeReplicator::marker_command`].
    pub(super) fn is_current(&self, account: &str, reply: &Reply) -> bool {
        let is_known = |marker| self.with_state(account, |state| state.known_marker.as_ref() == Some(&marker));
        parse_marker(reply).is_ok_and(is_known)
    }

    pub(super) fn with_state<T>(&self, account: &str, access: impl FnOnce(&mut AccountState) -> T) -> T {
        let mut states = self.accounts_state.lock().unwrap_or_else(PoisonError::into_inner);
        match states.get_mut(account) {
            Some(state) => access(state),
            None => access(states.entry(account.into()).or_default()),
        }
    }

    pub(super) async fn read(&self, account: &str) -> Result<StoredPurges, ConnectionError> {
        let all = Command::new("HGETALL").arg(keys::tombstones(&self.prefix, account));
        let replies = self.redis().run(vec![self.marker_command(account), all]).await?;
        let [marker, Reply::Array(fields)] = replies.as_slice() else {
            return Err(replies.get(1).map_or(ConnectionError::Nonsense, Reply::fault));
        };
        StoredPurges::decode(marker, fields)
    }

    /// Writes the tombstones that are known here and not in Redis. `false` if another replica wrote meanwhile, so that
    /// they must be read again.
    pub(super) async fn write(
        &self,
        account: &str,
        known: &Tombstones,
        stored: &Tombstones,
    ) -> Result<bool, ConnectionError> {
        let hash = keys::tombstones(&self.prefix, account);
        let mut commands = Vec::new();
        for (epoch, tombstone) in known.iter().filter(|(epoch, tombstone)| stored.get(*epoch) != Some(tombstone)) {
            // A stored tombstone of the same epoch is known too, and is merged into this one.
            let name = if stored.get(epoch).is_some() { "HSET" } else { "HSETNX" };
            let field = Command::new(name).arg(hash.clone()).arg(epoch.to_string());
            commands.push((name == "HSETNX", field.arg(tombstone.to_string())));
        }
        if known.floor() > stored.floor() {
            let floor = Command::new("HSET").arg(hash.clone()).arg(FLOOR_FIELD).arg(known.floor().to_string());
            commands.push((false, floor));
        }
        let removed: Vec<_> = stored.iter().filter(|(epoch, _)| known.get(*epoch).is_none()).collect();
        if !removed.is_empty() {
            let fields = removed.iter().map(|(epoch, _)| epoch.to_string());
            commands.push((false, Command::new("HDEL").arg(hash).args(fields)));
        }
        let (must_be_new, commands): (Vec<bool>, Vec<Command>) = commands.into_iter().unzip();
        let replies = self.redis().run(commands).await?;
        let mut is_written = true;
        for (reply, must_be_new) in replies.iter().zip(must_be_new) {
            let Reply::Integer(created) = reply else { return Err(reply.fault()) };
            is_written &= !must_be_new || *created == 1;
        }
        Ok(is_written)
    }

    /// Writes a new marker. This happens after the tombstones are written: a replica that saw the marker first would
    /// read the tombstones too early, and never again.
    pub(super) async fn write_marker(&self, account: &str, epoch: u64) -> Result<Bytes, ConnectionError> {
        let number = self.next_marker.fetch_add(1, Ordering::Relaxed);
        let marker = Bytes::from(format!("{epoch}-{}-{number}", self.mailbox.me()));
        let set = Command::new("SET").arg(keys::purge_marker(&self.prefix, account)).arg(marker.clone());
        match self.redis().run(vec![set]).await?.first() {
            Some(Reply::Status(_)) => Ok(marker),
            other => Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        }
    }
}

/// The marker in a reply; empty if there is none.
fn parse_marker(reply: &Reply) -> Result<Bytes, ConnectionError> {
    match reply {
        Reply::Nil => Ok(Bytes::new()),
        Reply::Bytes(marker) => Ok(marker.clone()),
        other => Err(other.fault()),
    }
}
