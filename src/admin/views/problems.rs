//! `GET /api/v1/problems` and `GET /api/v1/history`: the last problems, and the calls of the last hours.

use serde::Serialize;

use super::history::{CallTotals, Sample};
use crate::edge::{ProblemSource, RecentProblem};

/// Path of the last problems.
pub(in crate::admin) const PROBLEMS_PATH: &str = "/api/v1/problems";
/// Path of the history.
pub(in crate::admin) const HISTORY_PATH: &str = "/api/v1/history";

/// The answer with the last problems.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct ProblemsStatus {
    /// The latest first.
    pub(in crate::admin) problems: Vec<ProblemStatus>,
}

/// A problem, and how often it was repeated.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct ProblemStatus {
    pub(in crate::admin) first: String,
    pub(in crate::admin) last: String,
    pub(in crate::admin) times: u64,
    /// `null` if it is the gateway's own.
    pub(in crate::admin) caller: Option<String>,
    pub(in crate::admin) stream: Option<String>,
    pub(in crate::admin) kind: String,
    pub(in crate::admin) text: String,
}

/// The answer with the history.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct HistoryStatus {
    /// Most minutes that are kept.
    pub(in crate::admin) kept_minutes: usize,
    /// The limits whose remaining calls are in `least_left`, in the same order.
    pub(in crate::admin) limits: Vec<LimitName>,
    /// Ascending, without gaps.
    pub(in crate::admin) minutes: Vec<MinuteStatus>,
}

/// A limit of an account.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct LimitName {
    pub(in crate::admin) account_id: String,
    pub(in crate::admin) requests: u32,
    pub(in crate::admin) per_seconds: u64,
}

/// The counts of a minute.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct MinuteStatus {
    start: String,
    requests: u64,
    calls_made: u64,
    calls_without_koregate: u64,
    least_left: Vec<u32>,
}

impl From<RecentProblem> for ProblemStatus {
    fn from(problem: RecentProblem) -> Self {
        let (caller, stream) = match problem.source {
            ProblemSource::Request { caller, stream } => (Some(caller), stream),
            ProblemSource::Gateway => (None, None),
        };
        Self {
            first: problem.first.to_string(),
            last: problem.last.to_string(),
            times: problem.times,
            caller,
            stream,
            kind: problem.kind,
            text: problem.text,
        }
    }
}

impl From<&Sample> for MinuteStatus {
    fn from(Sample { start, counts, least_left }: &Sample) -> Self {
        let CallTotals { requests, made, .. } = *counts;
        Self {
            start: start.to_string(),
            requests,
            calls_made: made,
            calls_without_koregate: counts.alone(),
            least_left: least_left.clone(),
        }
    }
}
