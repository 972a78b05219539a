//! Where this replica remembers purges: the tombstones of each account that it knows of ([`PurgesInner::known`]), and
//! the sweep of memory and disk by them. `journal.rs` remembers them across restarts where there is a disk tier, and
//! `replicator.rs` is what Redis remembers.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::journal::PurgeJournal;
use super::removed_chunks::RemovedChunks;
use super::replicator::PurgeReplicator;
use super::tombstones::Tombstones;
use super::types::{Purge, PurgeResult};
use crate::blocking::spawn_work;
use crate::cache::chunk::Chunk;
use crate::cache::redis::PurgeCheck;
use crate::cache::series::SeriesMap;
use crate::cache::store::Memory;
use crate::clock::Clock;
use crate::redis_client::{Command, Reply};
use crate::replicas::{Mailbox, MessageKind, Tombstone};
use crate::request::{IdFilter, Series};
use crate::sync::{Mutex, MutexGuard};
use crate::window::Interval;

/// The purges that this replica knows of, for everything that stores or serves chunks. Clones share them.
#[derive(Clone)]
pub struct Purges(pub(super) Arc<PurgesInner>);

pub(super) struct PurgesInner {
    /// The tombstones of each account that are known. Locked for bookkeeping only; it may be locked while a series is,
    /// never the other way round.
    known: Mutex<HashMap<Arc<str>, Arc<Tombstones>>>,
    series_map: SeriesMap,
    memory: Memory,
    pub(super) removed: RemovedChunks,
    pub(super) clock: Clock,
    /// `None` without a disk tier.
    journal: Option<PurgeJournal>,
    /// Held while the journal is written, so that it never gets older.
    journal_lock: Mutex<()>,
    /// Starts a sweep of the disk in the background.
    pub(super) disk_sweeps: OnceLock<mpsc::Sender<()>>,
    /// `None` without Redis.
    pub(super) replicator: Option<PurgeReplicator>,
}

impl std::fmt::Debug for Purges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purges").finish_non_exhaustive()
    }
}

impl Purges {
    /// No purges yet of what `series_map` and `memory` hold. With a `journal`, they outlive the process. With `redis`, the
    /// prefix of all keys and the mailbox, they follow the purges of other replicas for `accounts`; that needs a runtime.
    pub(in crate::cache) fn new(
        series_map: SeriesMap,
        memory: Memory,
        clock: Clock,
        accounts: Vec<Arc<str>>,
        journal: Option<PurgeJournal>,
        redis: Option<(&str, Mailbox)>,
    ) -> Self {
        let inbox = redis.as_ref().map(|(_, mailbox)| mailbox.receive(MessageKind::Purge));
        let replicator = redis.map(|(prefix, mailbox)| PurgeReplicator::new(prefix, mailbox, accounts));
        let (known, removed, journal_lock, disk_sweeps) = Default::default();
        let inner =
            PurgesInner { known, series_map, memory, removed, clock, journal, journal_lock, disk_sweeps, replicator };
        let purges = Self(Arc::new(inner));
        if let Some(inbox) = inbox {
            purges.listen(inbox);
        }
        purges
    }

    /// Follows the purges of other replicas for these accounts from now on.
    pub(in crate::cache) fn set_accounts(&self, accounts: Vec<Arc<str>>) {
        if let Some(replicator) = &self.0.replicator {
            replicator.accounts.replace(accounts);
            replicator.check_now.notify_one();
        }
    }

    /// Purges data. Ends when it is purged everywhere, or it is known where not; with Redis, within some seconds.
    ///
    /// Not cancel-safe: run it in a task of its own.
    pub async fn purge(&self, purge: Purge) -> PurgeResult {
        let Purge { account, stream, interval, ids } = purge;
        let tombstone = Tombstone { stream, interval, ids };
        let (epoch, ticket) = {
            let mut known = self.lock();
            let tombstones = Arc::make_mut(known.entry(account.clone()).or_default());
            let epoch = tombstones.next_epoch(self.0.clock.now());
            tombstones.add(epoch, tombstone.clone());
            // The ticket is registered under the same lock, so that it is seen when epochs are raised beyond those of
            // other replicas.
            let replicator = self.0.replicator.as_ref();
            (epoch, replicator.map(|replicator| replicator.register(&account, epoch, tombstone)))
        };
        let Swept { memory_chunks, disk } = self.sweep(&account).await;
        let Some((replicator, ticket)) = self.0.replicator.as_ref().zip(ticket) else {
            return PurgeResult { epoch, memory_chunks, disk, delivery: None };
        };
        let (epoch, delivery) = self.replicate(replicator, &account, ticket).await;
        PurgeResult { epoch, memory_chunks, disk, delivery: Some(delivery) }
    }

    /// The last known purge of an account, which is the epoch of a run that begins now.
    pub(in crate::cache) fn epoch(&self, account: &str) -> u64 {
        self.get(account).map_or(0, |tombstones| tombstones.epoch())
    }

    /// Whether a chunk of a series was purged since its run began.
    pub(in crate::cache) fn is_purged(&self, series: &Series, chunk: &Chunk) -> bool {
        PurgeCheck::is_purged(self, &series.account, &series.stream, chunk.interval(), chunk.epoch(), chunk.ids())
    }

