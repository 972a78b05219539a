//! Purging: what is purged is served from no tier any more, and no fetch that is under way brings it back.
//!
//! [`Tombstones`] holds the rule. Here it is kept for each account and made to hold in memory; with Redis, `shared` keeps all
//! replicas at one, `letters` tells them, and `erase` deletes what nobody reads any more.

mod broadcast;
mod delete;
mod replicate;
mod tombstones;

pub(in crate::cache) use self::tombstones::Tombstones;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::tombstones::Tombstone;
use super::chunk::Chunk;
use super::series::SeriesMap;
use super::store::Memory;
use crate::clock::Clock;
use crate::redis_client::{Command, ConnectionError, Mailbox, Reply};
use crate::request::Series;
use crate::window::Interval;

use self::replicate::PurgeReplicator;

/// What is to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Of which account.
    pub account: Arc<str>,
    /// Of which of its streams; `None` is of all.
    pub stream: Option<Arc<str>>,
    /// Of which time.
    pub interval: Interval,
}

/// What became of a purge. In memory it is done in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Its number: what was fetched with a smaller one is not served any more.
    pub epoch: u64,
    /// Chunks that have left the memory of this replica.
    pub memory_chunks: usize,
    /// What became of it beyond this replica; `None` if there is no Redis. If Redis does not take it, it is tried again
    /// for as long as the process runs.
    pub shared: Option<Result<PurgeDelivery, ConnectionError>>,
}

/// What became of a purge beyond this replica, once it stands in Redis, so that nobody reads there what was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeDelivery {
    /// Other replicas that have said that it has left their memory.
    pub confirmed: usize,
    /// Other replicas that listen, as far as is known; `None` if they could not be told. One that does not, looks in
    /// Redis once a second.
    pub expected: Option<usize>,
    /// What has become of the values in Redis.
    pub erased: DeletionStatus,
}

/// Whether what was purged has been deleted from Redis. Nobody reads it there in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionStatus {
    /// So many chunks.
    All(u64),
    /// So many so far, and it goes on: there are many.
    SoFar(u64),
    /// So many, and then it failed; it is tried again for as long as the process runs.
    Failed(u64, ConnectionError),
}

/// What was purged, for all who keep or serve. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Purges(Arc<Inner>);

struct Inner {
    /// What is known of each account. Held for a look and for bookkeeping; it may be taken while a shelf's lock is held,
    /// never the other way round.
    known: Mutex<HashMap<Arc<str>, Arc<Tombstones>>>,
    shelves: SeriesMap,
    memory: Memory,
    clock: Clock,
    shared: Option<PurgeReplicator>,
}

impl std::fmt::Debug for Purges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purges").finish_non_exhaustive()
    }
}

impl Purges {
    /// No purges yet of what lies on `shelves` and in `memory`. With `redis`, the prefix of all keys and the way to other
    /// replicas, it keeps up with what they purge of `accounts`; that needs a runtime.
    pub(super) fn new(
        shelves: SeriesMap,
        memory: Memory,
        clock: Clock,
        accounts: Vec<Arc<str>>,
        redis: Option<(&str, Mailbox)>,
    ) -> Self {
        let letters = redis.as_ref().map(|(_, post)| post.take_in(crate::redis_client::Topic::Purge));
        let shared = redis.map(|(prefix, post)| PurgeReplicator::new(prefix, post, accounts));
        let purges = Self(Arc::new(Inner { known: Mutex::default(), shelves, memory, clock, shared }));
        if let Some(letters) = letters {
            broadcast::listen(&purges, letters);
        }
        purges
    }

    /// Purges. Ends when it is done everywhere, or it is known where not: with Redis within some seconds.
    ///
    /// Whoever drops this half-way leaves it half done; give it a task of its own.
    pub async fn purge(&self, purge: Purge) -> Purged {
        let Purge { account, stream, interval } = purge;
        let tomb = Tombstone { stream, interval };
        let (epoch, ticket) = {
            let mut known = self.lock();
            let tombs = Arc::make_mut(known.entry(account.clone()).or_default());
            let epoch = tombs.next(self.0.clock.now());
            tombs.add(epoch, tomb.clone());
            // Under one lock with the epoch: whoever raises it, because others have counted further, must not miss it.
            (epoch, self.0.shared.as_ref().map(|shared| shared.open(&account, epoch, tomb)))
        };
        let memory_chunks = self.sweep(&account).await;
        let Some((shared, ticket)) = self.0.shared.as_ref().zip(ticket) else {
            return Purged { epoch, memory_chunks, shared: None };
        };
        let (epoch, told) = self.share(shared, &account, ticket).await;
        Purged { epoch, memory_chunks, shared: Some(told) }
    }

    /// The last purge of an account that is known; a run that begins now is of this epoch.
    pub(super) fn epoch(&self, account: &str) -> u64 {
        self.tombs(account).map_or(0, |tombs| tombs.epoch())
    }

    /// Whether a chunk of a series was purged since its run began.
    pub(super) fn buries(&self, series: &Series, chunk: &Chunk) -> bool {
        self.buries_of(&series.account, &series.stream, chunk.interval(), chunk.epoch())
    }

    /// The same, told by what a chunk is.
    pub(super) fn buries_of(&self, account: &str, stream: &str, interval: Interval, epoch: u64) -> bool {
        self.tombs(account).is_some_and(|tombs| tombs.buries(stream, interval, epoch))
    }

    /// What tells whether there is news of an account's purges, to be asked along with something else.
    pub(super) fn ask(&self, account: &str) -> Option<Command> {
        self.0.shared.as_ref().map(|shared| shared.ask(account))
    }

    /// Takes in the answer to [`Purges::ask`], and learns what is new. `false` if that could not be found out: then
    /// nothing that came from Redis may be used.
    pub(super) async fn heard(&self, account: &str, answer: Option<&Reply>) -> bool {
        match (&self.0.shared, answer) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(shared), Some(answer)) => {
                shared.is_known(account, answer) || self.learn(shared, account, answer).await
            }
        }
    }

    /// Looks whether there is news of an account's purges, and learns what is new. `false` as with [`Purges::heard`].
    pub(super) async fn catch_up(&self, account: &str) -> bool {
        let Some(shared) = &self.0.shared else { return true };
        let answers = shared.link().run(vec![shared.ask(account)]).await;
        self.heard(account, answers.iter().flatten().next()).await
    }

    /// What is known to be purged of an account now, whatever comes to be known later.
    pub(super) fn known(&self, account: &str) -> Arc<Tombstones> {
        self.tombs(account).unwrap_or_default()
    }

    /// Takes what was purged off the shelves of an account and out of memory; how many chunks.
    async fn sweep(&self, account: &Arc<str>) -> usize {
        let (purges, account) = (self.clone(), account.clone());
        let sweep = move || {
            let Some(tombs) = purges.tombs(&account) else { return 0 };
            let Inner { shelves, memory, .. } = &*purges.0;
            let swept = shelves.account_series(&account).into_iter().map(|(stream, shelf)| {
                shelf.lock().apply_purge(|interval, epoch| tombs.buries(&stream, interval, epoch), memory)
            });
            swept.sum()
        };
        // A year of many series is a look at each of its chunks.
        tokio::task::spawn_blocking(sweep).await.unwrap_or_default()
    }

    fn tombs(&self, account: &str) -> Option<Arc<Tombstones>> {
        self.lock().get(account).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Tombstones>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
