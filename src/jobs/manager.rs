//! The state of the stage: its registry and its store, and how a record gets from one to the other.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, Semaphore, watch};
use tower::util::BoxCloneSyncService;

use super::error::JobError;
use super::record::JobRecord;
use super::registry::Registry;
use super::store::JobStore;
use crate::cache::{CacheError, Cost, CostQuery, WindowAnswer, WindowQuery};
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaManager;
use crate::redis_client::ConnectionError;
use crate::replicas::{Mailbox, ReplicaId};

/// Jobs that run at the same time on a replica; the others are queued.
pub(super) const MAX_RUNNING: usize = 16;

pub(super) type Windows = BoxCloneSyncService<WindowQuery, WindowAnswer, CacheError>;
pub(super) type Costs = BoxCloneSyncService<CostQuery, Cost, Infallible>;

/// The state that the stage, the tasks of jobs and the pulse share.
pub(super) struct Manager {
    pub(super) settings: config::JobsConfig,
    pub(super) clock: Clock,
    pub(super) quotas: QuotaManager,
    pub(super) replica: ReplicaId,
    /// `None` without Redis.
    pub(super) store: Option<JobStore>,
    /// The problem document of an error.
    pub(super) describe: fn(&CacheError) -> serde_json::Value,
    /// The stages below, since the stage was built.
    below: OnceLock<(Windows, Costs)>,
    registry: Mutex<Registry>,
    pub(super) permits: Arc<Semaphore>,
    /// Notified when jobs were removed.
    pub(super) removed: watch::Sender<()>,
    /// Wakes the pulse.
    pub(super) wake: Arc<Notify>,
    /// Held while records of this replica are written, so that none of an earlier state is written later.
    pub(super) writing: tokio::sync::Mutex<()>,
    is_draining: AtomicBool,
}

impl Manager {
    pub(super) fn new(
        settings: config::JobsConfig,
        mailbox: Option<&Mailbox>,
        quotas: &QuotaManager,
        clock: &Clock,
        describe: fn(&CacheError) -> serde_json::Value,
    ) -> Self {
        Self {
            settings,
            clock: clock.clone(),
            quotas: quotas.clone(),
            replica: mailbox.map_or_else(ReplicaId::random, |mailbox| mailbox.me().clone()),
            store: mailbox.map(|mailbox| JobStore::new(mailbox.clone(), settings.keep_for)),
            describe,
            below: OnceLock::new(),
            registry: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_RUNNING)),
            removed: watch::Sender::new(()),
            wake: Arc::default(),
            writing: tokio::sync::Mutex::default(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// Sets the stages below; `false` if they are set already.
    pub(super) fn set_below(&self, below: (Windows, Costs)) -> bool {
        self.below.set(below).is_ok()
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stages below, for windows.
    ///
    /// # Errors
    /// If the stage was not built, which is a defect.
    pub(super) fn windows(&self) -> Result<Windows, CacheError> {
        self.below.get().map(|(windows, _)| windows.clone()).ok_or(CacheError::FetchLost)
    }

    /// The stages below, for costs.
    pub(super) fn costs(&self) -> Option<Costs> {
        self.below.get().map(|(_, costs)| costs.clone())
    }

    /// Whether a job is this replica's.
    pub(super) fn is_known(&self, id: &str) -> bool {
        self.registry().get(id).is_some()
    }

    /// Begins no job from now on.
    pub(super) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Removes a job from the registry, which ends its task. Returns whether it was there.
    pub(super) fn remove(&self, id: &str) -> bool {
        let was_here = self.registry().remove(id).is_some();
        self.removed.send_replace(());
        was_here
    }

    /// Writes the record of a job that has ended to Redis, where it is found from then on. If that fails, or Redis has
    /// lost the job, the next pulse does it.
    pub(super) async fn after_end(&self, record: &watch::Sender<JobRecord>) {
        let Some(store) = &self.store else { return };
        let _writing = self.writing.lock().await;
        let ended = record.borrow().clone();
        match store.update(std::slice::from_ref(&ended), self.clock.now()).await {
            Ok(absent) if absent.is_empty() => drop(self.registry().remove(&ended.id)),
            _ => self.wake.notify_one(),
        }
    }

    /// How many unfinished jobs of a caller lie in Redis; 0 if it does not say.
    pub(super) async fn count_stored(&self, caller: &str) -> usize {
        let Some(store) = &self.store else { return 0 };
        match store.count(caller).await {
            // Some of them may have been evicted.
            Ok(count) if count >= self.settings.per_caller as usize => store.recount(caller).await.unwrap_or(count),
            Ok(count) => count,
            Err(_) => 0,
        }
    }

    /// Registers a new job, unless its caller has too many.
    pub(super) fn register(&self, record: JobRecord, elsewhere: usize) -> Result<watch::Sender<JobRecord>, JobError> {
        let limit = self.settings.per_caller;
        let mut registry = self.registry();
        registry.prune(self.clock.now(), self.settings.keep_for);
        if registry.count(&record.caller()).max(elsewhere) >= limit as usize {
            return Err(JobError::TooMany { limit });
        }
        Ok(registry.insert(record, false))
    }

    /// Writes a new job to Redis. If that fails, a later pulse does it.
    pub(super) async fn store_new(&self, running: &watch::Sender<JobRecord>) {
        let Some(store) = &self.store else { return };
        let _writing = self.writing.lock().await;
        let record = running.borrow().clone();
        if store.insert(&record, self.clock.now()).await.is_ok() {
            self.registry().set_stored(&record.id);
        }
    }

    /// Whether `owner` runs a job of this id.
    pub(super) async fn is_running(&self, store: &JobStore, id: &str, owner: &str) -> Result<bool, ConnectionError> {
        if owner == self.replica.as_str() {
            return Ok(self.is_known(id));
        }
        Ok(!store.alive(&[owner]).await?.is_empty())
    }
}
