//! The ways in which an upstream goes wrong, and when.

use std::time::Duration;

use serde::Deserialize;

/// One way to go wrong. A faulted call has passed the token, the limits and the arguments: it would have been a 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 500 with Kore's form of an error.
    #[value(name = "status-500")]
    #[serde(rename = "status-500")]
    Status500,
    /// 502 with a proxy's page of HTML.
    #[value(name = "html-502")]
    #[serde(rename = "html-502")]
    Html502,
    /// 429 with `Retry-After`: [`FaultPlan::retry_after`].
    TooMany,
    /// 429 without `Retry-After`.
    TooManySilent,
    /// 401 `Invalid SDK credentials`.
    Unauthorized,
    /// The connection is reset (RST) in place of an answer.
    Reset,
    /// The body ends, and the connection with it, before `content-length` is reached.
    Truncated,
    /// A whole HTTP answer whose JSON is cut in the middle.
    TruncatedJson,
    /// 200 with random bytes.
    Garbage,
    /// 200 with a page of HTML.
    #[value(name = "html-200")]
    #[serde(rename = "html-200")]
    Html200,
    /// 200 without a body.
    EmptyBody,
    /// The true answer, its headers only after [`FaultPlan::delay`].
    Slow,
    /// The true answer, which stalls in its middle for [`FaultPlan::delay`].
    SlowBody,
    /// The true items, with a `numResults` that is not their number.
    WrongCount,
    /// No items, and `hasMore` true.
    EmptyPage,
}

/// Which fault, and for which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// What goes wrong.
    pub fault: Fault,
    /// How many good calls pass before the first fault.
    pub after: u64,
    /// How many calls go wrong then; `None`: all, until the plan is changed.
    pub times: Option<u64>,
    /// How long [`Fault::Slow`] and [`Fault::SlowBody`] wait.
    pub delay: Duration,
    /// What [`Fault::TooMany`] says in `Retry-After`, in whole seconds.
    pub retry_after: Duration,
}

impl FaultPlan {
    /// Every call from now on goes wrong; slow faults take a minute, `Retry-After` says 1 s.
    pub const fn always(fault: Fault) -> Self {
        Self { fault, after: 0, times: None, delay: Duration::from_mins(1), retry_after: Duration::from_secs(1) }
    }

    /// The next `times` calls go wrong.
    pub const fn times(fault: Fault, times: u64) -> Self {
        Self { times: Some(times), ..Self::always(fault) }
    }

    /// The same, but `good` calls pass first.
    #[must_use]
    pub const fn after(self, good: u64) -> Self {
        Self { after: good, ..self }
    }

    /// The same, with another delay for the slow faults.
    #[must_use]
    pub const fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, with another `Retry-After`, rounded down to whole seconds.
    #[must_use]
    pub const fn retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after, ..self }
    }

    /// Counts one call against the plan; the fault, if it is this call's turn.
    pub(super) fn take(&mut self) -> Option<Fault> {
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        match &mut self.times {
            None => Some(self.fault),
            Some(0) => None,
            Some(times) => {
                *times -= 1;
                Some(self.fault)
            }
        }
    }
}

/// A plan as `POST /simulator/faults` takes it; without a `kind` (or with null) faults end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultOrder {
    kind: Option<Fault>,
    times: Option<u64>,
    #[serde(default)]
    after: u64,
    delay_ms: Option<u64>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl FaultOrder {
    /// The plan that was asked for.
    pub(super) fn plan(self) -> Option<FaultPlan> {
        let mut plan = FaultPlan { times: self.times, after: self.after, ..FaultPlan::always(self.kind?) };
        if let Some(millis) = self.delay_ms {
            plan.delay = Duration::from_millis(millis);
        }
        if let Some(seconds) = self.retry_after {
            plan.retry_after = Duration::from_secs(seconds);
        }
        Some(plan)
    }
}
