//! Channel of a streamed answer, from the task that assembles its segments to the body that sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::chunk::Slice;
use super::error::CacheError;

/// The number of slices that wait in the channel; further ones stay where they are cached.
const CHANNEL_SLICES: usize = 2;

/// The part of an answer that is still to come. If the channel closes before [`StreamEvent::End`], the answer is
/// incomplete.
#[derive(Debug)]
pub struct RemainingStream {
    events: mpsc::Receiver<Result<StreamEvent, CacheError>>,
    calls: StreamedCalls,
}

/// A part of a streamed answer.
#[derive(Debug)]
pub enum StreamEvent {
    /// The next items.
    Slice(Slice),
    /// The end of a complete answer.
    End,
}

impl RemainingStream {
    /// Polls for the next event.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<StreamEvent, CacheError>>> {
        self.events.poll_recv(context)
    }

    /// The upstream calls that were added so far, however the answer has ended. Calls that are added later belong to
    /// another answer.
    pub fn settle_calls(&self) -> u32 {
        self.calls.settle()
    }
}

/// The sending end of the channel.
#[derive(Debug)]
pub(super) struct StreamSender {
    events: mpsc::Sender<Result<StreamEvent, CacheError>>,
    calls: StreamedCalls,
}

impl StreamSender {
    /// Sends an event when there is room for it. If the body was dropped, the event is dropped too.
    pub(super) async fn send(&self, event: Result<StreamEvent, CacheError>) {
        let _ = self.events.send(event).await;
    }

    /// Ends when the body has been dropped.
    pub(super) async fn closed(&self) {
        self.events.closed().await;
    }

    /// Adds calls to those that the answer reports; `false` if it was reported before, without them.
    pub(super) fn add_calls(&self, calls: u32) -> bool {
        self.calls.add(calls)
    }
}

/// The channel of one answer.
pub(super) fn stream_channel() -> (StreamSender, RemainingStream) {
    let (sender, receiver) = mpsc::channel(CHANNEL_SLICES);
    let calls = StreamedCalls::default();
    (StreamSender { events: sender, calls: calls.clone() }, RemainingStream { events: receiver, calls })
}

/// Counts the calls of a streamed answer, for the task that streams it and the body that reports it.
#[derive(Clone, Debug, Default)]
struct StreamedCalls(Arc<AtomicU32>);

impl StreamedCalls {
    /// Set when the answer has been reported.
    const SETTLED: u32 = 1 << 31;

    fn add(&self, calls: u32) -> bool {
        self.0.fetch_add(calls, Ordering::Relaxed) & Self::SETTLED == 0
    }

    fn settle(&self) -> u32 {
        self.0.fetch_or(Self::SETTLED, Ordering::Relaxed) & !Self::SETTLED
    }
}
