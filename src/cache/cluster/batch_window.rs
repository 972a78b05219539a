//! How long the leader of several replicas collects requests before it fetches them together ([`LEADER_BATCH_WINDOW`]),
//! and waits for the batches that other replicas have announced, so that windows that are requested at the same time on
//! any replica are fetched in as few runs as possible.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::exchange::Cluster;
use crate::cache::fetch::{self, BATCH_WINDOW};
use crate::cache::series::BatchGuard;
use crate::quota::Role;
use crate::replicas::{FetchMessage, ReplicaId};

/// The batch window of the leader: other replicas collect too, look into Redis, and send.
const LEADER_BATCH_WINDOW: Duration = Duration::from_millis(40);
/// How long a new leader waits until all replicas know of it: a replica without a leader looks four times a second.
const ELECTION_SETTLE_TIME: Duration = Duration::from_millis(400);

/// A batch of this replica that was announced to the leader. Dropped before it is closed, it tells the leader that
/// there is nothing to fetch.
#[derive(Debug)]
pub(super) struct LeaderBatchAnnouncement {
    cluster: Cluster,
    leader: ReplicaId,
    batch: Option<u64>,
}

impl fetch::BatchAnnouncement for LeaderBatchAnnouncement {
    fn close(&mut self, leader: &ReplicaId) -> Option<u64> {
        if *leader == self.leader { self.batch.take() } else { None }
    }
}

impl Drop for LeaderBatchAnnouncement {
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
    pub(super) fn announce(&self, account: &str) -> Option<LeaderBatchAnnouncement> {
        let (leader, batch) = (self.leader_of(account)?, self.next_number());
        self.send(&leader, FetchMessage::BatchAnnounced { account: account.to_owned(), batch });
        Some(LeaderBatchAnnouncement { cluster: self.clone(), leader, batch: Some(batch) })
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
