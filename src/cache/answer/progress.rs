//! How far the answer to a request is, and so what makes it a streamed answer: [`AnswerProgress::is_long`], if
//! [`Query::delivery`](super::query::Query::delivery) allows it.

use super::query::{DAY, Delivery};
use crate::cache::error::CacheError;
use crate::cache::redis::{READ_BYTES, RedisListing};
use crate::window::{Interval, IntervalSet, Timestamp};

/// The maximum number of planning rounds in a row without progress.
pub(super) const MAX_ROUNDS_WITHOUT_PROGRESS: usize = 1000;
/// The maximum number of fetches in a row that return nothing, because another replica became the leader, or because
/// they were too large.
const MAX_EMPTY_FETCHES: usize = 64;
/// The number of pages still to be fetched from which on a window is long and is streamed, if that is possible.
const LONG_PAGES: f64 = 60.0;
/// The same for windows of more than a day. A usual day is fetched soon, and is answered with a status and a length.
const LONG_PAGES_ABOVE_A_DAY: f64 = 12.0;

/// The state of one answer, apart from its chunks.
#[derive(Debug)]
pub(super) struct AnswerProgress {
    /// The part of the window that is still to be answered.
    pub(super) remaining: Interval,
    pub(super) delivery: Delivery,
    /// The names of the chunks that Redis has of a long window.
    pub(super) listing: Option<RedisListing>,
    /// Whether an additional run was requested since the last news of a fetch. If none could be started then, none is
    /// requested again before there is news.
    pub(super) has_requested_additional_run: bool,
    /// Counts fetches that finished, pages that came, and pieces of Redis that were read.
    events: usize,
    /// The number of fetches in a row that returned nothing.
    empty_fetches: usize,
}

impl AnswerProgress {
    /// The state of an answer to `window`.
    pub(super) fn new(window: Interval, lists_redis: bool) -> Self {
        Self {
            remaining: window,
            delivery: Delivery::Whole,
            listing: lists_redis.then(RedisListing::new),
            has_requested_additional_run: false,
            events: 0,
            empty_fetches: 0,
        }
    }

    /// The part of `missing` that is not read from Redis, so that it must be fetched.
    pub(super) fn to_fetch(&self, missing: &IntervalSet) -> IntervalSet {
        self.listing.as_ref().map_or_else(|| missing.clone(), |listing| listing.absent(missing))
    }

    /// Counts pages that came, or a piece of Redis that was read.
    pub(super) fn count_event(&mut self) {
        self.events += 1;
    }

    /// Counts a finished fetch.
    ///
    /// # Errors
    /// [`CacheError::ItemsMoving`] after too many in a row that returned nothing.
    pub(super) fn count_fetch(&mut self, is_empty: bool) -> Result<(), CacheError> {
        if is_empty {
            self.empty_fetches += 1;
        } else {
            self.events += 1;
            self.empty_fetches = 0;
        }
        if self.empty_fetches > MAX_EMPTY_FETCHES { Err(CacheError::ItemsMoving) } else { Ok(()) }
    }

    /// Whether a window of which so many pages are still to be fetched is streamed.
    pub(super) fn is_long(&self, pages_to_come: Option<f64>) -> bool {
        let long = if self.remaining.length() > DAY { LONG_PAGES_ABOVE_A_DAY } else { LONG_PAGES };
        self.delivery == Delivery::WholeOrStreamed && pages_to_come.is_some_and(|pages| pages >= long)
    }

    /// Whether a window of which so many bytes are gathered is streamed before more of it is read from disk or Redis.
    pub(super) fn is_much_to_read(&self, gathered_bytes: impl FnOnce() -> usize) -> bool {
        self.delivery == Delivery::WholeOrStreamed && gathered_bytes() >= READ_BYTES
    }
}

/// Limits the planning rounds without progress.
#[derive(Debug, Default)]
pub(super) struct RoundLimit {
    rounds: usize,
    events: usize,
}

impl RoundLimit {
    /// A limit that begins to count now.
    pub(super) fn new(progress: &AnswerProgress) -> Self {
        Self { rounds: 0, events: progress.events }
    }

    /// Counts a round.
    ///
    /// # Errors
    /// [`CacheError::ItemsMoving`] after too many rounds without progress.
    pub(super) fn count_round(&mut self, progress: &AnswerProgress) -> Result<(), CacheError> {
        self.rounds = if progress.events > self.events { 0 } else { self.rounds + 1 };
        self.events = progress.events;
        if self.rounds > MAX_ROUNDS_WITHOUT_PROGRESS { Err(CacheError::ItemsMoving) } else { Ok(()) }
    }
}

/// Facts about a streamed answer that are known before its end.
#[derive(Debug, Default)]
pub(super) struct PartialFacts {
    /// The time of the oldest fetch whose result was cached before the request.
    pub(super) oldest_entry: Option<Timestamp>,
    /// Whether something had to be fetched.
    pub(super) has_fetched: bool,
    /// Whether an entry was there, but too old.
    pub(super) is_stale: bool,
}

impl PartialFacts {
    /// Adds entries of these fetch times, and whether something is missing.
    pub(super) fn add(&mut self, fetched_at: impl Iterator<Item = Timestamp>, is_missing: bool) {
        self.oldest_entry = fetched_at.chain(self.oldest_entry).min();
        self.has_fetched |= is_missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> AnswerProgress {
        AnswerProgress::new(Interval::default(), false)
    }

    #[test]
    fn rounds_without_progress_end_in_an_error() {
        let (mut progress, mut limit) = (progress(), RoundLimit::default());
        for _ in 0..2 {
            for _ in 0..MAX_ROUNDS_WITHOUT_PROGRESS {
                assert!(limit.count_round(&progress).is_ok());
            }
            progress.count_event();
            assert!(limit.count_round(&progress).is_ok(), "progress begins the count again");
        }
        for _ in 0..MAX_ROUNDS_WITHOUT_PROGRESS {
            assert!(limit.count_round(&progress).is_ok());
        }
        assert!(matches!(limit.count_round(&progress), Err(CacheError::ItemsMoving)));
    }

    #[test]
    fn empty_fetches_in_a_row_end_in_an_error() {
        let mut progress = progress();
        for _ in 0..2 {
            for _ in 0..MAX_EMPTY_FETCHES {
                assert!(progress.count_fetch(true).is_ok());
            }
            assert!(progress.count_fetch(false).is_ok());
        }
        assert!((0..MAX_EMPTY_FETCHES).all(|_| progress.count_fetch(true).is_ok()));
        assert!(matches!(progress.count_fetch(true), Err(CacheError::ItemsMoving)));
    }
}