    /// Learns the purges of an account that other replicas have written to Redis. `false` if they could not be learned.
    pub(in crate::cache) async fn refresh(&self, account: &str) -> bool {
        let Some(replicator) = &self.0.replicator else { return true };
        let replies = replicator.redis().run(vec![replicator.marker_command(account)]).await;
        self.apply_marker_reply(account, replies.iter().flatten().next()).await
    }

    /// The purges of an account that are known now, which do not change afterwards.
    pub(in crate::cache) fn snapshot(&self, account: &str) -> Arc<Tombstones> {
        self.get(account).unwrap_or_default()
    }

    /// See [`PurgeCheck::apply_marker`].
    pub(super) async fn apply_marker_reply(&self, account: &str, reply: Option<&Reply>) -> bool {
        match (&self.0.replicator, reply) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(replicator), Some(reply)) => {
                replicator.is_current(account, reply) || self.learn(replicator, account, reply).await
            }
        }
    }

    /// Remembers the purges of all accounts, and removes purged chunks of one from memory and from disk. If the disk fails,
    /// that is tried again in the background.
    pub(super) async fn sweep(&self, account: &Arc<str>) -> Swept {
        let memory_chunks = self.sweep_memory(account).await;
        let disk = self.sweep_disk().await.map(|result| result.map_err(|error| error.to_string()));
        if let Some(Err(_)) = disk {
            self.start_disk_sweep();
        }
        Swept { memory_chunks, disk }
    }

    /// Remembers the purges of all accounts, and overwrites what is purged on disk; `None` without a disk tier.
    pub(super) async fn sweep_disk(&self) -> Option<io::Result<u64>> {
        let (journal, purges) = (self.0.journal.as_ref()?, self.clone());
        let saved = spawn_work(move || purges.save_journal()).await;
        // On a full disk the journal cannot be written, but chunks can be overwritten.
        let erased = journal.disk().erase_purged(Arc::new(self.clone()), self.0.series_map.clone()).await;
        Some(saved.unwrap_or_else(|_| Err(io::Error::other("the task was lost"))).and(erased))
    }

    fn save_journal(&self) -> io::Result<()> {
        let Some(journal) = &self.0.journal else { return Ok(()) };
        let _guard = self.0.journal_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.lock().clone();
        journal.save(&all)
    }

    /// Learns what the journal remembers.
    ///
    /// # Errors
    /// If it cannot be read. Then nothing on disk may be used.
    fn load_journal(&self) -> io::Result<()> {
        let Some(journal) = &self.0.journal else { return Ok(()) };
        for (account, tombstones) in journal.load()? {
            Arc::make_mut(self.lock().entry(account).or_default()).merge(&tombstones);
        }
        Ok(())
    }

    pub(super) async fn sweep_memory(&self, account: &Arc<str>) -> usize {
        let (purges, account) = (self.clone(), account.clone());
        let sweep = move || {
            let Some(tombstones) = purges.get(&account) else { return 0 };
            let PurgesInner { series_map, memory, .. } = &*purges.0;
            let removed = series_map.account_series(&account).into_iter().flat_map(|(stream, series_state)| {
                let purged_by = |interval, epoch, ids: &_| tombstones.purged_by(&stream, interval, epoch, ids);
                series_state.lock().apply_purge(purged_by, memory)
            });
            purges.0.removed.add(&account, removed)
        };
        // All chunks of the account are visited, which takes long for a year of many series.
        spawn_work(sweep).await.unwrap_or_default()
    }

    fn get(&self, account: &str) -> Option<Arc<Tombstones>> {
        self.lock().get(account).cloned()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Tombstones>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a sweep.
#[derive(Debug)]
pub(super) struct Swept {
    pub(super) memory_chunks: usize,
    /// See [`PurgeResult::disk`].
    pub(super) disk: Option<Result<u64, String>>,
}

impl Swept {
    /// Whether the purges are in effect on this replica, and stay so after a restart.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.disk, Some(Err(_)))
    }
}

impl PurgeCheck for Purges {
    fn is_purged(&self, account: &str, stream: &str, interval: Interval, epoch: u64, ids: &IdFilter) -> bool {
        self.get(account).is_some_and(|tombstones| tombstones.is_purged(stream, interval, epoch, ids))
    }

    fn is_erased(&self, account: &str, stream: &str, ids: &IdFilter) -> bool {
        self.get(account).is_some_and(|tombstones| tombstones.is_erased(stream, ids))
    }

    fn learn_all(&self) -> BoxFuture<'_, io::Result<bool>> {
        Box::pin(async {
            let purges = self.clone();
            let loaded = spawn_work(move || purges.load_journal()).await;
            loaded.unwrap_or_else(|_| Err(io::Error::other("the task was lost")))?;
            let Some(replicator) = &self.0.replicator else { return Ok(true) };
            for account in replicator.accounts.load().iter() {
                if !self.refresh(account).await {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn forget_journal(&self) -> io::Result<()> {
        self.0.journal.as_ref().map_or(Ok(()), PurgeJournal::forget)
    }

    fn marker_command(&self, account: &str) -> Option<Command> {
        self.0.replicator.as_ref().map(|replicator| replicator.marker_command(account))
    }

    fn apply_marker<'a>(&'a self, account: &'a str, reply: Option<&'a Reply>) -> BoxFuture<'a, bool> {
        Box::pin(self.apply_marker_reply(account, reply))
    }
}
