//! Letters about purges, and the look for news that no letter told.
//!
//! A letter says `bury`, a number, the epoch, the account and what was purged; who has done so answers `done` and the
//! number.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::replicate::PurgeReplicator;
use super::tombstones::{Tombstone, read_epoch};
use super::{Inner, Purges};
use crate::cache::redis::encoded;
use crate::redis_client::{Incoming, Recipient, ReplicaId, Topic};

/// How long replicas have to say that they have purged.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a replica looks whether it has missed a letter.
const LOOK: Duration = Duration::from_secs(1);

/// Who waits to hear that a purge of ours is done, by its number.
#[derive(Default)]
pub(super) struct Confirmations {
    waiting: Mutex<HashMap<u64, mpsc::UnboundedSender<ReplicaId>>>,
    next: AtomicU64,
}

impl Confirmations {
    fn expect(&self) -> (u64, mpsc::UnboundedReceiver<ReplicaId>) {
        let (number, (sender, heard)) = (self.next.fetch_add(1, Ordering::Relaxed), mpsc::unbounded_channel());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        (number, heard)
    }

    fn forget(&self, number: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    fn take(&self, number: u64, from: ReplicaId) {
        if let Some(waits) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&number) {
            let _ = waits.send(from);
        }
    }
}

impl PurgeReplicator {
    /// Tells all replicas of a purge: how many others have confirmed it in time, and how many others listen, if it is
    /// known.
    pub(super) async fn tell(&self, account: &str, epoch: u64, tomb: &Tombstone) -> (usize, Option<usize>) {
        let (number, mut heard) = self.confirmations.expect();
        let deadline = Instant::now() + PATIENCE;
        let letter = format!("bury {number} {epoch} {} {tomb}", encoded(account));
        let listen = self.post.send_to_all(Topic::Purge, letter.as_bytes()).await.ok();
        let mut confirmed = HashSet::new();
        // This replica hears itself, as long as it listens, and is among those who were counted.
        while listen.is_some_and(|listen| confirmed.len() < listen)
            && let Ok(Some(from)) = timeout_at(deadline, heard.recv()).await
        {
            confirmed.insert(from);
        }
        self.confirmations.forget(number);
        let me = usize::from(confirmed.remove(self.post.me()));
        (confirmed.len(), listen.map(|listen| listen.saturating_sub(me).max(confirmed.len())))
    }
}

/// Takes in letters, and looks for news each second, for as long as there is a cache.
pub(super) fn listen(purges: &Purges, mut letters: mpsc::UnboundedReceiver<Incoming>) {
    let weak = Arc::downgrade(&purges.0);
    tokio::spawn(look(weak.clone()));
    tokio::spawn(async move {
        while let Some(mail) = letters.recv().await {
            let Some(purges) = weak.upgrade().map(Purges) else { return };
            let Some(shared) = &purges.0.shared else { return };
            match mail {
                Incoming::Reconnected => shared.look.notify_one(),
                Incoming::ClusterMessage { from, body } => {
                    purges.take_letter(shared, from, &String::from_utf8_lossy(&body)).await;
                }
            }
        }
    });
}

async fn look(purges: Weak<Inner>) {
    loop {
        let Some(strong) = purges.upgrade().map(Purges) else { return };
        let Some(shared) = &strong.0.shared else { return };
        // What Redis does not answer is asked again soon; who would read there meanwhile asks for itself.
        if let Ok(answers) = shared.ask_all().await {
            for (account, answer) in shared.accounts.iter().zip(&answers) {
                strong.heard(account, Some(answer)).await;
            }
        }
        let _ = timeout(LOOK, shared.look.notified()).await;
    }
}

impl Purges {
    async fn take_letter(&self, shared: &PurgeReplicator, from: ReplicaId, letter: &str) {
        let mut words = letter.splitn(3, ' ');
        let (word, number, rest) = (words.next(), words.next(), words.next());
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return };
        match (word, rest.and_then(read_purge)) {
            (Some("done"), None) => shared.confirmations.take(number, from),
            (Some("bury"), Some(_)) if from == *shared.post.me() => shared.confirmations.take(number, from),
            (Some("bury"), Some((account, epoch, tomb))) => {
                self.bury(&account, epoch, tomb).await;
                let done = format!("done {number}");
                // If this does not come through, nobody takes it for done; more cannot be done about it.
                let _ = shared.post.send(&Recipient::One(from), Topic::Purge, done.as_bytes()).await;
            }
            _ => {}
        }
    }

    /// Takes in a purge of another replica.
    async fn bury(&self, account: &Arc<str>, epoch: u64, tomb: Tombstone) {
        Arc::make_mut(self.lock().entry(account.clone()).or_default()).add(epoch, tomb);
        self.sweep(account).await;
    }
}

fn read_purge(text: &str) -> Option<(Arc<str>, u64, Tombstone)> {
    let mut words = text.splitn(3, ' ');
    let epoch = read_epoch(words.next()?)?;
    let account = percent_decode_str(words.next()?).decode_utf8().ok()?.into();
    Some((account, epoch, Tombstone::read(words.next()?)))
}
