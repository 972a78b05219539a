//! A point in time with saturating arithmetic.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;

const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch.
///
/// The representable range is 1677 to 2262. Conversions and arithmetic saturate at its ends, so that no date in a
/// request can cause an overflow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnixTime(i64);

impl UnixTime {
    pub(crate) const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(NANOS_PER_MILLI))
    }

    pub(crate) const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Milliseconds since the epoch, rounded down.
    pub(crate) const fn as_millis(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MILLI)
    }

    /// Seconds since the epoch, rounded down.
    pub(crate) const fn as_seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// The exclusive upper bound that is equivalent to this inclusive one.
    pub(crate) const fn next_nanosecond(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The start of the UTC day that contains this point.
    pub(crate) const fn start_of_day(self) -> Self {
        Self::from_seconds(self.as_seconds().div_euclid(86_400).saturating_mul(86_400))
    }

    /// The time from `earlier` to this point; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// `duration` in nanoseconds, saturating at 292 years.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl From<Timestamp> for UnixTime {
    fn from(timestamp: Timestamp) -> Self {
        let nanos = timestamp.as_nanosecond();
        Self(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<UnixTime> for Timestamp {
    /// Lossless, because the range of [`Timestamp`] is wider.
    fn from(time: UnixTime) -> Self {
        Self::from_nanosecond(i128::from(time.0)).unwrap_or_default()
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Timestamp::from(*self), f)
    }
}
