//! Reasons why there is no job.

/// Reason why a job cannot be created, shown or cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// There is no such job, or it is another caller's. One error for both, so that it does not reveal which.
    #[error("no such job: it has ended long ago, was cancelled, or never was")]
    NotFound,
    /// The caller has as many unfinished jobs as it may have.
    #[error("{limit} jobs of this caller are not finished yet, as many as jobs.per_caller allows")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// Redis does not answer, and this replica does not know the job.
    #[error("Redis, where the jobs of other replicas lie, does not answer")]
    Unreachable,
    /// The process is about to end.
    #[error("this replica is being stopped, and begins no job any more")]
    Draining,
}
