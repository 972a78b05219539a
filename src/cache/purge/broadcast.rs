//! Tells the other replicas of a purge, at once, by messages. A purge is broadcast only after Redis has accepted it
//! (`sync_with_redis.rs`), so that the periodic check finds the purges whose messages were lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::confirmations::Confirmation;
use super::purges::{Purges, PurgesInner};
use super::replicator::PurgeReplicator;
use crate::redis_client::ConnectionError;
use crate::replicas::{Inbox, Incoming, Message, PurgeMessage, Recipient, ReplicaId, Tombstone};

/// How long other replicas have to confirm a purge.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval at which a replica reads the markers of all accounts.
const MARKER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The confirmations of a purge by other replicas.
pub(super) struct Confirmed {
    pub(super) replicas: usize,
    /// The number of other replicas that receive messages, if known.
    pub(super) expected: Option<usize>,
    /// Chunks that those that have confirmed have removed from their memory, as far as they say.
    pub(super) chunks: u64,
}

impl PurgeReplicator {
    /// Broadcasts a purge, and collects the confirmations of other replicas that come in time.
    pub(super) async fn broadcast(&self, account: &Arc<str>, epoch: u64, tombstone: &Tombstone) -> Confirmed {
        let (number, mut replies) = self.confirmations.register();
        let deadline = Instant::now() + CONFIRMATION_TIMEOUT;
        let (account, tombstone) = (account.clone(), tombstone.clone());
        let message = Message::Purge(PurgeMessage::Apply { number, epoch, account, tombstone });
        let receivers = self.mailbox.broadcast(&message).await.ok();
        let (mut confirmed, mut chunks) = (BTreeSet::new(), 0);
        // This replica receives its own message while it is listening, and is counted as a receiver.
        while receivers.is_some_and(|receivers| confirmed.len() < receivers)
            && let Ok(Some(Confirmation { from, chunks: removed })) = timeout_at(deadline, replies.recv()).await
        {
            if confirmed.insert(from) {
                chunks += removed;
            }
        }
        self.confirmations.remove(number);
        let own = usize::from(confirmed.remove(self.mailbox.me()));
        let expected = receivers.map(|receivers| receivers.saturating_sub(own).max(confirmed.len()));
        Confirmed { replicas: confirmed.len(), expected, chunks }
    }

    async fn confirm(&self, to: ReplicaId, number: u64, chunks: Option<u64>) -> Result<(), ConnectionError> {
        self.mailbox.send(&Recipient::One(to), &Message::Purge(PurgeMessage::Applied { number, chunks })).await
    }
}

impl Purges {
    /// Applies purges of other replicas and checks the markers each second, until the cache is dropped.
    pub(super) fn listen(&self, mut inbox: Inbox) {
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(check_markers(weak.clone()));
        tokio::spawn(async move {
            while let Some(incoming) = inbox.next().await {
                let Some(purges) = weak.upgrade().map(Purges) else { return };
                let Some(replicator) = &purges.0.replicator else { return };
                match incoming {
                    Incoming::Reconnected => replicator.check_now.notify_one(),
                    Incoming::Message { from, message: Message::Purge(message) } => {
                        purges.on_message(replicator, from, message).await;
                    }
                    Incoming::Message { .. } | Incoming::Unreadable { .. } => {}
                }
            }
        });
    }

    async fn on_message(&self, replicator: &PurgeReplicator, from: ReplicaId, message: PurgeMessage) {
        match message {
            PurgeMessage::Applied { number, chunks } => {
                let chunks = chunks.unwrap_or_default();
                replicator.confirmations.confirm(number, Confirmation { from, chunks });
            }
            PurgeMessage::Apply { number, .. } if from == *replicator.mailbox.me() => {
                // Its chunks are counted by the sweep that precedes the message.
                replicator.confirmations.confirm(number, Confirmation { from, chunks: 0 });
            }
            PurgeMessage::Apply { number, epoch, account, tombstone } => {
                let is_counted = tombstone.ids.is_some();
                Arc::make_mut(self.lock().entry(account.clone()).or_default()).add(epoch, tombstone);
                if !self.sweep(&account).await.is_complete() {
                    return;
                }
                let chunks = self.0.removed.count(&account, epoch);
                // A lost confirmation makes the purge count as not confirmed, which is safe.
                let _ = replicator.confirm(from, number, is_counted.then_some(chunks)).await;
            }
        }
    }
}

async fn check_markers(purges: Weak<PurgesInner>) {
    loop {
        let Some(strong) = purges.upgrade().map(Purges) else { return };
        let Some(replicator) = &strong.0.replicator else { return };
        // After a failure the next check comes soon, and each read from Redis includes the marker of its account.
        let accounts = replicator.accounts.load();
        if let Ok(markers) = replicator.read_markers(&accounts).await {
            for (account, marker) in accounts.iter().zip(&markers) {
                strong.apply_marker_reply(account, Some(marker)).await;
            }
        }
        let _ = timeout(MARKER_CHECK_INTERVAL, replicator.check_now.notified()).await;
    }
}
