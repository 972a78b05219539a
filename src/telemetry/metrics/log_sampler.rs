//! Limit on log lines about events that may come often: requests without a valid key, which anyone can send, and
//! failures of the disk.

use std::time::{Duration, Instant};

/// Maximum log lines in a second.
const MAX_LINES_PER_SECOND: u32 = 10;

/// Admits the first log lines of each second and counts the others.
#[derive(Debug)]
pub(super) struct LogSampler {
    second_started: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl LogSampler {
    /// A sampler that has seen no line.
    pub(super) const fn new() -> Self {
        Self { second_started: None, admitted: 0, suppressed: 0 }
    }

    /// Admits or suppresses the log line of an event at `now`. `Some` if it is admitted, with the number of lines that
    /// were suppressed since the last admitted one.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |started| now.saturating_duration_since(started) >= Duration::from_secs(1);
        if self.second_started.is_none_or(is_over) {
            (self.second_started, self.admitted) = (Some(now), 0);
        }
        if self.admitted == MAX_LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_are_admitted_and_the_rest_counted() {
        let (mut sampler, start) = (LogSampler::new(), Instant::now());
        let mut admitted = |milliseconds: u64, count: u32| -> Vec<u64> {
            (0..count).filter_map(|_| sampler.admit(start + Duration::from_millis(milliseconds))).collect()
        };
        assert_eq!(admitted(0, 25), [0; 10]);
        assert!(admitted(999, 5).is_empty());
        assert_eq!(admitted(1000, 2), [20, 0]);
        assert_eq!(admitted(1500, 10), [0; 8]);
        assert_eq!(admitted(5000, 1), [2]);
    }
}
