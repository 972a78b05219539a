//! The callers' own limits of upstream calls (`upstream_calls_per_hour` and `upstream_calls_per_day`) for one account:
//! an exact sliding-window log of each limited caller. Pure: time is an argument.
//!
//! A call is paid by the requester that caused its run. While that one's calls are spent, another request that waits
//! for the run pays, if its own are not: a caller never gets an error because of another caller's limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Ledger, MonotonicTime};
use crate::config::{CallerConfig, CallerLimits, LimitMode, QuotaLimit};
use crate::request::Requester;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The calls that a limit of a caller allows are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerLimitExceeded {
    /// Length of the rolling window of the limit.
    pub per: Duration,
    /// Time until one more call is allowed, as far as is known now.
    pub retry_after: Duration,
}

impl CallerLimitExceeded {
    /// The limit of an hour is spent.
    #[cfg(test)]
    pub(crate) fn an_hour(retry_after: Duration) -> Self {
        Self { per: HOUR, retry_after }
    }

    /// The label in metrics: the key that sets the limit.
    pub fn label(&self) -> &'static str {
        if self.per == DAY { "upstream_calls_per_day" } else { "upstream_calls_per_hour" }
    }
}

/// The limits and calls of all callers that have limits.
#[derive(Debug, Default)]
pub(in crate::quota) struct CallerBudgets(HashMap<Arc<str>, Budget>);

#[derive(Debug)]
struct Budget {
    mode: LimitMode,
    calls: Ledger,
}

/// The requester that pays for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::quota) struct Payer {
    /// The requester.
    pub(in crate::quota) requester: Requester,
    /// The limit that the call exceeds, if the limits of the caller are only counted.
    pub(in crate::quota) exceeded: Option<CallerLimitExceeded>,
}

impl CallerBudgets {
    /// Sets the limits of all callers. The calls of a caller that had limits before are kept.
    pub(in crate::quota) fn set(&mut self, callers: &[CallerConfig]) {
        let mut before = std::mem::take(&mut self.0);
        for CallerConfig { name, limits, .. } in callers {
            let (mode, limits) = (limits.mode, rolling(limits));
            if limits.is_empty() {
                continue;
            }
            let mut calls = before.remove(name).map_or_else(|| Ledger::new(Vec::new()), |budget| budget.calls);
            calls.set_limits(&limits);
            self.0.insert(name.clone(), Budget { mode, calls });
        }
    }

    /// Whether no caller has limits.
    pub(in crate::quota) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of `requesters` whose calls are not spent at `now`.
    ///
    /// # Errors
    /// If the calls of all are spent: the limit that allows one more call first.
    pub(in crate::quota) fn payer(
        &self,
        requesters: impl IntoIterator<Item = Requester>,
        now: MonotonicTime,
    ) -> Result<Payer, CallerLimitExceeded> {
        let mut first_free: Option<CallerLimitExceeded> = None;
        for requester in requesters {
            let budget = self.0.get(&requester.caller);
            let Some((budget, exceeded)) = budget.and_then(|budget| Some((budget, budget.exceeded(now)?))) else {
                return Ok(Payer { requester, exceeded: None });
            };
            if budget.mode == LimitMode::Shadow {
                return Ok(Payer { requester, exceeded: Some(exceeded) });
            }
            if first_free.is_none_or(|first| exceeded.retry_after < first.retry_after) {
                first_free = Some(exceeded);
            }
        }
        // There is at least one requester, the one that caused the run.
        Err(first_free.unwrap_or(CallerLimitExceeded { per: HOUR, retry_after: HOUR }))
    }

    /// A call begins that `caller` pays.
    pub(in crate::quota) fn begin(&mut self, caller: &str) {
        if let Some(budget) = self.0.get_mut(caller) {
            budget.calls.begin();
        }
    }

    /// A call of `caller` has ended at `now`.
    pub(in crate::quota) fn end(&mut self, now: MonotonicTime, caller: &Arc<str>) {
        if let Some(budget) = self.0.get_mut(caller) {
            budget.calls.end(now, caller);
        }
    }

    /// A call of `caller` did not reach the upstream.
    pub(in crate::quota) fn refund(&mut self, caller: &str) {
        if let Some(budget) = self.0.get_mut(caller) {
            budget.calls.refund();
        }
    }
}

impl Budget {
    /// The limit that one more call would exceed, if there is one: of several, the one that allows it last.
    fn exceeded(&self, now: MonotonicTime) -> Option<CallerLimitExceeded> {
        let spent = self.calls.limit_usage(now).filter(|usage| usage.remaining == 0);
        let exceeded = spent
            .map(|usage| CallerLimitExceeded { per: usage.limit.per, retry_after: usage.more_in.unwrap_or_default() });
        exceeded.max_by_key(|exceeded| exceeded.retry_after)
    }
}

