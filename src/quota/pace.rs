//! The pace of an account or a caller. The one file that names governor.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::ledger::Tick;
use crate::config::Limit;

/// Governor's view of tokio's clock, which tests can pause.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

/// Time since the clock was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Elapsed(Duration);

impl Reference for Elapsed {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.into()))
    }
}

impl std::ops::Add<Nanos> for Elapsed {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0 + Duration::from(duration))
    }
}

impl Clock for TokioClock {
    type Instant = Elapsed;

    fn now(&self) -> Elapsed {
        Elapsed(self.0.elapsed())
    }
}

/// A token bucket: lets calls through at a steady pace, with a burst.
#[derive(Debug)]
pub struct Pace(RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Elapsed>>);

impl Pace {
    /// The pace of the shortest of `limits`, counted from `epoch`.
    ///
    /// A burst of the whole limit would make the next call wait for nearly the whole window; the burst is cut to what
    /// leaves that wait within two thirds of `queue_timeout`, so that a run of many pages is never turned away halfway.
    /// Where even one call's share of the window is longer than that, no pace could help, and there is none.
    /// The pace costs no quota: in a standing demand the ledger, not the pace, is what calls wait for.
    pub fn bearable(limits: &[Limit], queue_timeout: Duration, epoch: Instant) -> Option<Self> {
        let limit = limits.iter().min_by_key(|limit| limit.per)?;
        let bearable = limit.per.min(queue_timeout * 2 / 3);
        let burst = u128::from(limit.requests) * bearable.as_nanos() / limit.per.as_nanos().max(1);
        match u32::try_from(burst).unwrap_or(u32::MAX) {
            0 => None,
            burst => Self::with_burst(*limit, burst, epoch),
        }
    }

    /// The pace of `limit` with a burst of its own, at least one call; `None` if the limit lets nothing through.
    pub fn with_burst(limit: Limit, burst: u32, epoch: Instant) -> Option<Self> {
        let requests = NonZeroU32::new(limit.requests)?;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(limit.per / requests.get())?.allow_burst(burst);
        Some(Self(RateLimiter::direct_with_clock(quota, TokioClock(epoch))))
    }

    /// Lets one call through at `now`, or says when it may come again.
    pub fn admit(&self, now: Tick) -> Result<(), Tick> {
        self.0.check().map_err(|not_yet| now + not_yet.wait_time_from(Elapsed(now)))
    }
}
