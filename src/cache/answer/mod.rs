//! Puts an answer together from all of its window, or finds that it takes long, and is streamed.

mod exact;
mod fast_path;
mod follower;
mod lookup;
mod segments;
mod session;
mod stream;
mod wait;

pub(in crate::cache) use self::fast_path::FastPath;
pub(in crate::cache) use self::follower::answer_follower;
pub(in crate::cache) use self::lookup::{Hit, Lookup};
pub(in crate::cache) use self::segments::Segment;
pub(in crate::cache) use self::session::{Fetched, Joined, Session};
pub use self::stream::{RemainingStream, StreamEvent};

use std::sync::Arc;
use std::time::Duration;

use self::segments::{parts, twice};
use self::session::{MAX_SURVEYS_WITHOUT_PROGRESS, Mode, Next, NextStep};
use super::fetch::Fetcher;
use super::redis::READ_BYTES;
use super::{CacheError, ItemSlice, Outcome, PageRange, WindowAnswer, WindowQuery};
use crate::request::QueueTimeout;
use crate::window::Interval;

/// Of a window that is longer, another replica is sent the beginning first.
const LONG: Duration = Duration::from_hours(24);
/// So often copies are fetched again because an item has moved out of them; each time costs calls.
const MAX_REFETCHES_OF_MOVED_ITEMS: usize = 2;

/// Answers `query`.
pub(super) async fn answer(fetcher: Arc<Fetcher>, query: WindowQuery) -> Result<WindowAnswer, CacheError> {
    let patience = Arc::new(QueueTimeout::new(fetcher.queue_timeout));
    let may_stream = query.may_stream;
    let mut session = Session::new(fetcher, query, patience, None);
    if session.interval.is_empty() {
        return Ok(session.answer(Vec::new(), Outcome::Hit));
    }
    let is_uncut = session.shelf.lock().is_uncut(session.interval);
    if !is_uncut && session.check_field().await.is_ok() {
        let settled = session.interval.end <= session.fetcher.settled_before(session.asked_at);
        session.mode = match may_stream {
            false => Mode::WholeInMemory,
            true if settled && session.page_range == PageRange::ALL => Mode::MayStream,
            true => Mode::Whole,
        };
        match session.gather_chunks().await {
            Ok(None) => return Ok(stream::begin(session)),
            // What was cut while an item was looked for is good if that is where it says.
            Ok(Some((parts, outcome))) if session.check_field().await.is_ok() => {
                return Ok(session.answer(parts, outcome));
            }
            // The field has just been found wrong, and from now on nothing is cut; or this one window cannot be.
            Ok(Some(_)) => {}
            Err(CacheError::Paging(error)) if error.is_uncut() => {}
            Err(error) => return Err(error),
        }
    }
    let (parts, outcome) = session.gather_exactly().await?;
    Ok(session.answer(parts, outcome))
}

impl Session {
    /// The whole window, cut from chunks; `None` if it takes long, and may be streamed.
    pub(super) async fn gather_chunks(&mut self) -> Result<Option<(Vec<Segment>, Outcome)>, CacheError> {
        let (mut refetches, mut surveys, mut progress) = (0, 0, 0);
        while surveys < MAX_SURVEYS_WITHOUT_PROGRESS {
            let survey = self.survey()?;
            surveys = if self.history.progress > progress { 0 } else { surveys + 1 };
            progress = self.history.progress;
            match survey {
                NextStep::Complete(held) => {
                    let parts = parts(held).await?;
                    let moved = twice(&parts);
                    if moved.is_empty() {
                        let outcome = self.outcome(&parts);
                        return Ok(Some((parts, outcome)));
                    }
                    refetches += 1;
                    if refetches > MAX_REFETCHES_OF_MOVED_ITEMS {
                        break;
                    }
                    self.forget(&moved);
                }
                NextStep::Partial { pages_to_come, next, .. } => {
                    self.check_fits()?;
                    if self.is_long(pages_to_come) || self.has_much_from_redis(&next) {
                        return Ok(None);
                    }
                    self.advance(next).await?;
                }
            }
        }
        Err(CacheError::ItemsMoving)
    }

