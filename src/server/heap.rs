//! Gives memory back to the system after many connections have closed.
//!
//! glibc keeps what is freed between pieces that are still in use: after 4,096 connections it held 50 MB for good. To
//! look for it takes the locks of the heap, so it is looked for only when there is something to find.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked how many connections there are.
const INTERVAL: Duration = Duration::from_secs(10);
/// So many connections must have closed: some 3 MB.
const CLOSED_CONNECTIONS: usize = 256;

/// Trims the heap after peaks of `connections`, until the listener closes.
pub(super) async fn trim_after_peaks(connections: TaskTracker, closing: CancellationToken) {
    let mut peak = 0;
    let look = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let open = connections.len();
            peak = open.max(peak);
            if peak - open >= CLOSED_CONNECTIONS {
                peak = open;
                let _ = tokio::task::spawn_blocking(trim).await;
            }
        }
    };
    closing.run_until_cancelled(look).await;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    #[expect(unsafe_code, reason = "there is no safe face to it")]
    // SAFETY: it touches only what is free, under the heap's own locks.
    let released = unsafe { libc::malloc_trim(0) };
    tracing::debug!(released = released == 1, "the heap was trimmed");
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