fn rolling(limits: &CallerLimits) -> Vec<QuotaLimit> {
    let CallerLimits { upstream_calls_per_hour, upstream_calls_per_day, .. } = limits;
    let limits = [(upstream_calls_per_hour, HOUR), (upstream_calls_per_day, DAY)];
    limits.into_iter().filter_map(|(most, per)| most.map(|most| QuotaLimit { requests: most.get(), per })).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{NamePatterns, PriorityClass};
    use crate::request::Priority;

    fn caller(name: &str, per_hour: u32, per_day: u32, mode: LimitMode) -> CallerConfig {
        let count = std::num::NonZeroU32::new;
        CallerConfig {
            name: name.into(),
            api_key_sha256: Vec::new(),
            certificate_san: None,
            accounts: NamePatterns::All,
            streams: NamePatterns::All,
            weight: 1,
            cache_control: crate::config::CacheControlGrants::default(),
            max_priority: PriorityClass::Interactive,
            not_after: None,
            limits: CallerLimits {
                upstream_calls_per_hour: count(per_hour),
                upstream_calls_per_day: count(per_day),
                mode,
                ..CallerLimits::default()
            },
        }
    }

    fn budgets(callers: &[CallerConfig]) -> CallerBudgets {
        let mut budgets = CallerBudgets::default();
        budgets.set(callers);
        budgets
    }

    fn requester(name: &str) -> Requester {
        Requester { caller: name.into(), weight: 1, priority: Priority::Interactive }
    }

    /// Far behind the epoch, before which no time lies.
    const START: MonotonicTime = Duration::from_hours(48);

    proptest! {
        /// Against a log in which each window is counted anew.
        #[test]
        fn no_rolling_window_holds_more_calls_than_its_limit(
            per_hour in 0u32..6, per_day in 0u32..12, pauses in prop::collection::vec(0u64..4000, 1..80),
        ) {
            let mut budgets = budgets(&[caller("a", per_hour, per_day, LimitMode::Enforce)]);
            let mut made: Vec<MonotonicTime> = Vec::new();
            let mut now = START;
            for pause in pauses {
                now += Duration::from_secs(pause);
                let in_window = |per: Duration| made.iter().filter(|at| **at + per > now).count();
                let is_allowed = |most: u32, per| most == 0 || in_window(per) < most as usize;
                let expected = is_allowed(per_hour, HOUR) && is_allowed(per_day, DAY);
                match budgets.payer([requester("a")], now) {
                    Ok(_) => {
                        prop_assert!(expected);
                        budgets.begin("a");
                        budgets.end(now, &"a".into());
                        made.push(now);
                    }
                    Err(exceeded) => {
                        // The guard of the ledger delays it by milliseconds.
                        let is_guard = exceeded.retry_after <= super::super::ledger::GUARD;
                        prop_assert!(!expected || is_guard);
                        prop_assert!(budgets.payer([requester("a")], now + exceeded.retry_after).is_ok());
                    }
                }
            }
        }
    }

    #[test]
    fn another_waiting_caller_pays_when_the_first_has_spent() {
        let mut budgets = budgets(&[caller("a", 1, 0, LimitMode::Enforce), caller("b", 0, 2, LimitMode::Enforce)]);
        let payer = |budgets: &CallerBudgets, names: &[&str]| {
            let requesters: Vec<_> = names.iter().map(|name| requester(name)).collect();
            budgets.payer(requesters, START).map(|payer| payer.requester.caller.to_string())
        };
        assert_eq!(payer(&budgets, &["a", "b"]), Ok("a".to_owned()));
        budgets.begin("a");
        assert_eq!(payer(&budgets, &["a", "b"]), Ok("b".to_owned()), "a call in flight counts");
        assert_eq!(payer(&budgets, &["a", "free"]), Ok("free".to_owned()), "a caller without limits");
        budgets.begin("b");
        budgets.begin("b");
        let exceeded = payer(&budgets, &["b", "a"]).unwrap_err();
        assert_eq!((exceeded.per, exceeded.label()), (HOUR, "upstream_calls_per_hour"), "the first that is free again");
        assert_eq!(payer(&budgets, &["b"]).unwrap_err().label(), "upstream_calls_per_day");
        budgets.refund("a");
        assert_eq!(payer(&budgets, &["b", "a"]), Ok("a".to_owned()));
    }

    #[test]
    fn shadow_limit_is_counted_and_pays() {
        let mut budgets = budgets(&[caller("a", 1, 0, LimitMode::Shadow)]);
        assert_eq!(budgets.payer([requester("a")], START).unwrap().exceeded, None);
        budgets.begin("a");
        assert!(budgets.payer([requester("a")], START).unwrap().exceeded.is_some());
    }

    #[test]
    fn calls_are_kept_when_other_settings_change() {
        let mut budgets = budgets(&[caller("a", 1, 0, LimitMode::Shadow)]);
        budgets.begin("a");
        budgets.set(&[caller("a", 1, 0, LimitMode::Enforce), caller("b", 1, 0, LimitMode::Enforce)]);
        assert!(budgets.payer([requester("a")], START).is_err());
        budgets.set(&[]);
        assert!(budgets.payer([requester("a")], START).is_ok());
    }
}
