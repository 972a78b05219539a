//! Tells the other replicas of a purge, at once, by messages. A purge is broadcast only after Redis has accepted it
//! (`sync_with_redis.rs`), so that the periodic check finds the purges whose messages were lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::purges::{Purges, PurgesInner};
use super::replicator::PurgeReplicator;
use crate::redis_client::ConnectionError;
use crate::replicas::{Inbox, Incoming, Message, PurgeMessage, Recipient, ReplicaId, Tombstone};

/// How long other replicas have to confirm a purge.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval at which a replica reads the markers of all accounts.
const MARKER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl PurgeReplicator {
    /// Broadcasts a purge. Returns how many other replicas have confirmed it in time, and how many other replicas
    /// receive messages, if known.
    pub(super) async fn broadcast(
        &self,
        account: &Arc<str>,
        epoch: u64,
        tombstone: &Tombstone,
    ) -> (usize, Option<usize>) {
        let (number, mut replies) = self.confirmations.register();
        let deadline = Instant::now() + CONFIRMATION_TIMEOUT;
        let (account, tombstone) = (account.clone(), tombstone.clone());
        let message = Message::Purge(PurgeMessage::Apply { number, epoch, account, tombstone });
        let receivers = self.mailbox.broadcast(&message).await.ok();
        let mut confirmed = BTreeSet::new();
        // This replica receives its own message while it is listening, and is counted as a receiver.
        while receivers.is_some_and(|receivers| confirmed.len() < receivers)
            && let Ok(Some(from)) = timeout_at(deadline, replies.recv()).await
        {
            confirmed.insert(from);
        }
        self.confirmations.remove(number);
        let own = usize::from(confirmed.remove(self.mailbox.me()));
        (confirmed.len(), receivers.map(|receivers| receivers.saturating_sub(own).max(confirmed.len())))
    }

    async fn confirm(&self, to: ReplicaId, number: u64) -> Result<(), ConnectionError> {
        self.mailbox.send(&Recipient::One(to), &Message::Purge(PurgeMessage::Applied { number })).await
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
            PurgeMessage::Applied { number } => replicator.confirmations.confirm(number, from),
            PurgeMessage::Apply { number, .. } if from == *replicator.mailbox.me() => {
                replicator.confirmations.confirm(number, from);
            }
            PurgeMessage::Apply { number, epoch, account, tombstone } => {
                Arc::make_mut(self.lock().entry(account.clone()).or_default()).add(epoch, tombstone);
                if !self.sweep(&account).await.is_complete() {
                    return;
                }
                // A lost confirmation makes the purge count as not confirmed, which is safe.
                let _ = replicator.confirm(from, number).await;
            }
        }
    }
}

async fn check_markers(purges: Weak<PurgesInner>) {
    loop {
        let Some(strong) = purges.upgrade().map(Purges) else { return };
        let Some(replicator) = &strong.0.replicator else { return };
        // After a failure the next check comes soon, and each read from Redis includes the marker of its account.
        if let Ok(markers) = replicator.read_markers().await {
            for (account, marker) in replicator.accounts.iter().zip(&markers) {
                strong.apply_marker_reply(account, Some(marker)).await;
            }
        }
        let _ = timeout(MARKER_CHECK_INTERVAL, replicator.check_now.notified()).await;
    }
}
