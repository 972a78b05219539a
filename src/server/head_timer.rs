//! The deadline for a request's head, at hardly any cost.
//!
//! hyper asks for a new deadline for each request, and nearly each is met: to register it with tokio, and to take it back,
//! took a thirtieth of what a hit costs. So a deadline wakes nobody, and does not even look at the clock. Whoever serves the
//! connection looks now and then whether it has taken too long, and a deadline counts these looks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How long a client may take to send a request's head, or to shake hands.
pub(super) const HEAD_TIMEOUT: Duration = HEAD_LOOK.saturating_mul(LOOKS);
/// How often it is looked whether it has taken too long.
pub(super) const HEAD_LOOK: Duration = Duration::from_secs(10);
/// So many looks at a head that has not come. One more may come at once, and tells nothing.
const LOOKS: u32 = 3;

/// Gives the deadlines of one connection.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    looks: Arc<AtomicU32>,
    /// It is always the same moment: hyper reckons with it, and what it reckons is not looked at.
    moment: Instant,
}

struct Deadline {
    looks: Arc<AtomicU32>,
    begun: u32,
}

impl HeadTimer {
    pub(super) fn new() -> Self {
        Self { looks: Arc::default(), moment: Instant::now() }
    }

    /// Each [`HEAD_LOOK`]; after it the connection is to be polled, which sees its deadline.
    pub(super) fn look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline { looks: self.looks.clone(), begun: self.looks.load(Ordering::Relaxed) })
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(HEAD_TIMEOUT)
    }

    fn now(&self) -> Instant {
        self.moment
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let looks = self.looks.load(Ordering::Relaxed).wrapping_sub(self.begun);
        if looks <= LOOKS { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Sleep for Deadline {}
