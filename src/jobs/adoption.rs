//! The adoption of jobs whose replica is gone.

use std::sync::Arc;

use super::manager::Manager;
use super::record::{Adoption, JobRecord};
use super::runner;
use super::store::JobStore;
use crate::cache::CacheError;
use crate::redis_client::ConnectionError;

impl Manager {
    /// Takes over a job of `owner`, which has no lease, unless another replica is first. Returns its record.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        store: &JobStore,
        id: &str,
        owner: &str,
    ) -> Result<Option<JobRecord>, ConnectionError> {
        if self.is_draining() || !store.claim(id, owner).await? {
            return store.find(id).await;
        }
        // Read after the claim: the last one who claimed it may have changed it.
        let Some(mut record) = store.find(id).await? else { return Ok(None) };
        let now = self.clock.now();
        match record.adoption(record.owner() != owner, now) {
            Adoption::No => {}
            Adoption::Adopt => {
                record.adopt(&self.replica);
                if !store.insert_uncancelled(&record, now).await? {
                    return Ok(None);
                }
                let adopted = self.registry().insert(record.clone(), true);
                tokio::spawn(runner::run(self.clone(), adopted));
                self.wake.notify_one();
                tracing::info!(job = id, "adopted the job of a replica that is gone");
            }
            Adoption::GiveUp => {
                record.finish(Err((self.describe)(&CacheError::FetchLost)), now);
                store.update(std::slice::from_ref(&record), now).await?;
            }
        }
        Ok(Some(record))
    }
}
