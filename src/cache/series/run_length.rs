//! How long a run of pages may be where the upstream's rows come in no order. Elsewhere only the number of expected
//! items limits it.

use std::time::Duration;

/// The longest run of a series, by the order of the upstream's rows. A run whose rows come in no order cannot end early
/// when it turns out too large, so its length grows from small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) enum RunLengthPolicy {
    /// Limited by the number of expected items only.
    #[default]
    ByDensity,
    /// Limited in length.
    Growing {
        /// The longest next run.
        next: Duration,
        /// The longest run of all: a longer one was too large.
        cap: Duration,
    },
}

impl RunLengthPolicy {
    /// How many times as long as the last run the next one may be.
    const GROWTH_FACTOR: u32 = 8;

    /// The longest that the next run may be; `None` if its length is not limited.
    pub(in crate::cache) fn longest(self) -> Option<Duration> {
        match self {
            Self::ByDensity => None,
            Self::Growing { next, .. } => Some(next),
        }
    }

    /// Learns from a successful run of this length, whose rows came in order or not.
    pub(in crate::cache) fn on_run(&mut self, length: Duration, unordered: bool) {
        let grown = length.saturating_mul(Self::GROWTH_FACTOR);
        *self = match *self {
            Self::ByDensity if unordered => Self::Growing { next: grown, cap: Duration::MAX },
            Self::Growing { next, cap } => Self::Growing { next: next.max(grown).min(cap), cap },
            Self::ByDensity => Self::ByDensity,
        };
    }

    /// Learns from a run of this length that was too large and could not end early. `first` is the length to begin with
    /// if the run was not `planned` by a known density.
    pub(in crate::cache) fn on_oversized_run(&mut self, length: Duration, planned: bool, first: Duration) {
        let half = (length / 2).max(Duration::from_secs(1));
        *self = if planned {
            Self::Growing { next: half, cap: half }
        } else {
            Self::Growing { next: first.min(half), cap: half }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unordered_runs_grow_up_to_an_oversized_length() {
        let hours = Duration::from_hours;
        let mut policy = RunLengthPolicy::default();
        policy.on_run(hours(24), false);
        assert_eq!(policy.longest(), None);
        policy.on_oversized_run(hours(7 * 24), false, hours(1));
        assert_eq!(policy.longest(), Some(hours(1)));
        policy.on_run(hours(1), true);
        policy.on_run(hours(8), true);
        assert_eq!(policy.longest(), Some(hours(64)));
        policy.on_run(hours(2), true);
        assert_eq!(policy.longest(), Some(hours(64)), "a short window says nothing");
        policy.on_oversized_run(hours(64), true, hours(1));
        policy.on_run(hours(32), true);
        assert_eq!(policy.longest(), Some(hours(32)));
    }
}
