//! Streamed answers: the segments of a long window, each sent in the order of time when the one before it has been
//! taken. `progress.rs` decides which windows are long enough to be streamed.
//!
//! Each segment is verified before it is sent, whether it comes from memory, Redis, a fetch in flight, or a new run.
//! Only whole settled windows are streamed: their rows hold still, and their beginning does not depend on their end. If
//! a run fails, the answer is aborted, so that no client takes it for complete.

use tracing::Instrument as _;

use super::lookup::Hit;
use super::progress::RoundLimit;
use super::query::Delivery;
use super::segments::slice_segments;
use super::session::{Round, Session};
use crate::cache::error::CacheError;
use crate::cache::fetch::Segment;
use crate::cache::stream_channel::{StreamEvent, StreamSender, stream_channel};
use crate::cache::types::WindowAnswer;
use crate::window::Interval;

/// The size of a segment for a client in bytes of chunks. It has at least one chunk.
const SEGMENT_BYTES: usize = 1 << 20;

/// Answers with what is known by now, and streams the segments in a task of their own.
pub(super) fn start(mut session: Session) -> WindowAnswer {
    let (sender, rest) = stream_channel();
    let answer = session.streamed_answer(rest);
    session.progress.delivery = Delivery::Streamed;
    let sending = async move {
        let end = tokio::select! {
            biased;
            end = session.send_segments(&sender) => end,
            // The client has hung up.
            () = sender.closed() => return,
        };
        sender.send(end.map(|()| StreamEvent::End)).await;
    };
    tokio::spawn(sending.in_current_span());
    answer
}

impl Session {
    /// Sends each segment when the one before it has been taken.
    async fn send_segments(&mut self, sender: &StreamSender) -> Result<(), CacheError> {
        while let Some(segments) = self.next_segments(SEGMENT_BYTES).await? {
            self.report_calls(sender);
            for Segment { interval, slice, .. } in segments {
                if self.fetcher.purges.is_purged(&self.query.series, &slice.chunk) {
                    // Purged since it was found, so it is fetched anew. The purge may not have reached memory yet.
                    self.invalidate(&[interval]);
                    tokio::task::yield_now().await;
                    break;
                }
                if !slice.rows.is_empty() {
                    sender.send(Ok(StreamEvent::Slice(slice))).await;
                }
                self.advance_to(interval.end);
            }
        }
        Ok(())
    }

    /// Adds the calls of the finished fetches to this answer; or sets them against later savings, if the answer was
    /// reported before.
    fn report_calls(&mut self, sender: &StreamSender) {
        let calls = self.gathered.charge();
        self.gathered.clear_fetches();
        if !sender.add_calls(calls)
            && let Some(scheduler) = self.fetcher.quotas.scheduler(&self.query.series.account)
        {
            scheduler.add_unsettled(calls);
        }
    }

    /// The next segments, of at most about `max_bytes` of chunks: the beginning of the remaining window, from whichever
    /// source has it first. `None` at the end of the window.
    ///
    /// # Errors
    /// [`CacheError`] if the beginning can be neither served nor fetched.
    pub(super) async fn next_segments(&mut self, max_bytes: usize) -> Result<Option<Vec<Segment>>, CacheError> {
        let mut rounds = RoundLimit::new(&self.progress);
        while !self.progress.remaining.is_empty() {
            let (beginning, next) = match self.plan_next_step()? {
                Round::Complete(hits) => (hits, None),
                Round::Partial { beginning, next, .. } => (beginning, Some(next)),
            };
            if !beginning.is_empty() {
                self.check_window_field().await?;
                return Ok(Some(slice_segments(first_hits(beginning, max_bytes)).await?));
            }
            rounds.count_round(&self.progress)?;
            if let Some(next) = next {
                self.wait(next).await?;
            }
        }
        Ok(None)
    }
}

/// The first hits, up to so many bytes of chunks, and at least one.
fn first_hits(mut hits: Vec<(Interval, Hit)>, max_bytes: usize) -> Vec<(Interval, Hit)> {
    hits.sort_by_key(|(interval, _)| interval.start);
    let mut bytes = 0;
    hits.retain(|(_, hit)| {
        let fits = bytes < max_bytes;
        bytes += hit.chunk.weight();
        fits
    });
    hits
}
