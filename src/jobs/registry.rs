//! The jobs of this replica. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use super::record::JobRecord;
use crate::window::Timestamp;

/// Finished jobs that are kept without Redis; the oldest are forgotten first.
const MAX_FINISHED: usize = 10_000;

/// The jobs that this replica runs, and those that have ended here: without Redis all of them, and otherwise those whose
/// end is not in Redis yet.
#[derive(Debug, Default)]
pub(super) struct Registry {
    jobs: HashMap<String, LocalJob>,
}

/// A job of this replica.
#[derive(Debug)]
pub(super) struct LocalJob {
    /// The current record.
    pub(super) record: watch::Sender<JobRecord>,
    /// Whether the record was written to Redis.
    pub(super) is_stored: bool,
}

impl Registry {
    /// Adds a job.
    pub(super) fn insert(&mut self, record: JobRecord, is_stored: bool) -> watch::Sender<JobRecord> {
        let (id, record) = (record.id.clone(), watch::Sender::new(record));
        self.jobs.insert(id, LocalJob { record: record.clone(), is_stored });
        record
    }

    pub(super) fn get(&self, id: &str) -> Option<&LocalJob> {
        self.jobs.get(id)
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<LocalJob> {
        self.jobs.remove(id)
    }

    /// Notes that the record of a job was written to Redis.
    pub(super) fn set_stored(&mut self, id: &str) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.is_stored = true;
        }
    }

    /// The records of all jobs, each with whether it was written to Redis.
    pub(super) fn all(&self) -> Vec<(JobRecord, bool)> {
        self.jobs.values().map(|job| (job.record.borrow().clone(), job.is_stored)).collect()
    }

    /// How many jobs of a caller are not finished.
    pub(super) fn count(&self, caller: &str) -> usize {
        let is_own = |record: &JobRecord| !record.is_finished() && *record.caller() == *caller;
        self.jobs.values().filter(|job| is_own(&job.record.borrow())).count()
    }

    /// Forgets finished jobs that are kept for longer than `keep_for` at `now`, and the oldest of too many.
    pub(super) fn prune(&mut self, now: Timestamp, keep_for: Duration) {
        let expiry = |job: &LocalJob| {
            let record = job.record.borrow();
            record.is_finished().then(|| record.expires_at(keep_for))
        };
        self.jobs.retain(|_, job| expiry(job).is_none_or(|expiry| now < expiry));
        if self.jobs.len() > MAX_FINISHED {
            let finished = self.jobs.iter().filter_map(|(id, job)| Some((expiry(job)?, id.clone())));
            let mut finished: Vec<_> = finished.collect();
            finished.sort_unstable();
            let surplus = finished.len().saturating_sub(MAX_FINISHED);
            for (_, id) in finished.drain(..surplus) {
                self.jobs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{at, record};
    use super::*;
    use crate::jobs::JobOutcome;

    fn finish(registry: &Registry, id: &str, second: i64) {
        registry.get(id).unwrap().record.send_modify(|job| job.finish(Ok(JobOutcome::default()), at(second)));
    }

    #[test]
    fn unfinished_jobs_of_a_caller_are_counted() {
        let mut registry = Registry::default();
        for (id, caller) in [("1", "bi"), ("2", "bi"), ("3", "qa")] {
            registry.insert(record(id, caller), false);
        }
        assert_eq!((registry.count("bi"), registry.count("qa"), registry.count("x")), (2, 1, 0));
        finish(&registry, "1", 2000);
        assert_eq!(registry.count("bi"), 1);
        registry.remove("2");
        assert_eq!((registry.count("bi"), registry.all().len()), (0, 2));
    }

    #[test]
    fn finished_job_is_forgotten_after_its_time() {
        let (mut registry, minute) = (Registry::default(), Duration::from_mins(1));
        registry.insert(record("ended", "bi"), false);
        registry.insert(record("open", "bi"), false);
        finish(&registry, "ended", 2000);
        registry.prune(at(2059), minute);
        assert!(registry.get("ended").is_some());
        registry.prune(at(2060), minute);
        assert!(registry.get("ended").is_none() && registry.get("open").is_some());
    }

    #[test]
    fn oldest_of_too_many_finished_jobs_are_forgotten() {
        let mut registry = Registry::default();
        for id in 0..MAX_FINISHED + 3 {
            registry.insert(record(&id.to_string(), "bi"), false);
            finish(&registry, &id.to_string(), 2000 + i64::try_from(id).unwrap());
        }
        registry.prune(at(2000), Duration::from_hours(9));
        assert_eq!(registry.jobs.len(), MAX_FINISHED);
        assert!(registry.get("2").is_none() && registry.get("3").is_some());
    }
}
