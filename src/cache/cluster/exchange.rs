//! The exchange of messages with other replicas: receives them, sends them in their order, and sends unanswered remote
//! fetches again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::announced_batches::AnnouncedBatches;
use super::pending::PendingRemoteFetch;
use super::served::ServedRemoteFetch;
use crate::cache::fetch::{BatchAnnouncement, ExactWindow, Fetcher, RemoteFetcher};
use crate::cache::redis::RedisTier;
use crate::cache::series::{InFlightFetch, SharedSeriesState};
use crate::clock::Clock;
use crate::quota::{QuotaManager, Role};
use crate::replicas::{
    FetchMessage, FetchSettings, Inbox, Incoming, Mailbox, Message, MessageKind, Recipient, RemoteFetch, ReplicaId,
};
use crate::request::Series;
use crate::traces::Tracer;

/// Interval at which unanswered remote fetches are sent again.
const RESEND_INTERVAL: Duration = Duration::from_secs(1);
/// Remote fetches in one message.
const MAX_FETCHES_PER_MESSAGE: usize = 64;
/// Messages that are sent at once.
const MAX_MESSAGES_AT_ONCE: usize = 64;

/// The exchange of fetches with other replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Cluster(pub(super) Arc<ClusterInner>);

#[derive(Debug)]
pub(super) struct ClusterInner {
    pub(super) mailbox: Mailbox,
    pub(super) redis: RedisTier,
    pub(super) quotas: QuotaManager,
    pub(super) clock: Clock,
    pub(super) tracer: Tracer,
    /// Messages in the order in which they are to be sent.
    outbox: mpsc::UnboundedSender<(ReplicaId, Arc<Message>)>,
    /// Senders of messages that could not be read.
    unreadable: mpsc::UnboundedSender<ReplicaId>,
    /// The number of the next remote fetch or batch.
    next_number: AtomicU64,
    /// Unanswered remote fetches of this replica. Locked for bookkeeping only.
    pending: Mutex<BTreeMap<u64, PendingRemoteFetch>>,
    /// Remote fetches of other replicas that are being answered, or were answered lately. Locked for bookkeeping only.
    served: Mutex<BTreeMap<(ReplicaId, u64), ServedRemoteFetch>>,
    pub(super) announced_batches: AnnouncedBatches,
    /// Triggers a resend before its time.
    pub(super) resend_now: Notify,
}

impl Cluster {
    /// Must be called on a runtime, on which messages are sent.
    pub(in crate::cache) fn new(
        mailbox: &Mailbox,
        redis: &RedisTier,
        quotas: &QuotaManager,
        clock: &Clock,
        tracer: &Tracer,
    ) -> Self {
        let (outbox, messages) = mpsc::unbounded_channel();
        tokio::spawn(send_messages(mailbox.clone(), messages));
        let (unreadable, senders) = mpsc::unbounded_channel();
        tokio::spawn(notify_unreadable(mailbox.clone(), senders));
        let (next_number, pending, served, announced_batches, resend_now) = Default::default();
        Self(Arc::new(ClusterInner {
            mailbox: mailbox.clone(),
            redis: redis.clone(),
            quotas: quotas.clone(),
            clock: clock.clone(),
            tracer: tracer.clone(),
            outbox,
            unreadable,
            next_number,
            pending,
            served,
            announced_batches,
            resend_now,
        }))
    }

    /// Receives messages from now on, until `fetcher` is dropped.
    pub(in crate::cache) fn start(&self, fetcher: &Arc<Fetcher>) {
        let inbox = self.0.mailbox.receive(MessageKind::Fetch);
        tokio::spawn(self.clone().run(inbox, Arc::downgrade(fetcher)));
    }

