//! Writes a purge to Redis, again and again until that succeeds, and learns the purges of other replicas from there:
//! the tombstones that this replica remembers and those in Redis become the same. Then `broadcast.rs` tells the others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::broadcast::Confirmed;
use super::delete::PurgeDeleter;
use super::purges::{Purges, PurgesInner};
use super::replicator::{PurgeReplicator, PurgeTicket};
use super::types::PurgeDelivery;
use crate::redis_client::{ConnectionError, Reply};
use crate::telemetry;

/// Attempts to write while other replicas write at the same time.
const MAX_WRITE_ATTEMPTS: usize = 10;
/// Pauses between attempts after failures; the last one repeats.
const RETRY_PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(30)];

impl Purges {
    /// Learns the purges that are new since `reply` to the marker command. `false` if Redis does not answer.
    pub(super) async fn learn(&self, replicator: &PurgeReplicator, account: &str, reply: &Reply) -> bool {
        let lock = replicator.with_state(account, |state| state.exchange_lock.clone());
        let _guard = lock.lock().await;
        // Many calls may see the same marker at once; the first one learns the purges for all.
        replicator.is_current(account, reply) || self.synchronize(replicator, &account.into()).await.is_ok()
    }

    /// Makes the purges known here and those in Redis the same, and sweeps memory. The caller holds the exchange lock.
    async fn synchronize(&self, replicator: &PurgeReplicator, account: &Arc<str>) -> Result<(), ConnectionError> {
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let stored = replicator.read(account).await?;
            let (known, is_changed, unwritten) = {
                let mut all = self.lock();
                let tombstones = Arc::make_mut(all.entry(account.clone()).or_default());
                let before = tombstones.clone();
                let unwritten = replicator.with_state(account, |state| state.unwritten.clone());
                for ticket in &unwritten {
                    let mut progress = ticket.progress();
                    // Other replicas have used greater epochs: a chunk with one of them may be older than this purge.
                    if progress.epoch <= stored.tombstones.epoch() {
                        tombstones.remove(progress.epoch);
                        let beyond = tombstones.epoch().max(stored.tombstones.epoch()) + 1;
                        progress.epoch = tombstones.next_epoch(self.0.clock.now()).max(beyond);
                        tombstones.add(progress.epoch, ticket.tombstone().clone());
                    }
                }
                tombstones.merge(&stored.tombstones);
                (tombstones.clone(), *tombstones != before, unwritten)
            };
            if is_changed {
                // First, because the request that has learned of the purges may be cancelled while it waits.
                self.start_disk_sweep();
                self.sweep_memory(account).await;
            }
            let marker = if known == stored.tombstones && unwritten.is_empty() {
                stored.marker
            } else if replicator.write(account, &known, &stored.tombstones).await? {
                replicator.write_marker(account, known.epoch()).await?
            } else {
                continue;
            };
            replicator.with_state(account, |state| {
                state.known_marker = Some(marker);
                state.unwritten.retain(|open| !unwritten.iter().any(|written| Arc::ptr_eq(&open.0, &written.0)));
            });
            for ticket in unwritten {
                ticket.progress().is_written = true;
            }
            return Ok(());
        }
        Err(ConnectionError::NotReady("other replicas write purges all the time".to_owned()))
    }

    /// Writes the purges of this replica that Redis did not take yet, instead of waiting for the next attempt.
    pub(in crate::cache) async fn write_unwritten(&self, account: &Arc<str>) {
        let Some(replicator) = &self.0.replicator else { return };
        let lock = replicator.with_state(account, |state| state.exchange_lock.clone());
        let _guard = lock.lock().await;
        if replicator.with_state(account, |state| !state.unwritten.is_empty()) {
            // If it fails, the attempts in the background go on.
            let _ = self.synchronize(replicator, account).await;
        }
    }

    /// Brings a purge of this replica to all others. Returns its epoch and the result.
    pub(super) async fn replicate(
        &self,
        replicator: &PurgeReplicator,
        account: &Arc<str>,
        ticket: PurgeTicket,
    ) -> (u64, Result<PurgeDelivery, ConnectionError>) {
        let delivery = match self.write(replicator, account, &ticket).await {
            Ok(()) => Ok(self.deliver(replicator, account, &ticket).await),
            Err(why) => {
                tokio::spawn(retry_replication(Arc::downgrade(&self.0), account.clone(), ticket.clone()));
                Err(why)
            }
        };
        (ticket.progress().epoch, delivery)
    }

    /// Broadcasts a purge that is in Redis, and deletes purged chunks there.
    async fn deliver(&self, replicator: &PurgeReplicator, account: &Arc<str>, ticket: &PurgeTicket) -> PurgeDelivery {
        let epoch = ticket.progress().epoch;
        let Confirmed { replicas, expected, chunks } = replicator.broadcast(account, epoch, ticket.tombstone()).await;
        let deleter = PurgeDeleter::new(replicator, account, epoch, ticket.tombstone());
        let deletion = deleter.start(retry_pauses()).await;
        PurgeDelivery { confirmed: replicas, expected, replica_chunks: chunks, deletion }
    }

    /// Writes a purge of this replica, unless it was written along with another.
    async fn write(
        &self,
        replicator: &PurgeReplicator,
        account: &Arc<str>,
        ticket: &PurgeTicket,
    ) -> Result<(), ConnectionError> {
        let lock = replicator.with_state(account, |state| state.exchange_lock.clone());
        let _guard = lock.lock().await;
        let is_written = ticket.progress().is_written;
        if is_written { Ok(()) } else { self.synchronize(replicator, account).await }
    }
}

/// Repeats a replication that failed until it succeeds, is superseded, or the cache is dropped.
async fn retry_replication(purges: Weak<PurgesInner>, account: Arc<str>, ticket: PurgeTicket) {
    for pause in retry_pauses() {
        sleep(pause).await;
        let Some(purges) = purges.upgrade().map(Purges) else { return };
        let replicator = purges.0.replicator.as_ref().filter(|_| !ticket.progress().is_superseded);
        let Some(replicator) = replicator else { return };
        if purges.write(replicator, &account, &ticket).await.is_ok() {
            let delivery = purges.deliver(replicator, &account, &ticket).await;
            telemetry::purge_replicated_late(&account, ticket.progress().epoch, delivery.confirmed);
            return;
        }
    }
}

/// The pauses of [`RETRY_PAUSES`], without end.
fn retry_pauses() -> impl Iterator<Item = Duration> + Send {
    RETRY_PAUSES.into_iter().chain(std::iter::repeat(RETRY_PAUSES[RETRY_PAUSES.len() - 1]))
}
