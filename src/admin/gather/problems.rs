//! The last problems, and the calls of the last hours.

use crate::admin::state::Admin;
use crate::admin::views::history::MINUTES;
use crate::admin::views::problems::{HistoryStatus, LimitName, MinuteStatus, ProblemStatus, ProblemsStatus};

impl Admin {
    pub(in crate::admin) fn recent_problems(&self) -> ProblemsStatus {
        let problems = self.0.handles.ends.problems.all().into_iter().map(ProblemStatus::from);
        ProblemsStatus { problems: problems.collect() }
    }

    /// The limits in the order of the history.
    pub(in crate::admin) fn limit_names(&self) -> Vec<LimitName> {
        let names = self.schedulers().into_iter().flat_map(|(account, scheduler)| {
            scheduler.limit_usage().into_iter().map(move |usage| LimitName {
                account_id: account.to_string(),
                requests: usage.limit.requests,
                per_seconds: usage.limit.per.as_secs(),
            })
        });
        names.collect()
    }

    pub(in crate::admin) fn history_status(&self) -> HistoryStatus {
        self.observe();
        let minutes = self.history().minutes().map(MinuteStatus::from).collect();
        HistoryStatus { kept_minutes: MINUTES, limits: self.limit_names(), minutes }
    }
}
