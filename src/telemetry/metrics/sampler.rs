//! Bounds how many lines a second those can write who need no key for it.

use std::time::{Duration, Instant};

/// The most lines in a second.
const LINES_PER_SECOND: u32 = 10;

/// Lets some lines of each second through and counts the others.
#[derive(Debug)]
pub(super) struct Sampler {
    second_began: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl Sampler {
    pub(super) const fn new() -> Self {
        Self { second_began: None, written: 0, suppressed: 0 }
    }

    /// Whether the line of this moment is to be written: then how many were not since the last one that was.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began| now.saturating_duration_since(began) >= Duration::from_secs(1);
        if self.second_began.is_none_or(is_over) {
            (self.second_began, self.written) = (Some(now), 0);
        }
        if self.written == LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_of_each_second_are_written_and_the_rest_counted() {
        let (mut sampler, start) = (Sampler::new(), Instant::now());
        let mut written = |milliseconds: u64, count: u32| -> Vec<u64> {
            (0..count).filter_map(|_| sampler.admit(start + Duration::from_millis(milliseconds))).collect()
        };
        assert_eq!(written(0, 25), [0; 10]);
        assert!(written(999, 5).is_empty());
        assert_eq!(written(1000, 2), [20, 0]);
        assert_eq!(written(1500, 10), [0; 8]);
        assert_eq!(written(5000, 1), [2]);
    }
}
