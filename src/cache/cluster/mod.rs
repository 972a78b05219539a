//! How replicas fetch as one: one of them makes all calls of an account, and the others send it what they miss.
//!
//! Each replica finds out for itself what it has and what stands in Redis. Where it follows another one, it sends what is
//! missing then to that one, as *errands*; the one who calls treats an errand as it treats a request of its own, so what
//! is asked for on many replicas becomes the runs that one gateway would have made. What it brings goes through Redis; the
//! letters only tell where it is (`cache/tier/handover.rs`).
//!
//! | file | what |
//! | --- | --- |
//! | `ask.rs` | the side of the one who follows: flights that another replica is to bring |
//! | `carry.rs` | the side of the one who calls: errands that are answered |
//! | `coming.rs` | that something is being gathered on other replicas |
//! | `letter.rs`, `told.rs` | the words |
//!
//! Letters can be lost. So an errand is sent again each second until it has landed, which also says that somebody still
//! waits, and for how long; and one that was brought already is told of again.

mod batch_window;
mod follower;
mod leader;
mod message;
mod wire_error;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use self::batch_window::AnnouncedBatches;
use self::follower::PendingRemoteFetch;
use self::leader::ServedRemoteFetch;
use self::message::{ClusterMessage, RemoteFetch};
use super::fetch::{BatchAnnouncement, ExactWindow, Fetcher, RemoteFetcher};
use super::redis::RedisTier;
use super::series::{InFlightFetch, SharedSeriesState};
use crate::clock::Clock;
use crate::quota::{QuotaManager, Role};
use crate::redis_client::{Incoming, Mailbox, Recipient, ReplicaId, Topic};
use crate::request::Series;

/// How often what is outstanding is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// Errands in one letter.
const ERRANDS: usize = 64;
/// What is answered to a letter that cannot be read.
const UNREADABLE: &[u8] = b"?";
/// Letters that are sent at once.
const LETTERS: usize = 64;

/// The way to the other replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    post: Mailbox,
    tier: RedisTier,
    quotas: QuotaManager,
    clock: Clock,
    /// Letters, in the order in which they are to be sent.
    outbox: mpsc::UnboundedSender<(ReplicaId, Arc<ClusterMessage>)>,
    /// Those whose letters could not be read.
    unreadable: mpsc::UnboundedSender<ReplicaId>,
    /// The name of the next errand or gathering.
    next: AtomicU64,
    /// The errands of this replica that have not landed yet. Held for bookkeeping only, as is the next one.
    asked: Mutex<BTreeMap<u64, PendingRemoteFetch>>,
    /// The errands of others that this replica answers, or has answered a moment ago.
    carried: Mutex<HashMap<(ReplicaId, u64), ServedRemoteFetch>>,
    /// What is being gathered on other replicas.
    coming: AnnouncedBatches,
    /// Told when what is outstanding should be sent again without waiting for the next time.
    say_again: Notify,
}

impl Cluster {
    /// The relay of a new replica. Must be called on a runtime, on which it writes.
    pub(super) fn new(post: &Mailbox, tier: &RedisTier, quotas: &QuotaManager, clock: &Clock) -> Self {
        let (outbox, letters) = mpsc::unbounded_channel();
        tokio::spawn(send_all(post.clone(), tier.clone(), letters));
        let (unreadable, writers) = mpsc::unbounded_channel();
        tokio::spawn(tell_unreadable(post.clone(), writers));
        let (post, tier, quotas, clock) = (post.clone(), tier.clone(), quotas.clone(), clock.clone());
        let (next, asked, carried, coming, say_again) = Default::default();
        Self(Arc::new(Inner { post, tier, quotas, clock, outbox, unreadable, next, asked, carried, coming, say_again }))
    }

    /// Takes in letters from now on, as long as `fetcher` is there to answer them.
    pub(super) fn open(&self, fetcher: &Arc<Fetcher>) {
        tokio::spawn(self.clone().serve(self.0.post.take_in(Topic::RemoteFetch), Arc::downgrade(fetcher)));
    }

