//! Timer for the deadline of request heads, without a timer registration for each request.
//!
//! hyper sets a new deadline for each request, and nearly each is met. The connection instead calls [`HeadTimer::tick`]
//! every [`HEAD_CHECK_INTERVAL`], and a deadline expires when it has seen more than [`CHECKS_BEFORE_TIMEOUT`] ticks. A
//! deadline registers no waker, because the connection is polled after each tick anyway. `docs/adr` compares this with
//! the timer of tokio.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The longest that a client may take to send a request head, or for a TLS handshake. A head may take one
/// [`HEAD_CHECK_INTERVAL`] longer.
pub(super) const HEAD_TIMEOUT: Duration = HEAD_CHECK_INTERVAL.saturating_mul(CHECKS_BEFORE_TIMEOUT);
/// Interval of the ticks.
pub(super) const HEAD_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Ticks that a deadline survives. The first one may come directly after its start, so one more is needed to expire.
const CHECKS_BEFORE_TIMEOUT: u32 = 3;

/// The timer of one connection.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    ticks: Arc<AtomicU32>,
    /// The constant result of [`Timer::now`]. hyper computes deadlines from it, which are ignored.
    created: Instant,
}

struct HeadDeadline {
    ticks: Arc<AtomicU32>,
    ticks_at_start: u32,
}

impl HeadTimer {
    /// A timer without ticks.
    pub(super) fn new() -> Self {
        Self { ticks: Arc::default(), created: Instant::now() }
    }

    /// Counts a tick. The connection must be polled afterwards, because deadlines wake no task.
    pub(super) fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadDeadline { ticks: self.ticks.clone(), ticks_at_start: self.ticks.load(Ordering::Relaxed) })
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(HEAD_TIMEOUT)
    }

    fn now(&self) -> Instant {
        self.created
    }
}

impl Future for HeadDeadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let ticks = self.ticks.load(Ordering::Relaxed).wrapping_sub(self.ticks_at_start);
        if ticks <= CHECKS_BEFORE_TIMEOUT { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Sleep for HeadDeadline {}
