//! The pulse of a replica with Redis: renews its lease while it has jobs, writes their progress, and adopts the jobs of
//! replicas that are gone. It stops while there are no jobs, so that an idle fleet does not ask Redis.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::manager::Manager;
use super::record::{JobRecord, JobState};
use super::store::JobStore;
use crate::redis_client::ConnectionError;

/// The time between two pulses, a third of the lease.
const PULSE_INTERVAL: Duration = Duration::from_secs(5);

/// Pulses until the stage is dropped. The first pulse finds the jobs of a process that has died before.
pub(super) async fn run(manager: Weak<Manager>) {
    loop {
        let Some(strong) = manager.upgrade() else { return };
        let Some(store) = &strong.store else { return };
        // While Redis does not answer, there may be jobs.
        let are_there_jobs = strong.pulse(store).await.unwrap_or(true);
        let wake = strong.wake.clone();
        drop(strong);
        if are_there_jobs {
            sleep(PULSE_INTERVAL).await;
        } else {
            wake.notified().await;
        }
    }
}

impl Manager {
    /// One pulse. Returns whether there are jobs, here or elsewhere.
    async fn pulse(self: &Arc<Self>, store: &JobStore) -> Result<bool, ConnectionError> {
        let own = self.write_own(store).await?;
        let index = store.index().await?;
        for id in own.iter().filter(|own| !index.iter().any(|(id, _)| id == *own)) {
            // Cancelled by way of another replica, unless it has ended meanwhile.
            self.cancel_if_unfinished(id);
        }
        let me = self.replica.as_str();
        let mut owners: Vec<&str> =
            index.iter().map(|(_, owner)| owner.as_str()).filter(|owner| *owner != me).collect();
        owners.sort_unstable();
        owners.dedup();
        let alive = store.alive(&owners).await?;
        for (id, owner) in &index {
            let is_running = if owner == me { self.is_known(id) } else { alive.contains(&owner.as_str()) };
            if !is_running {
                self.take_orphan(store, id).await?;
            }
        }
        Ok(!index.is_empty() || !own.is_empty())
    }

    /// Renews the lease, and writes the jobs that are new or running. Returns the ids of all that are in the index now.
    async fn write_own(&self, store: &JobStore) -> Result<Vec<String>, ConnectionError> {
        let _writing = self.writing.lock().await;
        let own = self.registry().unfinished();
        if own.is_empty() {
            return Ok(Vec::new());
        }
        store.renew().await?;
        for (record, _) in own.iter().filter(|(_, is_stored)| !is_stored) {
            store.insert(record, self.clock.now()).await?;
            self.registry().set_stored(&record.id);
        }
        let is_changed = |(record, is_stored): &&(JobRecord, bool)| *is_stored && record.state == JobState::Running;
        let changed: Vec<_> = own.iter().filter(is_changed).map(|(record, _)| record.clone()).collect();
        store.update(&changed, self.clock.now()).await?;
        Ok(own.into_iter().map(|(record, _)| record.id).collect())
    }

    /// Adopts a job that the index says to be of a replica that is gone.
    async fn take_orphan(self: &Arc<Self>, store: &JobStore, id: &str) -> Result<(), ConnectionError> {
        let Some(record) = store.find(id).await? else { return store.forget(id).await };
        if record.is_finished() {
            // Its owner has died before it was removed from the index.
            return store.update(&[record], self.clock.now()).await;
        }
        // The index may be behind.
        if !self.is_running(store, id, record.owner()).await? {
            self.adopt(store, id, record.owner()).await?;
        }
        Ok(())
    }
}