    async fn serve(self, mut mails: mpsc::UnboundedReceiver<Incoming>, fetcher: Weak<Fetcher>) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                mail = mails.recv() => {
                    // Without its fetcher nobody asks, and nobody can be answered.
                    let (Some(mail), Some(fetcher)) = (mail, fetcher.upgrade()) else { return };
                    match mail {
                        Incoming::Reconnected => self.ask_all(),
                        Incoming::ClusterMessage { from, body } => self.take(&fetcher, &from, body),
                    }
                }
                () = self.0.say_again.notified() => self.ask_all(),
                _ = again.tick() => {
                    if fetcher.strong_count() == 0 {
                        return;
                    }
                    self.ask_all();
                    self.tidy();
                }
            }
        }
    }

    fn take(&self, fetcher: &Arc<Fetcher>, from: &ReplicaId, body: bytes::Bytes) {
        if *body == *UNREADABLE {
            return self.stand_apart(from);
        }
        match ClusterMessage::read(body, self.0.tier.seal(), from, self.0.post.me()) {
            Some(ClusterMessage::AnnouncedBatches { account, gathering }) => {
                self.0.coming.announced(from, gathering, &account);
            }
            Some(ClusterMessage::Nothing { gathering }) => self.0.coming.arrived(from, gathering),
            Some(ClusterMessage::Errands { cut, errands, closes }) => fetcher.carry(self, from, &cut, errands, closes),
            Some(ClusterMessage::Gone { id }) => drop(self.carried().remove(&(from.clone(), id))),
            Some(ClusterMessage::QueueWait(errands)) => self.waited(&errands),
            Some(ClusterMessage::FetchReply(landed)) => self.landed(landed),
            // It has another key, or none: whoever waits for an answer is told that there will be none.
            None => drop(self.0.unreadable.send(from.clone())),
        }
    }

    /// From now on fetches for itself what it would have to let `caller` bring.
    fn stand_apart(&self, caller: &ReplicaId) {
        for (account, turns) in self.0.quotas.iter() {
            if self.caller_of(account).as_ref() == Some(caller) {
                turns.detach(caller);
            }
        }
    }

    fn send(&self, to: &ReplicaId, letter: impl Into<Arc<ClusterMessage>>) {
        // It is sent as long as there is a relay.
        let _ = self.0.outbox.send((to.clone(), letter.into()));
    }

    fn name(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The one who makes the calls of an account, if that is another one, and who it is is known.
    fn caller_of(&self, account: &str) -> Option<ReplicaId> {
        match self.role(account) {
            Role::Follower(caller) => Some(caller),
            Role::Leader | Role::Unknown => None,
        }
    }

    fn role(&self, account: &str) -> Role {
        // One that is not configured is refused below.
        self.0.quotas.scheduler(account).map_or(Role::Leader, |turns| turns.role().borrow().clone())
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, PendingRemoteFetch>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carried(&self) -> MutexGuard<'_, HashMap<(ReplicaId, u64), ServedRemoteFetch>> {
        self.0.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all errands that have not landed.
    fn ask_all(&self) {
        let mut letters: HashMap<ReplicaId, Vec<RemoteFetch>> = HashMap::new();
        for asked in self.asked().values() {
            if let Some(to) = self.caller_of(asked.account()) {
                letters.entry(to).or_default().push(asked.errand(self.0.clock.now()));
            }
        }
        for (to, errands) in letters {
            self.send_errands(&to, errands, None);
        }
    }

    fn send_errands(&self, to: &ReplicaId, mut errands: Vec<RemoteFetch>, closes: Option<u64>) {
        while !errands.is_empty() {
            let rest = errands.split_off(errands.len().min(ERRANDS));
            let (cut, closes) = (self.0.tier.cut(), closes.filter(|_| rest.is_empty()));
            self.send(to, ClusterMessage::Errands { cut, errands, closes });
            errands = rest;
        }
    }
}

impl RemoteFetcher for Cluster {
    fn is_remote(&self, account: &str) -> bool {
        self.role(account) != Role::Leader
    }

    fn announce_batch(&self, account: &str) -> Option<Box<dyn BatchAnnouncement>> {
        Some(Box::new(self.announce(account)?))
    }

    fn batch_window<'a>(&'a self, account: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.let_gather(account))
    }

    fn fetch_batch(
        &self,
        fetcher: &Arc<Fetcher>,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        announcement: Option<Box<dyn BatchAnnouncement>>,
    ) {
        fetcher.ask_gathered(self, series, shared, announcement);
    }

    fn fetch_exactly(&self, fetcher: &Arc<Fetcher>, window: ExactWindow<'_>) -> Arc<InFlightFetch> {
        fetcher.ask_exactly(self, window)
    }
}

/// Sends letters as they come, until there is no relay any more. Those that Redis does not take are lost.
async fn send_all(
    post: Mailbox,
    tier: RedisTier,
    mut letters: mpsc::UnboundedReceiver<(ReplicaId, Arc<ClusterMessage>)>,
) {
    let mut taken = Vec::new();
    while letters.recv_many(&mut taken, LETTERS).await > 0 {
        let bodies = taken.drain(..).filter_map(|(to, letter)| {
            let body = letter.write(tier.seal(), post.me(), &to)?;
            Some((Recipient::One(to), body))
        });
        let bodies: Vec<_> = bodies.collect();
        join_all(bodies.iter().map(|(to, body)| post.send(to, Topic::RemoteFetch, body))).await;
    }
}

/// Tells those whose letters cannot be read, each once for all that have come by then.
async fn tell_unreadable(post: Mailbox, mut writers: mpsc::UnboundedReceiver<ReplicaId>) {
    while let Some(first) = writers.recv().await {
        let mut told = std::collections::BTreeSet::from([first]);
        while let Ok(more) = writers.try_recv() {
            told.insert(more);
        }
        for writer in told {
            let _ = post.send(&Recipient::One(writer), Topic::RemoteFetch, UNREADABLE).await;
        }
    }
}
