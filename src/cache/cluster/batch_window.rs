//! The batch window of the leader: it waits for the batches that other replicas have announced, so that windows that
//! are requested at the same time on any replica are fetched in as few runs as possible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::Cluster;
use crate::cache::fetch::{self, BATCH_WINDOW};
use crate::cache::series::BatchGuard;
use crate::quota::Role;
use crate::replicas::{FetchMessage, ReplicaId};

/// The batch window of the leader: other replicas collect too, look into Redis, and send.
const LEADER_BATCH_WINDOW: Duration = Duration::from_millis(40);
/// How long a new leader waits until all replicas know of it: a replica without a leader looks four times a second.
const ELECTION_SETTLE_TIME: Duration = Duration::from_millis(400);
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

/// A batch of this replica that was announced to the leader. Dropped before it is closed, it tells the leader that
/// there is nothing to fetch.
#[derive(Debug)]
pub(super) struct BatchAnnouncement {
    cluster: Cluster,
    leader: ReplicaId,
    batch: Option<u64>,
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
    async fn wait(&self, account: &str) {
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

impl fetch::BatchAnnouncement for BatchAnnouncement {
    fn close(&mut self, leader: &ReplicaId) -> Option<u64> {
        if *leader == self.leader { self.batch.take() } else { None }
    }
}

impl Drop for BatchAnnouncement {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.cluster.send(&self.leader, FetchMessage::BatchEmpty { batch });
        }
    }
}

impl Cluster {
    /// Guards a batch of another replica while its windows are added to a batch of this one.
    pub(super) fn arrival_guard(&self, from: &ReplicaId, batch: u64) -> Arc<BatchGuard> {
        let (cluster, from) = (self.clone(), from.clone());
        Arc::new(BatchGuard::new(move || cluster.0.announced_batches.arrived(&from, batch)))
    }

    /// Announces a batch of an account to its leader; `None` if this replica is the leader.
    pub(super) fn announce(&self, account: &str) -> Option<BatchAnnouncement> {
        let (leader, batch) = (self.leader_of(account)?, self.next_number());
        self.send(&leader, FetchMessage::BatchAnnounced { account: account.to_owned(), batch });
        Some(BatchAnnouncement { cluster: self.clone(), leader, batch: Some(batch) })
    }

    /// Waits for the batch window of an account, for batches that other replicas have announced, and until the leader
    /// is known.
    pub(super) async fn wait_batch_window(&self, account: &str) {
        if self.role(account) == Role::Leader {
            sleep(LEADER_BATCH_WINDOW).await;
            self.0.announced_batches.wait(account).await;
        } else {
            sleep(BATCH_WINDOW).await;
        }
        let Some(scheduler) = self.0.quotas.scheduler(account) else { return };
        let mut role = scheduler.role();
        if *role.borrow() != Role::Unknown {
            return;
        }
        if role.wait_for(|role| *role != Role::Unknown).await.is_ok_and(|role| *role == Role::Leader) {
            // Other replicas had no leader either, and send their batches as soon as they hear of this one.
            sleep(ELECTION_SETTLE_TIME).await;
            self.0.announced_batches.wait(account).await;
        }
    }
}

#[cfg(test)]
mod tests {
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
