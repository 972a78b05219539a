//! The body of an answer. Reports its request once, when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};

use super::access::{AccessRecord, Ending};
use super::revocation::{REVOKED, Revocation};
use crate::api::{ApiBody, Progress};

/// A window's body, or a problem.
type Content = Either<ApiBody, Full<Bytes>>;

/// Reason why an answer is aborted.
type Error = <Content as Body>::Error;

/// A body that reports its request when it ends, is aborted, or is dropped.
pub struct EdgeBody {
    content: Content,
    record: Box<AccessRecord>,
    /// Bytes handed to the connection so far.
    bytes: u64,
    /// Whether only the head is sent; the connection never polls the body then.
    head_only: bool,
    revocation: Revocation,
}

impl EdgeBody {
    pub(super) fn new(content: Content, record: Box<AccessRecord>, head_only: bool) -> Self {
        let revocation = Revocation::of(&record);
        Self { content, record, bytes: 0, head_only, revocation }
    }

    /// Whether the body has ended. hyper does not poll a body that says so.
    fn has_ended(&self) -> bool {
        self.content.is_end_stream() || self.content.size_hint().exact() == Some(0)
    }

    fn report(&mut self, ending: Ending<'_>) {
        if !self.record.is_reported() {
            self.record.report(ending, self.bytes, progress(&self.content));
        }
    }
}

/// The progress of a body with several pieces.
fn progress(content: &Content) -> Option<Progress> {
    match content {
        Either::Left(Either::Left(window)) => Some(window.settle()),
        Either::Left(Either::Right(_)) | Either::Right(_) => None,
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        // Most answers have one part, so that it is not asked for them.
        let is_revoked = this.bytes > 0 && this.revocation.has_come();
        let next = if is_revoked { Poll::Pending } else { Pin::new(&mut this.content).poll_frame(context) };
        let Poll::Ready(next) = next else {
            ready!(this.revocation.poll(context));
            this.report(Ending::Aborted(REVOKED));
            return Poll::Ready(Some(Err(REVOKED.into())));
        };
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use http_body_util::BodyExt as _;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
    use tracing_subscriber::{Layer, Registry};

    use super::*;
    use crate::clock::Clock;
    use crate::edge::AnswerEnds;
    use crate::edge::access::Content as Answered;
    use crate::edge::arrival::{Arrival, CommonFields};
    use crate::edge::observers::Observers;
    use crate::edge::request_id::RequestId;
    use crate::problem::ProblemType;

    /// Outcome and byte count of each access-log line.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(String, u64)>>>);

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().unwrap().push((line.outcome, line.bytes));
        }
    }

    #[derive(Default)]
    struct Line {
        outcome: String,
        bytes: u64,
    }

    impl Visit for Line {
        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "outcome" {
                value.clone_into(&mut self.outcome);
            }
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "bytes" {
                self.bytes = value;
            }
        }

        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
    }

    /// The log lines written while `use_body` runs on a body with this text.
    fn lines(text: &'static str, head_only: bool, expired: bool, use_body: fn(EdgeBody)) -> Vec<(String, u64)> {
        let lines = Lines::default();
        tracing::subscriber::with_default(Registry::default().with(lines.clone()), || {
            let (ends, now) = (AnswerEnds::default(), || Clock::system().now());
            if expired {
                ends.drain_timeout.expire();
            }
            let id = RequestId::of(None, now);
            let arrival = Arrival::new(Instant::now(), &http::Request::new(()), &CommonFields::default(), None);
            let observers = Arc::new(Observers { ends, ..Observers::default() });
            let mut record = AccessRecord::new(arrival, id, tracing::Span::none(), observers);
            record.set_head(404, Answered::Problem(ProblemType::NotFound, "no such path".to_owned()));
            use_body(EdgeBody::new(Either::Right(Full::from(text)), record, head_only));
        });
        lines.0.lock().unwrap().clone()
    }

    fn read_first_frame(mut body: EdgeBody) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(body.frame()).unwrap().is_ok());
    }

    #[test]
    fn body_is_reported_once_with_its_ending() {
        for (text, head_only, expired, use_body, expected) in [
            // hyper polls no further than the last frame, and not at all for an empty body.
            ("text", false, false, read_first_frame as fn(EdgeBody), ("not_found", 4)),
            ("", false, false, drop, ("not_found", 0)),
            ("text", true, false, drop, ("not_found", 0)),
            ("text", false, false, drop, ("client_closed", 0)),
            ("text", false, true, drop, ("drained", 0)),
            ("text", false, true, read_first_frame, ("not_found", 4)),
        ] {
            let lines = lines(text, head_only, expired, use_body);
            let lines: Vec<(&str, u64)> = lines.iter().map(|(outcome, bytes)| (outcome.as_str(), *bytes)).collect();
            assert_eq!(lines, [expected], "{text:?}, only the head: {head_only}, after the drain: {expired}");
        }
    }
}
