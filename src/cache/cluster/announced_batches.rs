//! The batches that other replicas have announced to this one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::replicas::ReplicaId;

/// How long an announced batch is waited for: its sender may have died.
const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_millis(250);

/// The batches that other replicas have announced and not sent yet.
#[derive(Debug, Default)]
pub(super) struct AnnouncedBatches(watch::Sender<BTreeMap<(ReplicaId, u64), AnnouncedBatch>>);

#[derive(Debug)]
struct AnnouncedBatch {
    account: String,
    announced_at: Instant,
}

impl AnnouncedBatches {
    pub(super) fn announced(&self, from: &ReplicaId, batch: u64, account: &str) {
        let announced = AnnouncedBatch { account: account.to_owned(), announced_at: Instant::now() };
        self.0.send_modify(|all| drop(all.insert((from.clone(), batch), announced)));
    }

    pub(super) fn arrived(&self, from: &ReplicaId, batch: u64) {
        self.0.send_if_modified(|all| all.remove(&(from.clone(), batch)).is_some());
    }

    /// Drops the announcements that are not waited for any more.
    pub(super) fn drop_expired(&self) {
        self.0.send_modify(|all| all.retain(|_, batch| batch.announced_at.elapsed() < ANNOUNCEMENT_TIMEOUT));
    }

    /// Waits for the batches of an account that are announced by now. Batches that are announced meanwhile are left to
    /// the next batch window, because on busy replicas there is always one.
    pub(super) async fn wait(&self, account: &str) {
        let awaited: Vec<_> = {
            let all = self.0.borrow();
            let of_account = all.iter().filter(|(_, batch)| batch.account == account);
            of_account.map(|(key, batch)| (key.clone(), batch.announced_at + ANNOUNCEMENT_TIMEOUT)).collect()
        };
        let Some(deadline) = awaited.iter().map(|(_, deadline)| *deadline).max() else { return };
        let mut all = self.0.subscribe();
        let arrived = all.wait_for(|all| awaited.iter().all(|(key, _)| !all.contains_key(key)));
        drop(timeout_at(deadline, arrived).await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn replica() -> ReplicaId {
        ReplicaId::parse(b"0123456789abcdef").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn announced_batches_are_waited_for_until_they_arrive() {
        let (batches, started) = (AnnouncedBatches::default(), Instant::now());
        batches.announced(&replica(), 1, "a");
        batches.announced(&replica(), 2, "a");
        batches.announced(&replica(), 3, "b");
        let arrive = async {
            for batch in [1, 2] {
                sleep(Duration::from_millis(50)).await;
                batches.arrived(&replica(), batch);
                // Left to the next batch window.
                batches.announced(&replica(), 10 + batch, "a");
            }
        };
        tokio::join!(batches.wait("a"), arrive);
        assert_eq!(started.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn batch_that_never_arrives_is_waited_for_until_its_timeout() {
        let (batches, started) = (AnnouncedBatches::default(), Instant::now());
        batches.announced(&replica(), 1, "a");
        sleep(Duration::from_millis(100)).await;
        batches.wait("a").await;
        assert_eq!(started.elapsed().as_millis(), 250, "since it was announced");
        batches.wait("a").await;
        assert_eq!(started.elapsed().as_millis(), 250);
        batches.drop_expired();
        assert!(batches.0.borrow().is_empty());
    }
}
