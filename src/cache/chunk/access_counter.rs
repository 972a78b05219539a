//! What is read often enough to be worth keeping at hand.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

/// Whoever reads a thing again and again reads it so soon again. One who takes a whole year comes by once, or much later.
const SOON: u32 = 10;
/// What has been read so often is hot: one who checks what it has taken reads it twice.
const OFTEN: u32 = 3;

/// How often something has been read lately.
#[derive(Debug, Default)]
pub struct AccessCounter {
    count: AtomicU32,
    /// When it was last, in seconds.
    last: AtomicU32,
}

impl AccessCounter {
    /// It is read now: whether that is often. Readers at the same moment may go uncounted.
    pub fn record(&self) -> bool {
        let now = seconds();
        let before = self.last.swap(now, Ordering::Relaxed);
        let count = if now.saturating_sub(before) > SOON { 1 } else { self.count.load(Ordering::Relaxed) + 1 };
        self.count.store(count.min(OFTEN), Ordering::Relaxed);
        count >= OFTEN
    }

    /// Something else is counted from now on.
    pub fn forget(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}

/// Seconds since the first reading of anything.
fn seconds() -> u32 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u32::try_from(BEGAN.elapsed().as_secs()).unwrap_or(u32::MAX)
}
