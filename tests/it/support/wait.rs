//! Polling for a condition, always with a deadline. No other file of the tests waits for time to pass.

use std::time::{Duration, Instant};

/// Longest wait for a condition, in real time; only a test that fails waits for so long.
const DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two polls of a thread, or of a task that leaves the processor to other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `condition` until it holds, and lets all other tasks run between two polls.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_async(what, async || condition()).await;
}

/// The same for a condition that is itself asynchronous.
pub(crate) async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "deadline exceeded: {what}");
        tokio::task::yield_now().await;
    }
}

/// Awaits `future`, which must end before the deadline.
pub(crate) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("deadline exceeded: {what}"))
}

/// Polls `find` from a thread until it returns a value. Blocks, so no gateway may run on the same runtime thread.
pub(crate) fn poll_blocking<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "deadline exceeded: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Polls `condition` until it holds, with pauses, so that other processes have the processor; `limit` is the longest
/// wait. Returns the time that it took.
pub(crate) async fn until_polled(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        pause().await;
    }
    start.elapsed()
}

/// The pause between two polls, and between two attempts of a client.
pub(crate) async fn pause() {
    tokio::time::sleep(POLL_INTERVAL).await;
}

/// Lets a fault last: its duration is part of the fault, and not a wait for an effect of it.
pub(crate) async fn hold(duration: Duration) {
    tokio::time::sleep(duration).await;
}
