//! The jobs of a replica: creates, finds and cancels them, here and in Redis.

use std::fmt;
use std::sync::Arc;

use tokio::time::timeout;
use uuid::Uuid;

use super::command::{JobCommand, JobRequest};
use super::error::JobError;
use super::manager::{Costs, Manager, Windows};
use super::record::JobRecord;
use super::store::JobStore;
use super::{pulse, runner};
use crate::cache::CacheError;
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaManager;
use crate::redis_client::ConnectionError;
use crate::replicas::Mailbox;

/// The jobs of this replica. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Jobs(Arc<Manager>);

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("replica", &self.0.replica).finish_non_exhaustive()
    }
}

impl Jobs {
    /// No jobs yet. With a `mailbox`, they lie in Redis. `describe` makes the problem document of a job that failed.
    pub fn new(
        settings: config::JobsConfig,
        mailbox: Option<&Mailbox>,
        quotas: &QuotaManager,
        clock: &Clock,
        describe: fn(&CacheError) -> serde_json::Value,
    ) -> Self {
        Self(Arc::new(Manager::new(settings, mailbox, quotas, clock, describe)))
    }

    /// Runs jobs with the stages `below` from now on. With Redis, it must be called on a runtime.
    pub(super) fn start(&self, below: (Windows, Costs)) {
        if self.0.set_below(below) && self.0.store.is_some() {
            tokio::spawn(pulse::run(Arc::downgrade(&self.0)));
        }
    }

    /// Runs a command.
    pub(super) fn run(&self, command: JobCommand) -> impl Future<Output = Result<JobRecord, JobError>> + use<> {
        self.0.clone().run(command)
    }

    /// Begins and adopts no job from now on: for a process that ends soon.
    pub fn leave_to_others(&self) {
        self.0.begin_draining();
    }

    /// Begins no job any more, and leaves those that are not finished to other replicas.
    pub async fn leave(&self) {
        self.leave_to_others();
        let _writing = self.0.writing.lock().await;
        let own: Vec<JobRecord> = self.0.registry().all().into_iter().map(|(record, _)| record).collect();
        if let Some(store) = self.0.store.as_ref().filter(|_| !own.is_empty()) {
            // Whatever fails here, the lease ends soon.
            let _ = store.update(&own, self.0.clock.now()).await;
            let _ = store.release().await;
        }
        for record in own.iter().filter(|record| !record.is_finished()) {
            self.0.remove(&record.id);
        }
    }
}

impl Manager {
    /// Creates a job, unless its caller has too many, and waits for its end as long as the request says.
    async fn create(self: &Arc<Self>, request: JobRequest) -> Result<JobRecord, JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        let JobRequest { query, result, wait } = request;
        let elsewhere = self.count_stored(&query.requester.caller).await;
        let record = JobRecord::new(Uuid::new_v4().to_string(), &query, result, &self.replica);
        let running = self.register(record, elsewhere)?;
        self.store_new(&running).await;
        tokio::spawn(runner::run(self.clone(), running.clone()));
        self.wake.notify_one();
        let mut changes = running.subscribe();
        if !wait.is_zero() {
            let _ = timeout(wait, changes.wait_for(JobRecord::is_finished)).await;
        }
        Ok(changes.borrow().clone())
    }

    /// A job of this caller, wherever it runs. Adopts it if its replica is gone.
    async fn find(self: &Arc<Self>, id: &str, caller: &str) -> Result<JobRecord, JobError> {
        let local = {
            let mut registry = self.registry();
            registry.prune(self.clock.now(), self.settings.keep_for);
            registry.get(id).map(|job| job.record.borrow().clone())
        };
        let found = match (local, &self.store) {
            (Some(record), _) => Some(record),
            (None, Some(store)) => self.find_stored(store, id, caller).await.map_err(|_| JobError::Unreachable)?,
            (None, None) => None,
        };
        found.filter(|record| *record.caller() == *caller).ok_or(JobError::NotFound)
    }

    async fn find_stored(
        self: &Arc<Self>,
        store: &JobStore,
        id: &str,
        caller: &str,
    ) -> Result<Option<JobRecord>, ConnectionError> {
        // Only a caller's own question has an effect.
        let Some(record) = store.find(id).await?.filter(|record| *record.caller() == *caller) else { return Ok(None) };
        let owner = record.owner().to_owned();
        if record.is_finished() || self.is_running(store, id, &owner).await? {
            return Ok(Some(record));
        }
        self.adopt(store, id, &owner).await
    }

    async fn cancel(self: &Arc<Self>, id: &str, caller: &str) -> Result<JobRecord, JobError> {
        let record = self.find(id, caller).await?;
        // Otherwise a pulse could write again what is deleted here.
        let _writing = self.writing.lock().await;
        let runs_here = self.remove(id);
        if let Some(store) = &self.store {
            // A full Redis takes no mark, and only the replica that runs the job needs one.
            let is_marked = !runs_here && !record.is_finished();
            let deleted = if is_marked { store.cancel(&record).await } else { store.delete(&record).await };
            deleted.map_err(|_| JobError::Unreachable)?;
        }
        Ok(record)
    }

    /// Runs a command.
    async fn run(self: Arc<Self>, command: JobCommand) -> Result<JobRecord, JobError> {
        match command {
            JobCommand::Create(request) => self.create(request).await,
            JobCommand::Show { id, caller } => self.find(&id, &caller).await,
            JobCommand::Cancel { id, caller } => self.cancel(&id, &caller).await,
        }
    }
}
