//! The wall clock: settable in tests, and compared with the upstream's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use crate::window::Timestamp;

/// Largest difference between the clocks of this machine, of other replicas and of the upstream that is tolerated.
pub const SKEW: Duration = Duration::from_mins(1);
/// Number of consecutive answers with a larger difference that show that this machine's clock is wrong.
const ANSWERS_TO_BE_WRONG: u32 = 3;

/// The time of day: the machine's, or one that is set by hand. All clones are the same clock.
///
/// Only the time of day comes from here (what is settled, the age of entries, the expiry of tokens). Waits and rolling
/// limits use tokio's monotonic clock, which clock steps do not affect.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicI64>>,
    compared: Arc<Compared>,
}

/// Comparison with the upstream's clock.
#[derive(Debug, Default)]
struct Compared {
    /// Nanoseconds by which this clock was ahead at the last answer; 0 within [`SKEW`].
    ahead: AtomicI64,
    /// Number of consecutive answers with a larger difference, in either direction.
    off: AtomicU32,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now` until [`Clock::set`] moves it, together with its clones.
    pub fn manual(now: Timestamp) -> Self {
        Self { by_hand: Some(Arc::new(AtomicI64::new(now.as_nanos()))), compared: Arc::default() }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        match &self.by_hand {
            None => jiff::Timestamp::now().into(),
            Some(nanos) => Timestamp::from_nanos(nanos.load(Ordering::SeqCst)),
        }
    }

    /// Sets a manual clock; has no effect on the machine's clock.
    pub fn set(&self, now: Timestamp) {
        if let Some(nanos) = &self.by_hand {
            nanos.store(now.as_nanos(), Ordering::SeqCst);
        }
    }

    /// Compares the clock with the `Date` of an upstream answer (whole seconds) to a request sent at `asked_at`.
    /// Returns `Some` if the comparison changes whether the clock counts as wrong.
    pub fn compare(&self, asked_at: Timestamp, date: Timestamp) -> Option<bool> {
        let latest = date + Duration::from_secs(1);
        let ahead = if asked_at > latest { asked_at.since(latest) } else { Duration::ZERO };
        let is_ahead = ahead > SKEW;
        let is_behind = date > self.now() + SKEW;
        let nanos = if is_ahead { i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX) } else { 0 };
        self.compared.ahead.store(nanos, Ordering::Relaxed);
        if is_ahead || is_behind {
            let off = self.compared.off.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            (off == ANSWERS_TO_BE_WRONG).then_some(true)
        } else {
            let off = self.compared.off.swap(0, Ordering::Relaxed);
            (off >= ANSWERS_TO_BE_WRONG).then_some(false)
        }
    }

    /// Time by which the clock was ahead of the upstream's at its last answer; zero within [`SKEW`].
    pub fn ahead(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.compared.ahead.load(Ordering::Relaxed)).unwrap_or_default())
    }

    /// Whether the clock cannot be trusted: at least the last three upstream answers differed by more than [`SKEW`].
    pub fn is_wrong(&self) -> bool {
        self.compared.off.load(Ordering::Relaxed) >= ANSWERS_TO_BE_WRONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + second)
    }

    #[test]
    fn three_consecutive_answers_show_a_wrong_clock() {
        let clock = Clock::manual(at(0));
        let news = [-3600, 0, 3600, -3600, 61, 62].map(|date| clock.compare(at(0), at(date)));
        assert_eq!(news, [None, None, None, None, Some(true), None], "ahead or behind, it is off");
        assert!(clock.is_wrong());
        assert_eq!(clock.compare(at(0), at(60)), Some(false));
        assert_eq!([1, 2].map(|_| clock.compare(at(0), at(-3600))), [None, None]);
        assert!(!clock.is_wrong());
    }

    #[test]
    fn clock_ahead_reports_its_lead() {
        let clock = Clock::manual(at(0));
        clock.compare(at(0), at(-61));
        assert_eq!(clock.ahead(), Duration::ZERO, "a date is of a whole second");
        clock.compare(at(0), at(-3601));
        assert_eq!(clock.ahead(), Duration::from_hours(1));
        clock.compare(at(0), at(3600));
        assert_eq!(clock.ahead(), Duration::ZERO);
    }
}
