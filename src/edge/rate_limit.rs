//! The rate limit of a caller, as a token bucket. The only file that names governor.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::quota::MonotonicTime;
use crate::request::RateLimitStatus;

/// tokio's clock for governor, which tests can pause.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

/// Time since the clock was created.
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

const MINUTE: Duration = Duration::from_mins(1);

/// A token bucket for the requests of one caller: as many as its limit at once, and then at the limit's rate.
///
/// Each configured caller has one, and nobody else does, so unknown keys cannot create buckets.
#[derive(Debug)]
pub(super) struct CallerRateLimit {
    limiter: RateLimiter<NotKeyed, Shared, TokioClock, StateInformationMiddleware>,
    /// The limiter's state, which the limiter itself does not expose.
    state: Shared,
    /// Requests per minute.
    limit: NonZeroU32,
}

impl CallerRateLimit {
    /// A full bucket for `limit` requests per minute.
    pub(super) fn per_minute(limit: NonZeroU32) -> Self {
        let state = Shared::default();
        let limiter = RateLimiter::new(Quota::per_minute(limit), state.clone(), TokioClock(Instant::now()));
        Self { limiter, state, limit }
    }

    /// Requests per minute.
    pub(super) fn limit(&self) -> NonZeroU32 {
        self.limit
    }

    /// Takes one request, or returns the wait until one is admitted; and the state of the bucket afterwards.
    pub(super) fn take(&self) -> (Result<(), Duration>, RateLimitStatus) {
        let checked = self.limiter.check();
        let now = self.limiter.clock().now();
        let (result, left) = match checked {
            Ok(after) => (Ok(()), after.remaining_burst_capacity()),
            Err(not_yet) => (Err(not_yet.wait_time_from(now)), 0),
        };
        let full_in = self.state.full_at().saturating_sub(now.0).max(result.err().unwrap_or_default());
        (result, self.status(left, full_in))
    }

    /// State of the bucket; takes nothing.
    pub(super) fn limit_status(&self) -> RateLimitStatus {
        let full_in = self.state.full_at().saturating_sub(self.limiter.clock().now().0);
        let missing = u32::try_from(full_in.as_nanos().div_ceil(self.refill_nanos())).unwrap_or(u32::MAX);
        self.status(self.limit.get().saturating_sub(missing), full_in)
    }

    fn status(&self, left: u32, full_in: Duration) -> RateLimitStatus {
        let missing = full_in.as_nanos().checked_sub(1);
        let more_in = missing.and_then(|missing| u64::try_from(missing % self.refill_nanos() + 1).ok());
        RateLimitStatus { limit: self.limit.get(), left, more_in: more_in.map(Duration::from_nanos), full_in }
    }

    /// Time in which one request is added to the bucket.
    fn refill_nanos(&self) -> u128 {
        (MINUTE / self.limit.get()).as_nanos().max(1)
    }
}

/// governor's state of a bucket, readable from outside.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<InMemoryState>);

impl Shared {
    /// When the bucket is full, as time since its creation.
    fn full_at(&self) -> MonotonicTime {
        // Returning an error leaves the state unchanged.
        let Err(full_at) = self.0.measure_and_replace(&NotKeyed::NonKey, Err::<(Infallible, Nanos), _>);
        full_at.map_or(MonotonicTime::ZERO, Into::into)
    }
}

impl StateStore for Shared {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn bucket(limit: u32) -> CallerRateLimit {
        CallerRateLimit::per_minute(NonZeroU32::new(limit).unwrap())
    }

    /// `full_in` is in seconds, for a bucket that is refilled every 20 or 60 seconds.
    fn limit_status(limit: u32, left: u32, full_in: u64) -> RateLimitStatus {
        let refill = 60 / u64::from(limit);
        let more_in = full_in.checked_sub(1).map(|rest| Duration::from_secs(rest % refill + 1));
        RateLimitStatus { limit, left, more_in, full_in: Duration::from_secs(full_in) }
    }

    #[tokio::test(start_paused = true)]
    async fn status_reports_what_is_left_and_when_full() {
        let bucket = bucket(3);
        assert_eq!(bucket.take(), (Ok(()), limit_status(3, 2, 20)));
        assert_eq!(bucket.take(), (Ok(()), limit_status(3, 1, 40)));
        assert_eq!(bucket.limit_status(), limit_status(3, 1, 40), "to look takes nothing out");
        advance(Duration::from_secs(5)).await;
        assert_eq!(bucket.limit_status(), limit_status(3, 1, 35));
        assert_eq!(bucket.take(), (Ok(()), limit_status(3, 0, 55)));
        assert_eq!(bucket.limit_status(), limit_status(3, 0, 55));
        assert_eq!(bucket.take(), (Err(Duration::from_secs(15)), limit_status(3, 0, 55)));
        // A refused request costs nothing.
        assert_eq!(bucket.take(), (Err(Duration::from_secs(15)), limit_status(3, 0, 55)));
        advance(Duration::from_secs(15)).await;
        assert_eq!(bucket.take(), (Ok(()), limit_status(3, 0, 60)));
        advance(Duration::from_hours(1)).await;
        assert_eq!(bucket.limit_status(), limit_status(3, 3, 0));
        assert_eq!(bucket.take(), (Ok(()), limit_status(3, 2, 20)));
    }

    #[tokio::test(start_paused = true)]
    async fn smallest_and_largest_limit_hold() {
        let one = bucket(1);
        assert_eq!(one.take(), (Ok(()), limit_status(1, 0, 60)));
        assert_eq!(one.take(), (Err(Duration::from_mins(1)), limit_status(1, 0, 60)));
        let many = bucket(u32::MAX);
        let (result, limit_status) = many.take();
        assert_eq!((result, limit_status.left), (Ok(()), u32::MAX - 1));
        assert!(limit_status.full_in > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_request_is_admitted_when_the_status_says_so() {
        let bucket = bucket(600);
        assert_eq!(bucket.limit_status().more_in, None, "a full bucket");
        for taken in 1..=600 {
            assert_eq!(bucket.take().1.more_in, Some(Duration::from_millis(100)), "{taken}");
        }
        advance(Duration::from_millis(30)).await;
        let (refused, status) = bucket.take();
        assert_eq!((refused, status.more_in), (Err(Duration::from_millis(70)), Some(Duration::from_millis(70))));
        advance(Duration::from_millis(70)).await;
        assert_eq!(bucket.limit_status().left, 1);
    }
}