    /// The beginning of the window, for another replica: all of it, or, of a long one, as far as its next run reaches.
    pub(super) async fn gather_beginning(&mut self) -> Result<(Vec<Segment>, Outcome), CacheError> {
        if self.interval.length() <= LONG {
            // What is not streamed is not divided.
            return self.gather_chunks().await?.ok_or(CacheError::FetchLost);
        }
        self.mode = Mode::StreamEvent;
        let parts = self.next_segment(stream::SEGMENT_BYTES_BETWEEN_REPLICAS).await?.ok_or(CacheError::FetchLost)?;
        let outcome = self.outcome(&parts);
        Ok((parts, outcome))
    }

    /// Whether what was read of the second tier is so much that it is sent before more is read.
    fn has_much_from_redis(&self, next: &Next) -> bool {
        self.mode == Mode::MayStream && matches!(next, Next::Read(_)) && self.bytes_in_hand() >= READ_BYTES
    }

    /// An error if the answer must fit into memory, and does not.
    fn check_fits(&self) -> Result<(), CacheError> {
        let limit = self.fetcher.memory.capacity();
        let is_too_large = self.mode == Mode::WholeInMemory && self.bytes_in_hand() as u64 > limit;
        if is_too_large { Err(CacheError::TooLargeToBuffer { limit }) } else { Ok(()) }
    }

    fn bytes_in_hand(&self) -> usize {
        self.in_hand.within(Interval::EVER).map(|(_, brought)| brought.chunk.weight()).sum()
    }

    /// Forgets the copies of these spans: they are not true any more.
    pub(super) fn forget(&mut self, moved: &[Interval]) {
        let mut shelf = self.shelf.lock();
        for interval in moved {
            self.in_hand.remove(*interval);
            shelf.entries.remove(*interval);
        }
    }

    fn outcome(&self, parts: &[Segment]) -> Outcome {
        if self.flights.is_empty() {
            Outcome::Hit
        } else if self.flights.iter().all(|flight| flight.is_charged()) {
            Outcome::Collapsed
        } else if self.history.stale {
            Outcome::Stale
        } else if parts.iter().any(|part| part.copy) {
            Outcome::Partial
        } else {
            Outcome::Miss
        }
    }

    /// The answer whose items are still to come, with what is known of it by now.
    pub(super) fn answer_to_come(&self, rest: RemainingStream) -> WindowAnswer {
        let outcome = match (self.history.fetches, self.history.oldest) {
            (false, _) => Outcome::Hit,
            (true, Some(_)) => Outcome::Partial,
            (true, None) => Outcome::Miss,
        };
        WindowAnswer {
            items: ItemSlice { slices: Vec::new(), count: 0, has_more: false },
            rest: Some(rest),
            settled: true,
            validity: None,
            oldest_entry: self.history.oldest,
            outcome,
            chunks: 0,
            hits: 0,
            calls: 0,
        }
    }

    /// The answer that is made of these parts; tells of the calls that were made for it.
    pub(super) fn answer(&self, parts: Vec<Segment>, outcome: Outcome) -> WindowAnswer {
        // A flight that was on its way already has seen what was there when it began.
        let aged = parts.iter().filter(|part| part.copy || part.fetched_at < self.asked_at);
        WindowAnswer {
            settled: !parts.is_empty() && self.interval.end <= self.fetcher.settled_before(self.asked_at),
            validity: None,
            oldest_entry: aged.map(|part| part.fetched_at).min(),
            outcome,
            chunks: parts.len(),
            hits: parts.iter().filter(|part| part.copy).count(),
            calls: self.charge(),
            rest: None,
            items: self.page_range.of(parts.into_iter().map(|part| part.slice).collect()),
        }
    }

    /// The calls of its flights that no other answer has told of.
    pub(super) fn charge(&self) -> u32 {
        self.flights.iter().filter_map(|flight| flight.charge()).sum()
    }
}
