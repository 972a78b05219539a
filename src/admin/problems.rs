//! `GET /api/v1/problems` and `GET /api/v1/history`: the last problems, and the calls of the last hours.

use serde::Serialize;

use super::history::{MINUTES, Sample, Totals};
use super::state::Admin;
use crate::edge::{ProblemSource, RecentProblem};

/// Path of the last problems.
pub(super) const PROBLEMS_PATH: &str = "/api/v1/problems";
/// Path of the history.
pub(super) const HISTORY_PATH: &str = "/api/v1/history";

/// The answer with the last problems.
#[derive(Debug, Serialize)]
pub(super) struct ProblemsStatus {
    /// The latest first.
    pub(super) problems: Vec<ProblemStatus>,
}

/// A problem, and how often it was repeated.
#[derive(Debug, Serialize)]
pub(super) struct ProblemStatus {
    pub(super) first: String,
    pub(super) last: String,
    pub(super) times: u64,
    /// `null` if it is the gateway's own.
    pub(super) caller: Option<String>,
    pub(super) stream: Option<String>,
    pub(super) kind: String,
    pub(super) text: String,
}

/// The answer with the history.
#[derive(Debug, Serialize)]
pub(super) struct HistoryStatus {
    /// Most minutes that are kept.
    kept_minutes: usize,
    /// The limits whose remaining calls are in `least_left`, in the same order.
    limits: Vec<LimitName>,
    /// Ascending, without gaps.
    minutes: Vec<MinuteStatus>,
}

/// A limit of an account.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LimitName {
    pub(super) account_id: String,
    pub(super) requests: u32,
    pub(super) per_seconds: u64,
}

#[derive(Debug, Serialize)]
struct MinuteStatus {
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

impl Admin {
    pub(super) fn recent_problems(&self) -> ProblemsStatus {
        let problems = self.0.handles.ends.problems.all().into_iter().map(ProblemStatus::from);
        ProblemsStatus { problems: problems.collect() }
    }

    /// The limits in the order of the history.
    pub(super) fn limit_names(&self) -> Vec<LimitName> {
        let names = self.schedulers().into_iter().flat_map(|(account, scheduler)| {
            scheduler.limit_usage().into_iter().map(move |usage| LimitName {
                account_id: account.to_string(),
                requests: usage.limit.requests,
                per_seconds: usage.limit.per.as_secs(),
            })
        });
        names.collect()
    }

    pub(super) fn history_status(&self) -> HistoryStatus {
        self.observe();
        let minutes = self.history().minutes().map(MinuteStatus::from).collect();
        HistoryStatus { kept_minutes: MINUTES, limits: self.limit_names(), minutes }
    }
}

impl From<&Sample> for MinuteStatus {
    fn from(Sample { start, counts, least_left }: &Sample) -> Self {
        let Totals { requests, made, .. } = *counts;
        Self {
            start: start.to_string(),
            requests,
            calls_made: made,
            calls_without_koregate: counts.alone(),
            least_left: least_left.clone(),
        }
    }
}
