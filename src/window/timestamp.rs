//! A point in time (UTC), exact to the nanosecond.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, UTC.
///
/// One nanosecond is the resolution of the gateway: an inclusive bound `t` is the exclusive bound `t + 1 ns`.
/// The representable range is 1677 to 2262; arithmetic saturates at its ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest timestamp.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest timestamp.
    pub const MAX: Self = Self(i64::MAX);

    /// A timestamp from nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A timestamp from milliseconds since the epoch, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// A timestamp from whole seconds since the epoch, saturating.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded towards the past.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// The next nanosecond: turns an inclusive upper bound into an exclusive one.
    #[must_use]
    pub const fn next_tick(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The nanosecond before: turns an exclusive upper bound into an inclusive one.
    #[must_use]
    pub const fn previous_tick(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Whether the day is a Saturday or a Sunday, UTC.
    pub const fn is_weekend(self) -> bool {
        // The epoch was a Thursday.
        let days_since_monday = (self.as_seconds().div_euclid(24 * 3600) + 3).rem_euclid(7);
        days_since_monday >= 5
    }

    /// The latest whole second that is not after this timestamp.
    #[must_use]
    pub const fn floor_second(self) -> Self {
        Self::from_seconds(self.as_seconds())
    }

    /// The earliest whole second that is not before this timestamp.
    #[must_use]
    pub const fn ceil_second(self) -> Self {
        let floor = self.floor_second();
        if floor.0 == self.0 { floor } else { Self::from_seconds(self.as_seconds() + 1) }
    }

    /// The latest multiple of `step` (counted from the epoch) that is not after this timestamp.
    ///
    /// A `step` of zero leaves the timestamp unchanged.
    #[must_use]
    pub fn floor_to(self, step: Duration) -> Self {
        match nanos(step) {
            0 => self,
            step => Self(self.0.div_euclid(step).saturating_mul(step)),
        }
    }

    /// Whether this is exactly the beginning of a UTC day.
    pub const fn is_midnight(self) -> bool {
        self.0.rem_euclid(NANOS_PER_SECOND * SECONDS_PER_DAY) == 0
    }

    /// The time that passed from `earlier` to this timestamp; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// The same timestamp for jiff's formatting. Total, because jiff's range includes ours.
    pub fn to_timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
    }
}

/// A duration in nanoseconds, saturating at 292 years.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(timestamp: jiff::Timestamp) -> Self {
        let nanos = timestamp.as_nanosecond();
        Self(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_timestamp()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_timestamp().fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_timestamp().fmt(f)
    }
}
