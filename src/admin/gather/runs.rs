//! The runs under way.

use crate::admin::state::Admin;
use crate::admin::views::runs::{RunStatusLine, RunsStatus};

/// Maximum runs of an answer.
const MAX_RUNS: usize = 100;

impl Admin {
    pub(in crate::admin) fn runs(&self) -> RunsStatus {
        let (runs, total) = self.0.handles.cache.runs(MAX_RUNS);
        RunsStatus { runs: runs.into_iter().map(RunStatusLine::from).collect(), total }
    }
}