    async fn run(self, mut inbox: Inbox, fetcher: Weak<Fetcher>) {
        let mut resend = tokio::time::interval(RESEND_INTERVAL);
        resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.0.resend_now.notified() => self.resend_pending(),
                _ = resend.tick() => {
                    if fetcher.strong_count() == 0 {
                        return;
                    }
                    self.resend_pending();
                    self.drop_expired();
                }
                incoming = inbox.next() => {
                    let (Some(incoming), Some(fetcher)) = (incoming, fetcher.upgrade()) else { return };
                    match incoming {
                        Incoming::Reconnected => self.resend_pending(),
                        Incoming::Message { from, message: Message::Fetch(message) } => {
                            self.on_message(&fetcher, &from, message);
                        }
                        Incoming::Message { .. } => {}
                        Incoming::Unreadable { from } => self.on_unreadable(from),
                    }
                }
            }
        }
    }

    fn on_message(&self, fetcher: &Arc<Fetcher>, from: &ReplicaId, message: FetchMessage) {
        match message {
            FetchMessage::BatchAnnounced { account, batch } => {
                self.0.announced_batches.announced(from, batch, &account);
            }
            FetchMessage::BatchEmpty { batch } => self.0.announced_batches.arrived(from, batch),
            FetchMessage::Requests { settings, requests, closes } => {
                fetcher.serve_requests(self, from, (&settings, requests, closes));
            }
            FetchMessage::Cancelled { id } => drop(self.served().remove(&(from.clone(), id))),
            FetchMessage::QueueWaits(waits) => self.on_queue_waits(&waits),
            FetchMessage::Reply(reply) => self.on_reply(reply),
            FetchMessage::Unreadable => self.detach(from),
        }
    }

    /// A message has another key or version than this replica. Its sender is told, since it may wait for an answer; and
    /// if the sender is a leader, its answers will not be readable either.
    fn on_unreadable(&self, from: ReplicaId) {
        self.detach(&from);
        let _ = self.0.unreadable.send(from);
    }

    /// Fetches for itself from now on what `leader` would have fetched, for as long as it is the leader.
    pub(super) fn detach(&self, leader: &ReplicaId) {
        for (account, scheduler) in self.0.quotas.all() {
            if self.leader_of(&account).as_ref() == Some(leader) {
                scheduler.detach(leader);
            }
        }
    }

    pub(super) fn send(&self, to: &ReplicaId, message: FetchMessage) {
        self.send_shared(to, Arc::new(Message::Fetch(message)));
    }

    pub(super) fn send_shared(&self, to: &ReplicaId, message: Arc<Message>) {
        // The sending task ends with the last clone of the outbox, so it is there.
        let _ = self.0.outbox.send((to.clone(), message));
    }

    /// A number for a remote fetch or a batch, unique for this replica.
    pub(super) fn next_number(&self) -> u64 {
        self.0.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// The leader of an account, if it is known and is another replica.
    pub(super) fn leader_of(&self, account: &str) -> Option<ReplicaId> {
        match self.role(account) {
            Role::Follower(leader) => Some(leader),
            Role::Leader | Role::Unknown => None,
        }
    }

    pub(super) fn role(&self, account: &str) -> Role {
        // The quota stage refuses accounts that are not configured.
        self.0.quotas.scheduler(account).map_or(Role::Leader, |scheduler| scheduler.role().borrow().clone())
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, PendingRemoteFetch>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn served(&self) -> MutexGuard<'_, BTreeMap<(ReplicaId, u64), ServedRemoteFetch>> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all unanswered remote fetches.
    fn resend_pending(&self) {
        let mut by_leader: BTreeMap<ReplicaId, Vec<RemoteFetch>> = BTreeMap::new();
        for pending in self.pending().values() {
            if let Some(leader) = self.leader_of(pending.account()) {
                by_leader.entry(leader).or_default().push(pending.request(self.0.clock.now()));
            }
        }
        for (leader, requests) in by_leader {
            self.send_requests(&leader, requests, None);
        }
    }

    /// Sends requests to the leader; those of one message have the same settings. `closes` is in the last message.
    pub(super) fn send_requests(&self, to: &ReplicaId, requests: Vec<RemoteFetch>, closes: Option<u64>) {
        let mut by_settings: BTreeMap<FetchSettings, Vec<RemoteFetch>> = BTreeMap::new();
        for request in requests {
            let settings = self.0.redis.settings(request.series.account(), request.series.stream());
            by_settings.entry(settings).or_default().push(request);
        }
        let mut messages = Vec::new();
        for (settings, mut requests) in by_settings {
            while !requests.is_empty() {
                let rest = requests.split_off(requests.len().min(MAX_FETCHES_PER_MESSAGE));
                messages.push((settings.clone(), requests));
                requests = rest;
            }
        }
        let last = messages.len().saturating_sub(1);
        for (place, (settings, requests)) in messages.into_iter().enumerate() {
            let closes = closes.filter(|_| place == last);
            self.send(to, FetchMessage::Requests { settings, requests, closes });
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
        Box::pin(self.wait_batch_window(account))
    }

    fn fetch_batch(
        &self,
        fetcher: &Arc<Fetcher>,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        announcement: Option<Box<dyn BatchAnnouncement>>,
    ) {
        fetcher.start_remote_batch(self, series, shared, announcement);
    }

    fn fetch_exactly(&self, fetcher: &Arc<Fetcher>, window: ExactWindow<'_>) -> Arc<InFlightFetch> {
        fetcher.start_remote_exact(self, window)
    }
}

/// Sends messages in their order, until the cluster is dropped. Those that Redis does not take are lost.
async fn send_messages(mailbox: Mailbox, mut messages: mpsc::UnboundedReceiver<(ReplicaId, Arc<Message>)>) {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, MAX_MESSAGES_AT_ONCE).await > 0 {
        let batch: Vec<_> = batch.drain(..).map(|(to, message)| (Recipient::One(to), message)).collect();
        join_all(batch.iter().map(|(to, message)| mailbox.send(to, message))).await;
    }
}

/// Tells senders that their messages cannot be read, each once for all messages that have come by then.
async fn notify_unreadable(mailbox: Mailbox, mut senders: mpsc::UnboundedReceiver<ReplicaId>) {
    while let Some(first) = senders.recv().await {
        let mut replicas = BTreeSet::from([first]);
        while let Ok(more) = senders.try_recv() {
            replicas.insert(more);
        }
        for replica in replicas {
            let _ = mailbox.send(&Recipient::One(replica), &Message::Fetch(FetchMessage::Unreadable)).await;
        }
    }
}
