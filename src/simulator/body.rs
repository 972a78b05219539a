//! A body that follows a script: pieces, pauses, and breaking off.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// One step of a body.
enum Step {
    /// These bytes.
    Send(Bytes),
    /// Nothing for this long; it counts from when it is reached.
    Wait(Duration),
    /// Nothing, once: what was sent before goes out on its own.
    Flush,
    /// The connection is dropped in the middle of the body.
    Break,
}

/// Runs when the last piece is handed over, or the body is dropped.
pub(super) type OnEnd = Box<dyn Send + Sync>;

/// A body that follows a script.
pub(super) struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    on_end: Option<OnEnd>,
}

/// A body that was broken off on purpose.
#[derive(Debug)]
pub(super) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for BrokenOff {}

impl Script {
    /// All at once.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::new([Step::Send(bytes)])
    }

    /// The first half, a pause, the other half.
    pub(super) fn stalled(bytes: &Bytes, pause: Duration) -> Self {
        let middle = bytes.len() / 2;
        Self::new([Step::Send(bytes.slice(..middle)), Step::Wait(pause), Step::Send(bytes.slice(middle..))])
    }

    /// The first half, and then the connection is dropped. Its `content-length` must be set by hand.
    pub(super) fn broken(bytes: &Bytes) -> Self {
        Self::new([Step::Send(bytes.slice(..bytes.len() / 2)), Step::Flush, Step::Break])
    }

    fn new(steps: impl Into<VecDeque<Step>>) -> Self {
        let mut steps = steps.into();
        steps.retain(|step| !matches!(step, Step::Send(bytes) if bytes.is_empty()));
        Self { steps, waiting: None, on_end: None }
    }

    /// Drops `guard` when the last piece is handed over: before a client can have read it.
    pub(super) fn ending_with(mut self, guard: OnEnd) -> Self {
        self.on_end = (!self.steps.is_empty()).then_some(guard);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.waiting {
                ready!(sleep.as_mut().poll(cx));
                this.waiting = None;
            }
            match this.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) => {
                    if this.steps.is_empty() {
                        this.on_end = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(pause)) => this.waiting = Some(Box::pin(tokio::time::sleep(pause))),
                Some(Step::Flush) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Break) => return Poll::Ready(Some(Err(BrokenOff))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.steps.iter().any(|step| matches!(step, Step::Break)) {
            return SizeHint::default();
        }
        let sizes = self.steps.iter().map(|step| if let Step::Send(bytes) = step { bytes.len() as u64 } else { 0 });
        SizeHint::with_exact(sizes.sum())
    }
}
