//! The record of a span that has ended, and the bounded queue in which it waits for its export.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::context::{SpanId, TraceContext};
use crate::clock::Clock;
use crate::telemetry;
use crate::window::Timestamp;

/// Longest text of an attribute, in bytes.
pub(super) const MAX_TEXT_LENGTH: usize = 256;
/// Most ended spans that wait for their export: some megabytes.
const MAX_QUEUED_SPANS: usize = 4096;
/// The longest that the end of the process waits for the export of the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The part of a span in a call between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A step inside of this process.
    Internal,
    /// Answers a request of another process.
    Server,
    /// Makes a request to another process, and waits for its answer.
    Client,
}

/// How the work of a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanStatus {
    /// Nothing is said.
    Unset,
    /// The work failed, with this kind of error.
    Failed(&'static str),
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AttributeValue {
    Text(String),
    Integer(i64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(MAX_TEXT_LENGTH)].to_owned())
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for AttributeValue {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<usize> for AttributeValue {
    fn from(number: usize) -> Self {
        (number as u64).into()
    }
}

/// The content of a span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SpanData {
    pub(super) name: &'static str,
    pub(super) attributes: Vec<(&'static str, AttributeValue)>,
    pub(super) links: Vec<TraceContext>,
    /// Links beyond the most that a span has.
    pub(super) dropped_links: u32,
    pub(super) status: SpanStatus,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndedSpan {
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanParent>,
    pub(super) kind: SpanKind,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) data: SpanData,
}

/// The parent of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpanParent {
    pub(super) id: SpanId,
    /// Whether it is a span of another process.
    pub(super) is_remote: bool,
}

/// An entry of the queue.
#[derive(Debug)]
pub(super) enum ExportMessage {
    /// A span to export.
    Span(EndedSpan),
    /// Answered when all spans before it are exported or given up.
    Flush(oneshot::Sender<()>),
}

/// The receiving end of the queue of spans.
pub(super) type SpanQueue = mpsc::Receiver<ExportMessage>;

/// Gives spans their times, and queues them when they have ended.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    clock: Clock,
    queue: mpsc::Sender<ExportMessage>,
}

impl Recorder {
    pub(super) fn new(clock: &Clock) -> (Self, SpanQueue) {
        let (queue, spans) = mpsc::channel(MAX_QUEUED_SPANS);
        (Self { clock: clock.clone(), queue }, spans)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Queues an ended span, or drops it if the queue is full. Never waits.
    pub(super) fn export(&self, span: EndedSpan) {
        if self.queue.try_send(ExportMessage::Span(span)).is_err() {
            telemetry::trace_spans_dropped(1);
        }
    }

    /// Waits until the queued spans are exported, for at most [`FLUSH_TIMEOUT`].
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(ExportMessage::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The spans in the queue.
    pub(in crate::traces) fn queued(queue: &mut SpanQueue) -> Vec<EndedSpan> {
        let spans = std::iter::from_fn(|| queue.try_recv().ok()).filter_map(|queued| match queued {
            ExportMessage::Span(span) => Some(span),
            ExportMessage::Flush(_) => None,
        });
        spans.collect()
    }

    #[test]
    fn full_queue_drops_spans_without_waiting() {
        let (recorder, mut queue) = Recorder::new(&Clock::manual(Timestamp::from_seconds(0)));
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let (attributes, links, dropped_links) = Default::default();
        let data = SpanData { name: "n", attributes, links, dropped_links, status: SpanStatus::Unset };
        let (started_at, ended_at, kind) = (recorder.now(), recorder.now(), SpanKind::Internal);
        let span = EndedSpan { context, parent: None, kind, started_at, ended_at, data };
        (0..MAX_QUEUED_SPANS + 10).for_each(|_| recorder.export(span.clone()));
        assert_eq!(queued(&mut queue).len(), MAX_QUEUED_SPANS);
    }

    #[test]
    fn long_text_is_cut() {
        let AttributeValue::Text(text) = AttributeValue::from("ä".repeat(200).as_str()) else { panic!() };
        assert_eq!(text.chars().count(), MAX_TEXT_LENGTH / 2);
    }
}
