//! What is being gathered on other replicas: the one who calls waits a moment for it, so that what is asked for at the
//! same instant, on however many replicas, is fetched in as few runs as can be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Cluster, ClusterMessage};
use crate::cache::fetch::{self, BATCH_WINDOW};
use crate::cache::series::BatchGuard;
use crate::quota::Role;
use crate::redis_client::ReplicaId;

/// The same where other replicas may have something to bring: they gather too, look into Redis, and write.
const GATHER_FOR_ALL: Duration = Duration::from_millis(40);
/// Who makes the calls from now on, all have heard of by then: a replica that does not know asks four times a second.
const HEARD: Duration = Duration::from_millis(400);
/// What was announced is waited for so long at the most: the one who has announced it may be gone.
const PATIENCE: Duration = Duration::from_millis(250);

/// The gatherings on other replicas of which nothing has come yet.
#[derive(Debug, Default)]
pub(super) struct AnnouncedBatches(watch::Sender<BTreeMap<(ReplicaId, u64), PendingBatch>>);

#[derive(Debug)]
struct PendingBatch {
    account: String,
    announced: Instant,
}

/// A gathering that was announced to the one who calls. Dropped before there are errands, it says that there are none.
#[derive(Debug)]
pub(super) struct BatchAnnouncement {
    relay: Cluster,
    to: ReplicaId,
    gathering: Option<u64>,
}

impl AnnouncedBatches {
    pub(super) fn announced(&self, from: &ReplicaId, gathering: u64, account: &str) {
        let coming = PendingBatch { account: account.to_owned(), announced: Instant::now() };
        self.0.send_modify(|all| drop(all.insert((from.clone(), gathering), coming)));
    }

    pub(super) fn arrived(&self, from: &ReplicaId, gathering: u64) {
        self.0.send_if_modified(|all| all.remove(&(from.clone(), gathering)).is_some());
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn tidy(&self) {
        self.0.send_modify(|all| all.retain(|_, coming| coming.announced.elapsed() < PATIENCE));
    }

    /// Waits for what has been announced of an account by now. What is announced meanwhile is left to the next gathering:
    /// on busy replicas there is always something to come.
    async fn wait(&self, account: &str) {
        let open: Vec<_> = {
            let all = self.0.borrow();
            let open = all.iter().filter(|(_, coming)| coming.account == account);
            open.map(|(name, coming)| (name.clone(), coming.announced + PATIENCE)).collect()
        };
        let Some(until) = open.iter().map(|(_, until)| *until).max() else { return };
        let mut all = self.0.subscribe();
        let here = all.wait_for(|all| open.iter().all(|(name, _)| !all.contains_key(name)));
        drop(timeout_at(until, here).await);
    }
}

impl fetch::BatchAnnouncement for BatchAnnouncement {
    /// The name of the gathering, if it is still to be said to `to` that it has ended; whoever takes it says so.
    fn close(&mut self, to: &ReplicaId) -> Option<u64> {
        if *to == self.to { self.gathering.take() } else { None }
    }
}

impl Drop for BatchAnnouncement {
    fn drop(&mut self) {
        if let Some(gathering) = self.gathering {
            self.relay.send(&self.to, ClusterMessage::Nothing { gathering });
        }
    }
}

impl Cluster {
    /// A guard of a batch on another replica, to be dropped when all of its requests are registered here.
    pub(super) fn arrival_guard(&self, from: &ReplicaId, gathering: u64) -> Arc<BatchGuard> {
        let (cluster, from) = (self.clone(), from.clone());
        Arc::new(BatchGuard::new(move || cluster.0.coming.arrived(&from, gathering)))
    }

    /// Tells the one who calls that something is being gathered here.
    pub(super) fn announce(&self, account: &str) -> Option<BatchAnnouncement> {
        let relay = self;
        let (to, gathering) = (relay.caller_of(account)?, relay.name());
        relay.send(&to, ClusterMessage::AnnouncedBatches { account: account.to_owned(), gathering });
        Some(BatchAnnouncement { relay: relay.clone(), to, gathering: Some(gathering) })
    }

    /// Waits while others may come with what they want of an account, and until it is known who makes its calls.
    pub(super) async fn let_gather(&self, account: &str) {
        let relay = self;
        if relay.role(account) == Role::Leader {
            sleep(GATHER_FOR_ALL).await;
            relay.0.coming.wait(account).await;
        } else {
            sleep(BATCH_WINDOW).await;
        }
        let Some(turns) = relay.0.quotas.scheduler(account) else { return };
        let mut role = turns.role();
        if *role.borrow() != Role::Unknown {
            return;
        }
        if role.wait_for(|role| *role != Role::Unknown).await.is_ok_and(|role| *role == Role::Leader) {
            // Others could ask nobody either, and come with what they want as soon as they hear of it.
            sleep(HEARD).await;
            relay.0.coming.wait(account).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> ReplicaId {
        ReplicaId::read(b"0123456789abcdef").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_announced_is_waited_for_until_it_is_there() {
        let (coming, begun) = (AnnouncedBatches::default(), Instant::now());
        coming.announced(&replica(), 1, "a");
        coming.announced(&replica(), 2, "a");
        coming.announced(&replica(), 3, "b");
        let arrive = async {
            for gathering in [1, 2] {
                sleep(Duration::from_millis(50)).await;
                coming.arrived(&replica(), gathering);
                // What comes to be announced is for the next gathering.
                coming.announced(&replica(), 10 + gathering, "a");
            }
        };
        tokio::join!(coming.wait("a"), arrive);
        assert_eq!(begun.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_has_announced_something_and_is_gone_is_not_waited_for_long() {
        let (coming, begun) = (AnnouncedBatches::default(), Instant::now());
        coming.announced(&replica(), 1, "a");
        sleep(Duration::from_millis(100)).await;
        coming.wait("a").await;
        assert_eq!(begun.elapsed().as_millis(), 250, "from when it was announced");
        coming.wait("a").await;
        assert_eq!(begun.elapsed().as_millis(), 250);
        coming.tidy();
        assert!(coming.0.borrow().is_empty());
    }
}
