//! How long a request has waited for the quota, for its line of the access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time that calls for one request were queued. Cheap to clone; all clones share the time.
#[derive(Clone, Debug, Default)]
pub struct WaitMeter(Arc<AtomicU64>);

impl WaitMeter {
    /// Adds the queueing time of a call.
    pub fn add(&self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}
