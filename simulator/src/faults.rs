//! The faults that the simulator can inject, and when it injects them.

use std::time::Duration;

use serde::Deserialize;

/// A fault. Faults apply to calls that have passed all checks of token, limits and arguments, and would return 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 500 with an error in Kore's form.
    #[value(name = "status-500")]
    #[serde(rename = "status-500")]
    Status500,
    /// 502 with the HTML page of a proxy.
    #[value(name = "html-502")]
    #[serde(rename = "html-502")]
    Html502,
    /// 429 with `Retry-After`: [`FaultPlan::retry_after`].
    TooMany,
    /// 429 without `Retry-After`.
    TooManySilent,
    /// 401 `Invalid SDK credentials`.
    Unauthorized,
    /// A reset (RST) of the connection instead of a response.
    Reset,
    /// A connection that closes before `content-length` is reached.
    Truncated,
    /// A complete HTTP response whose JSON is cut in the middle.
    TruncatedJson,
    /// 200 with random bytes.
    Garbage,
    /// 200 with an HTML page.
    #[value(name = "html-200")]
    #[serde(rename = "html-200")]
    Html200,
    /// 200 without a body.
    EmptyBody,
    /// The correct response, its headers only after [`FaultPlan::delay`].
    Slow,
    /// The correct response, which stalls in the middle for [`FaultPlan::delay`].
    SlowBody,
    /// The correct items, with a `numResults` that is not their number.
    WrongCount,
    /// No items, and `hasMore` true.
    EmptyPage,
}

/// A fault and the calls that it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// The fault.
    pub fault: Fault,
    /// The number of calls that succeed before the first fault.
    pub after: u64,
    /// The number of calls that fail; `None` means all, until the plan is replaced.
    pub times: Option<u64>,
    /// The delay of [`Fault::Slow`] and [`Fault::SlowBody`].
    pub delay: Duration,
    /// The `Retry-After` of [`Fault::TooMany`], in whole seconds.
    pub retry_after: Duration,
}

impl FaultPlan {
    /// A plan by which all calls fail. Slow faults take one minute, and `Retry-After` is 1 s.
    pub const fn always(fault: Fault) -> Self {
        Self { fault, after: 0, times: None, delay: Duration::from_mins(1), retry_after: Duration::from_secs(1) }
    }

    /// A plan by which the next `times` calls fail.
    pub const fn times(fault: Fault, times: u64) -> Self {
        Self { times: Some(times), ..Self::always(fault) }
    }

    /// Lets `calls` calls succeed before the first fault.
    #[must_use]
    pub const fn after(self, calls: u64) -> Self {
        Self { after: calls, ..self }
    }

    /// Sets the delay of the slow faults.
    #[must_use]
    pub const fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Sets `Retry-After`, which is rounded down to whole seconds.
    #[must_use]
    pub const fn retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after, ..self }
    }

    /// Counts one call against the plan. Returns the fault if the call is to fail.
    pub(crate) fn next_fault(&mut self) -> Option<Fault> {
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

/// The body of `POST /simulator/faults`. Without a `kind`, or with null, the plan in effect ends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultRequest {
    kind: Option<Fault>,
    times: Option<u64>,
    #[serde(default)]
    after: u64,
    delay_ms: Option<u64>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl FaultRequest {
    /// The requested plan.
    pub(crate) fn into_plan(self) -> Option<FaultPlan> {
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
