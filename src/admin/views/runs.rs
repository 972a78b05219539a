//! `GET /api/v1/runs`: the runs under way.

use serde::Serialize;

use crate::cache::RunView;
use crate::units::seconds;

/// Path of the call.
pub(in crate::admin) const PATH: &str = "/api/v1/runs";

/// The answer.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct RunsStatus {
    /// The oldest runs.
    pub(in crate::admin) runs: Vec<RunStatusLine>,
    /// Number of runs, those that were left out included.
    pub(in crate::admin) total: usize,
}

/// A run.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct RunStatusLine {
    pub(in crate::admin) account_id: String,
    pub(in crate::admin) stream: String,
    pub(in crate::admin) from: String,
    pub(in crate::admin) to: String,
    /// The caller that caused it.
    pub(in crate::admin) caller: String,
    /// The most urgent priority of the requests that wait for it.
    pub(in crate::admin) priority: &'static str,
    /// Seconds since its start.
    pub(in crate::admin) seconds: f64,
    pub(in crate::admin) pages: u32,
    /// `null` while nothing is known of the number of items.
    pub(in crate::admin) expected_pages: Option<u32>,
    /// Seconds until the quota lets it go on; `null` if it is not paused.
    pub(in crate::admin) paused_seconds: Option<f64>,
    /// Whether another replica makes its calls.
    pub(in crate::admin) is_remote: bool,
}

impl From<RunView> for RunStatusLine {
    fn from(run: RunView) -> Self {
        Self {
            account_id: run.account.to_string(),
            stream: run.stream.to_string(),
            from: run.interval.start.to_string(),
            to: run.interval.end.to_string(),
            caller: run.caller.to_string(),
            priority: run.priority.label(),
            seconds: seconds(run.age),
            pages: run.pages,
            expected_pages: run.expected_pages,
            paused_seconds: run.paused_for.map(seconds),
            is_remote: run.is_remote,
        }
    }
}
