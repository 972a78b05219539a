//! Streams a long window: a loop over its segments in the order of time. Each is proven before it is sent, wherever it
//! comes from: memory, a flight, Redis, or a new run. As long as the caller has not taken one, the next is not asked for.
//!
//! Only what is settled is streamed, whose rows hold still; and only whole windows, for whose end nothing at their
//! beginning has to be known. If a run fails, the answer is broken off, and nobody can take it for whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use super::lookup::Hit;
use super::segments::{Segment, parts};
use super::session::{MAX_SURVEYS_WITHOUT_PROGRESS, Mode, NextStep, Session};
use crate::cache::chunk::Slice;
use crate::cache::{CacheError, WindowAnswer};
use crate::window::Interval;

/// So many slices wait for the caller; the rest stays where it lies.
const SLICES_AHEAD: usize = 2;
/// A segment is of about so many bytes of chunks, and of one chunk at least.
const SEGMENT_BYTES: usize = 1 << 20;
/// So is one for another replica, which asks for each.
pub(in crate::cache) const SEGMENT_BYTES_BETWEEN_REPLICAS: usize = 8 << 20;

/// What is still to come of an answer. If it ends without an end, it is not whole.
#[derive(Debug)]
pub struct RemainingStream {
    items: mpsc::Receiver<Result<StreamEvent, CacheError>>,
    calls: StreamedCalls,
}

/// What comes of it.
#[derive(Debug)]
pub enum StreamEvent {
    /// The next items.
    Slice(Slice),
    /// That was all of it.
    End,
}

impl RemainingStream {
    /// What comes next.
    pub fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<StreamEvent, CacheError>>> {
        self.items.poll_recv(context)
    }

    /// The upstream calls that were told of so far, in whatever way the answer has ended. Calls that are told of later are
    /// not this answer's.
    pub fn settle_calls(&self) -> u32 {
        self.calls.settle()
    }
}

/// Counts the calls that a streamed answer tells of, for the task that streams it and the body that reports it.
#[derive(Clone, Debug, Default)]
pub(in crate::cache) struct StreamedCalls(Arc<AtomicU32>);

impl StreamedCalls {
    /// Set when the answer has been reported.
    const SETTLED: u32 = 1 << 31;

    /// Adds calls; `false` if the answer was reported before, without them.
    pub(in crate::cache) fn add(&self, calls: u32) -> bool {
        self.0.fetch_add(calls, Ordering::Relaxed) & Self::SETTLED == 0
    }

    fn settle(&self) -> u32 {
        self.0.fetch_or(Self::SETTLED, Ordering::Relaxed) & !Self::SETTLED
    }
}

/// Answers with what is there, and with what comes then.
pub(in crate::cache) fn begin(mut session: Session) -> WindowAnswer {
    let (to, from) = mpsc::channel(SLICES_AHEAD);
    let calls = StreamedCalls::default();
    let answer = session.answer_to_come(RemainingStream { items: from, calls: calls.clone() });
    session.mode = Mode::StreamEvent;
    tokio::spawn(async move {
        // A caller that has hung up wants nothing any more.
        let end = tokio::select! {
            end = send_all(&mut session, &to, &calls) => end,
            () = to.closed() => return,
        };
        let _ = to.send(end.map(|()| StreamEvent::End)).await;
    });
    answer
}

/// Sends each segment when the one before it has been taken.
async fn send_all(
    session: &mut Session,
    to: &mpsc::Sender<Result<StreamEvent, CacheError>>,
    calls: &StreamedCalls,
) -> Result<(), CacheError> {
    while let Some(segment) = session.next_segment(SEGMENT_BYTES).await? {
        session.tell_calls(calls);
        for Segment { interval, slice, .. } in segment {
            if session.fetcher.purges.is_purged(&session.series, &slice.chunk) {
                // Purged since it was found: it is fetched anew. The purge itself may still be on its way to this copy.
                session.forget(&[interval]);
                tokio::task::yield_now().await;
                break;
            }
            if !slice.rows.is_empty() {
                // If nobody takes it, this task is about to end.
                let _ = to.send(Ok(StreamEvent::Slice(slice))).await;
            }
            session.answered_up_to(interval.end);
        }
    }
    Ok(())
}

impl Session {
    /// Tells of the calls of its flights in this answer; or sets them against later savings, if the answer has been
    /// reported before.
    fn tell_calls(&mut self, told: &StreamedCalls) {
        let calls = self.charge();
        self.flights.clear();
        if !told.add(calls)
            && let Some(turns) = self.fetcher.quotas.scheduler(&self.series.account)
        {
            turns.add_unsettled(calls);
        }
    }

    /// The next segment, of about so many bytes: what lies at the beginning of the window, from whichever source has it
    /// first. `None` at the end.
    pub(in crate::cache) async fn next_segment(&mut self, bytes: usize) -> Result<Option<Vec<Segment>>, CacheError> {
        let (mut surveys, mut progress) = (0, self.history.progress);
        while !self.interval.is_empty() {
            let (ready, next) = match self.survey()? {
                NextStep::Complete(held) => (held, None),
                NextStep::Partial { ready, next, .. } => (ready, Some(next)),
            };
            if !ready.is_empty() {
                self.check_field().await?;
                return Ok(Some(parts(first_segment(ready, bytes)).await?));
            }
            surveys = if self.history.progress > progress { 0 } else { surveys + 1 };
            progress = self.history.progress;
            if surveys > MAX_SURVEYS_WITHOUT_PROGRESS {
                return Err(CacheError::ItemsMoving);
            }
            if let Some(next) = next {
                self.advance(next).await?;
            }
        }
        Ok(None)
    }
}

/// The first of what is ready, up to so many bytes.
fn first_segment(mut ready: Vec<(Interval, Hit)>, most: usize) -> Vec<(Interval, Hit)> {
    ready.sort_by_key(|(interval, _)| interval.start);
    let mut bytes = 0;
    ready.retain(|(_, held)| {
        let fits = bytes < most;
        bytes += held.chunk.weight();
        fits
    });
    ready
}
