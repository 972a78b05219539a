//! `GET /api/v1/runs`: the runs under way.

use serde::Serialize;

use super::state::Admin;
use crate::cache::RunView;
use crate::units::seconds;

/// Path of the call.
pub(super) const PATH: &str = "/api/v1/runs";
/// Maximum runs of an answer.
const MAX_RUNS: usize = 100;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct RunsStatus {
    /// The oldest runs.
    pub(super) runs: Vec<RunStatusLine>,
    /// Number of runs, those that were left out included.
    pub(super) total: usize,
}

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct RunStatusLine {
    pub(super) account_id: String,
    pub(super) stream: String,
    pub(super) from: String,
    pub(super) to: String,
    /// The caller that caused it.
    pub(super) caller: String,
    /// The most urgent priority of the requests that wait for it.
    pub(super) priority: &'static str,
    /// Seconds since its start.
    pub(super) seconds: f64,
    pub(super) pages: u32,
    /// `null` while nothing is known of the number of items.
    pub(super) expected_pages: Option<u32>,
    /// Seconds until the quota lets it go on; `null` if it is not paused.
    pub(super) paused_seconds: Option<f64>,
    /// Whether another replica makes its calls.
    pub(super) is_remote: bool,
}

impl Admin {
    pub(super) fn runs(&self) -> RunsStatus {
        let (runs, total) = self.0.handles.cache.runs(MAX_RUNS);
        RunsStatus { runs: runs.into_iter().map(RunStatusLine::from).collect(), total }
    }
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
