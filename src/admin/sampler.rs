//! The task that observes the gateway for the history and the recent problems of the status page.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::state::Admin;
use super::views::history::CallTotals;
use crate::api::CallerUsage;
use crate::edge::ProblemSource;
use crate::window::Timestamp;

/// The interval of observations.
const INTERVAL: Duration = Duration::from_secs(5);

/// The problems of the last observation, so that each one is recorded when it begins.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Texts without digits: some count seconds.
    problems: Vec<String>,
    /// When the last failed call of an account ended.
    failures: HashMap<String, Timestamp>,
}

impl Admin {
    /// Observes until `closing`.
    pub async fn observe_until(self, closing: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut seen = Seen::default();
        while closing.run_until_cancelled(ticks.tick()).await.is_some() {
            self.observe();
            self.record_problems(&mut seen);
        }
    }

    /// Adds what was counted since the last observation to the history.
    pub(super) fn observe(&self) {
        let usage = self.schedulers().into_iter().flat_map(|(_, scheduler)| scheduler.limit_usage());
        let left: Vec<u32> = usage.map(|usage| usage.remaining).collect();
        self.history().observe(self.0.clock.now(), self.totals(), &left);
    }

    /// The counters of all callers since the start.
    pub(super) fn totals(&self) -> CallTotals {
        let add = |sum: CallTotals, caller: &CallerUsage| {
            let (requests, made, saved) = caller.total();
            CallTotals { requests: sum.requests + requests, made: sum.made + made, saved: sum.saved + saved }
        };
        self.callers().iter().fold(CallTotals::default(), add)
    }

    fn record_problems(&self, seen: &mut Seen) {
        let (now, recent) = (self.0.clock.now(), &self.0.handles.ends.problems);
        let problems = self.0.problems();
        for problem in begun(&mut seen.problems, &problems) {
            recent.record(now, ProblemSource::Gateway, "degraded", problem);
        }
        for (account, _) in self.schedulers() {
            let Some(failure) = self.0.handles.upstream_health.of(&account).last_failure else { continue };
            if seen.failures.insert(account.to_string(), failure.at) != Some(failure.at) {
                let text = format!("account {account}: {}", failure.why);
                recent.record(failure.at, ProblemSource::Gateway, "upstream", &text);
            }
        }
    }
}

/// The problems that were not there before. Numbers in their texts do not count.
fn begun<'a>(seen: &mut Vec<String>, problems: &'a [String]) -> Vec<&'a str> {
    let shape = |problem: &String| problem.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let shapes: Vec<String> = problems.iter().map(shape).collect();
    let is_new = |(problem, shape): (&'a String, &String)| (!seen.contains(shape)).then_some(problem.as_str());
    let begun = problems.iter().zip(&shapes).filter_map(is_new).collect();
    *seen = shapes;
    begun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_begins_once_although_its_numbers_change() {
        let mut seen = Vec::new();
        let problems = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(begun(&mut seen, &problems(&["closed for 12 s"])), ["closed for 12 s"]);
        assert!(begun(&mut seen, &problems(&["closed for 7 s"])).is_empty());
        assert_eq!(begun(&mut seen, &problems(&["closed for 2 s", "Redis is away"])), ["Redis is away"]);
        assert!(begun(&mut seen, &[]).is_empty());
        assert_eq!(begun(&mut seen, &problems(&["Redis is away"])), ["Redis is away"]);
    }
}
