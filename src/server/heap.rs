//! Gives memory back to the system after a peak.
//!
//! glibc keeps what is freed between pieces that are still in use: after 4,096 connections it held 50 MB for good. To
//! look for it takes the locks of the heap, so it is looked for only when there is something to find.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it is looked how much is in use.
const INTERVAL: Duration = Duration::from_secs(5);
/// So many bytes must have been freed.
const WORTH_TRIMMING: u64 = 4 << 20;

/// Trims the heap when `bytes_in_use` has fallen from a peak, until the listener closes.
pub(super) async fn trim_after_peaks(bytes_in_use: impl Fn() -> u64, closing: CancellationToken) {
    let mut peak = 0;
    let look = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let in_use = bytes_in_use();
            peak = in_use.max(peak);
            if peak - in_use >= WORTH_TRIMMING {
                peak = in_use;
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
