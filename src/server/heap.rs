//! Return of heap memory to the system after a peak.
//!
//! glibc keeps freed memory between allocations that are still in use: 50 MB after 4,096 connections. `malloc_trim`
//! returns it but takes the locks of the heap, so it is called only after much memory was freed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Interval at which the bytes in use are compared with their peak.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum fall from the peak, in bytes, before the heap is trimmed.
const MIN_FREED_BYTES: u64 = 4 << 20;

/// Trims the heap when `bytes_in_use` has fallen from a peak, until the listener closes.
pub(super) async fn trim_after_peaks(bytes_in_use: impl Fn() -> u64, closing: CancellationToken) {
    let mut peak = 0;
    let check = async {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let in_use = bytes_in_use();
            peak = in_use.max(peak);
            if peak - in_use >= MIN_FREED_BYTES {
                peak = in_use;
                let _ = tokio::task::spawn_blocking(trim).await;
            }
        }
    };
    closing.run_until_cancelled(check).await;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    #[expect(unsafe_code, reason = "there is no safe wrapper of it")]
    // SAFETY: `malloc_trim` changes free memory only, and takes the locks of the heap.
    let released = unsafe { libc::malloc_trim(0) };
    tracing::debug!(released = released == 1, "the heap was trimmed");
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
