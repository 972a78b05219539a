//! The answer to a dry run: the cost of a window.

use std::time::Duration;

use serde::Serialize;

use crate::cache::Cost;
use crate::config::WindowSettings;
use crate::quota::QuotaManager;
use crate::request::Priority;
use crate::units::seconds;
use crate::window::{Interval, UpperBound};

/// The body of a dry run.
#[derive(Debug, Serialize)]
pub(super) struct CostBody {
    calls: Calls,
    /// Time that the calls would wait for the quota, in seconds.
    seconds: f64,
    chunks: usize,
    hits: usize,
    missing: Vec<IntervalBody>,
    under_way: Vec<IntervalBody>,
    basis: Basis,
    /// The time before which data is settled.
    settled_until: String,
    source: SourceBody,
}

/// The account of the window, and the settings that decide which items are in it.
#[derive(Debug, Serialize)]
struct SourceBody {
    account_id: String,
    field: String,
    upper_bound: UpperBound,
}

#[derive(Debug, Serialize)]
struct Calls {
    at_least: usize,
    expected: Option<u64>,
}

#[derive(Debug, Serialize)]
struct IntervalBody {
    from: String,
    /// The first timestamp after the interval.
    to: String,
}

#[derive(Debug, Serialize)]
struct Basis {
    of: &'static str,
    items: u64,
    seconds: u64,
}

impl CostBody {
    /// The cost of a window of `account`, whose stream has these settings, at the priority `priority`.
    pub(super) fn new(
        cost: &Cost,
        quotas: &QuotaManager,
        (account, settings): (&str, &WindowSettings),
        priority: Priority,
    ) -> Self {
        let calls = Calls { at_least: cost.runs.len(), expected: cost.expected };
        let likely = calls.expected.unwrap_or(calls.at_least as u64);
        let likely = u32::try_from(likely).unwrap_or(u32::MAX);
        let wait = quotas.scheduler(account).map_or(Duration::ZERO, |scheduler| scheduler.forecast(likely, priority));
        let bodies = |intervals: &[Interval]| intervals.iter().copied().map(IntervalBody::from).collect();
        Self {
            calls,
            seconds: seconds(wait),
            chunks: cost.chunks,
            hits: cost.hits,
            missing: bodies(&cost.runs),
            under_way: bodies(&cost.under_way),
            basis: Basis {
                of: cost.basis.source.label(),
                items: cost.basis.items,
                seconds: cost.basis.length.as_secs(),
            },
            settled_until: cost.settled_until.to_string(),
            source: SourceBody {
                account_id: account.to_owned(),
                field: settings.field.to_string(),
                upper_bound: settings.upper_bound,
            },
        }
    }
}

impl From<Interval> for IntervalBody {
    fn from(interval: Interval) -> Self {
        Self { from: interval.start.to_string(), to: interval.end.to_string() }
    }
}
