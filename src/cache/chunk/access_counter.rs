//! Detection of frequent reads.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

/// The longest pause between two reads that are counted together, in seconds. A client that reads a year reads each
/// thing once, or again much later.
const MAX_PAUSE_SECONDS: u32 = 10;
/// Reads in a row that make a thing hot. A client that checks what it has received reads everything twice.
const READS_OF_A_HOT_THING: u32 = 3;

/// Counter of the recent reads of one thing.
#[derive(Debug, Default)]
pub struct AccessCounter {
    count: AtomicU32,
    /// When the last read was, in seconds since the first read of anything.
    last: AtomicU32,
}

impl AccessCounter {
    /// Counts a read; returns whether the thing is hot. Reads at the same moment may be counted as one.
    pub fn record(&self) -> bool {
        let now = seconds();
        let before = self.last.swap(now, Ordering::Relaxed);
        let count =
            if now.saturating_sub(before) > MAX_PAUSE_SECONDS { 1 } else { self.count.load(Ordering::Relaxed) + 1 };
        self.count.store(count.min(READS_OF_A_HOT_THING), Ordering::Relaxed);
        count >= READS_OF_A_HOT_THING
    }

    /// Begins to count anew, for another thing.
    pub fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}

/// Seconds since the first read of anything.
fn seconds() -> u32 {
    static FIRST_READ: LazyLock<Instant> = LazyLock::new(Instant::now);
    u32::try_from(FIRST_READ.elapsed().as_secs()).unwrap_or(u32::MAX)
}
