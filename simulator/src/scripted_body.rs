//! A response body that can pause or break off.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

enum BodyStep {
    Send(Bytes),
    /// A pause, which begins when the step is reached.
    Wait(Duration),
    /// A pending poll, so that the bytes sent before are flushed on their own.
    Flush,
    /// An error, upon which hyper drops the connection.
    Abort,
}

/// A guard that is dropped when the last bytes are handed to the connection, or with the body.
pub(crate) type CompletionGuard = Box<dyn Send + Sync>;

/// A body that consists of a sequence of steps.
pub(crate) struct ScriptedBody {
    steps: VecDeque<BodyStep>,
    sleep: Option<Pin<Box<Sleep>>>,
    guard: Option<CompletionGuard>,
}

/// The error of a body that is aborted by its script.
#[derive(Debug)]
pub(crate) struct BodyAborted;

impl fmt::Display for BodyAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for BodyAborted {}

impl ScriptedBody {
    /// The whole body at once.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::new([BodyStep::Send(bytes)])
    }

    /// The first half, a pause, and the second half.
    pub(crate) fn stalled(bytes: &Bytes, pause: Duration) -> Self {
        let middle = bytes.len() / 2;
        let halves = (bytes.slice(..middle), bytes.slice(middle..));
        Self::new([BodyStep::Send(halves.0), BodyStep::Wait(pause), BodyStep::Send(halves.1)])
    }

    /// The first half, after which the connection is dropped. The caller must set `content-length`.
    pub(crate) fn truncated(bytes: &Bytes) -> Self {
        Self::new([BodyStep::Send(bytes.slice(..bytes.len() / 2)), BodyStep::Flush, BodyStep::Abort])
    }

    fn new(steps: impl Into<VecDeque<BodyStep>>) -> Self {
        let mut steps = steps.into();
        steps.retain(|step| !matches!(step, BodyStep::Send(bytes) if bytes.is_empty()));
        Self { steps, sleep: None, guard: None }
    }

    /// Drops `guard` when the last bytes are handed to the connection, which is before a client can have read them.
    pub(crate) fn with_guard(mut self, guard: CompletionGuard) -> Self {
        self.guard = (!self.steps.is_empty()).then_some(guard);
        self
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BodyAborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(BodyStep::Send(bytes)) => {
                    if this.steps.is_empty() {
                        this.guard = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(BodyStep::Wait(pause)) => this.sleep = Some(Box::pin(tokio::time::sleep(pause))),
                Some(BodyStep::Flush) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(BodyStep::Abort) => return Poll::Ready(Some(Err(BodyAborted))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.steps.iter().any(|step| matches!(step, BodyStep::Abort)) {
            return SizeHint::default();
        }
        let sizes = self.steps.iter().map(|step| if let BodyStep::Send(bytes) = step { bytes.len() as u64 } else { 0 });
        SizeHint::with_exact(sizes.sum())
    }
}
