//! The deadline for a request's head, at hardly any cost.
//!
//! hyper asks for a new deadline for each request, and nearly each is met: to register it with tokio, and to take it back,
//! took a thirtieth of what a hit costs. So a deadline only looks at the clock when its connection is polled, and whoever
//! serves the connection polls it now and then.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Gives deadlines that wake nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadTimer;

struct Deadline(Instant);

/// Tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline(deadline))
    }

    fn now(&self) -> Instant {
        now()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if now() < self.0 { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Sleep for Deadline {}
