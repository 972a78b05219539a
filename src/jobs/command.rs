//! Requests about jobs.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::WindowQuery;

/// A request about jobs.
#[derive(Clone, Debug)]
pub enum JobCommand {
    /// Begins a job.
    Create(JobRequest),
    /// Shows a job of this caller.
    Show {
        /// The id.
        id: String,
        /// The caller.
        caller: Arc<str>,
    },
    /// Cancels and forgets a job of this caller.
    Cancel {
        /// The id.
        id: String,
        /// The caller.
        caller: Arc<str>,
    },
}

/// A window to be fetched by a job.
#[derive(Clone, Debug)]
pub struct JobRequest {
    /// The window, of which all items are fetched.
    pub query: WindowQuery,
    /// The path and query of the request that is answered from the cache when the job is done.
    pub result: String,
    /// How long the request waits for the end of the job.
    pub wait: Duration,
}
