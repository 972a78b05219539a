//! The body of an answer, which is reported once, when it has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};

use super::access::{AccessRecord, Ending};
use crate::api::{ApiBody, Progress};

/// A window's body, or a problem.
type Content = Either<ApiBody, Full<Bytes>>;

/// Why an answer breaks off.
type Error = <Content as Body>::Error;

/// A body that reports its request when it has ended whole, when it breaks off, or when it is dropped before its end.
pub struct EdgeBody {
    content: Content,
    record: AccessRecord,
    /// Bytes that were handed over so far.
    bytes: u64,
    /// Whether the head is all that is sent: then nobody asks for the body.
    head_only: bool,
}

impl EdgeBody {
    pub(super) fn new(content: Content, record: AccessRecord, head_only: bool) -> Self {
        Self { content, record, bytes: 0, head_only }
    }

    /// Whether nothing is still to come. A connection does not ask again for what it knows to be empty.
    fn has_ended(&self) -> bool {
        self.content.is_end_stream() || self.content.size_hint().exact() == Some(0)
    }

    fn report(&mut self, ending: Ending<'_>) {
        if !self.record.is_reported() {
            self.record.report(ending, self.bytes, streamed(&self.content));
        }
    }
}

fn streamed(content: &Content) -> Option<Progress> {
    match content {
        Either::Left(Either::Left(window)) => window.settle(),
        Either::Left(Either::Right(_)) | Either::Right(_) => None,
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let next = ready!(Pin::new(&mut this.content).poll_frame(context));
        match &next {
            Some(Ok(frame)) => {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.has_ended() {
                    this.report(Ending::Whole);
                }
            }
            Some(Err(error)) => this.report(Ending::Aborted(&error.to_string())),
            None => this.report(Ending::Whole),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl Drop for EdgeBody {
    fn drop(&mut self) {
        let ending = if self.head_only || self.has_ended() { Ending::Whole } else { Ending::Dropped };
        self.report(ending);
    }
}
