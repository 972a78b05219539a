//! The pulse of a replica with Redis: renews its lease while it has jobs, writes their progress, ends those that were
//! cancelled by way of another replica, and adopts the jobs of replicas that are gone. It stops while there are no jobs, so
//! that an idle fleet does not ask Redis.

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
        let (index, has_own) = self.write_own(store).await?;
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
        Ok(!index.is_empty() || has_own)
    }

    /// Renews the lease, and writes the jobs of this replica. Returns the index as it was before, and whether there are
    /// unfinished jobs of this replica.
    async fn write_own(&self, store: &JobStore) -> Result<(Vec<(String, String)>, bool), ConnectionError> {
        let _writing = self.writing.lock().await;
        let index = store.index().await?;
        let own = self.registry().all();
        if own.is_empty() {
            return Ok((index, false));
        }
        store.renew().await?;
        let (mut changed, mut missing) = (Vec::new(), Vec::new());
        for (record, was_stored) in &own {
            let is_there = *was_stored && (record.is_finished() || index.iter().any(|(id, _)| *id == record.id));
            match record.state {
                _ if !is_there => missing.push(record),
                JobState::Queued => {}
                _ => changed.push(record.clone()),
            }
        }
        let absent = store.update(&changed, self.clock.now()).await?;
        missing.extend(changed.iter().filter(|record| absent.contains(&record.id)));
        for record in missing {
            self.restore(store, record).await?;
        }
        for (record, _) in own.iter().filter(|(record, _)| record.is_finished()) {
            self.registry().remove(&record.id);
        }
        Ok((index, own.iter().any(|(record, _)| !record.is_finished())))
    }

    /// Writes a job that Redis does not have, because it could not be written before or Redis has lost it. Ends it
    /// instead, if it was cancelled or ended by way of another replica.
    async fn restore(&self, store: &JobStore, record: &JobRecord) -> Result<(), ConnectionError> {
        let id = &record.id;
        if store.is_cancelled(id).await? || store.find(id).await?.is_some_and(|stored| stored.is_finished()) {
            self.remove(id);
        } else if store.insert_uncancelled(record, self.clock.now()).await? {
            self.registry().set_stored(id);
        } else {
            self.remove(id);
        }
        Ok(())
    }

    /// Adopts a job that the index says to be of a replica that is gone.
    async fn take_orphan(self: &Arc<Self>, store: &JobStore, id: &str) -> Result<(), ConnectionError> {
        let Some(record) = store.find(id).await? else { return store.forget(id).await };
        if record.is_finished() {
            // Its owner has died before it was removed from the index.
            return store.update(&[record], self.clock.now()).await.map(drop);
        }
        // The index may be behind.
        if !self.is_running(store, id, record.owner()).await? {
            self.adopt(store, id, record.owner()).await?;
        }
        Ok(())
    }
}
