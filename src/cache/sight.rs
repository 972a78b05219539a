//! What a flight has seen before it has landed, for those who stream it: they need not wait for the last page to send
//! the first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::chunk::Chunk;
use super::flight::Flight;
use crate::window::{Moment, Span};

/// More than this is not kept for those who are behind, while all who wait stream: then the fetch waits for them.
const MOST: usize = 4 << 20;

/// The chunks that a flight has seen from its beginning on, one after the other, until all have taken them.
#[derive(Debug, Default)]
pub(super) struct Sight {
    seen: Mutex<Seen>,
    is_long: AtomicBool,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    chunks: VecDeque<Arc<Chunk>>,
    /// Where the next one must begin.
    end: Option<Moment>,
    verdict: Verdict,
}

/// What has become of what was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The walk goes on.
    #[default]
    Open,
    /// It was all there is.
    Proven,
    /// It was not, or nobody knows.
    Refuted,
}

impl Sight {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is going to take long.
    pub(super) fn set_long(&self) {
        self.is_long.store(true, Ordering::Relaxed);
    }

    /// Whether it is going to take long.
    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }

    /// Shows chunks of a flight over `span`, if they follow what was shown before. Seen from the other end, they can be
    /// streamed only when all are there.
    pub(super) fn show(&self, span: Span, chunks: &[Arc<Chunk>]) {
        let mut seen = self.lock();
        let mut end = seen.end.unwrap_or(span.start);
        for chunk in chunks.iter().filter(|_| seen.verdict == Verdict::Open).cloned().collect::<Vec<_>>() {
            if chunk.span().start == end {
                end = chunk.span().end;
                seen.chunks.push_back(chunk);
            }
        }
        seen.end = Some(end);
    }

    /// The chunk in which `moment` lies, if it has been shown, and nothing is known against it.
    pub(super) fn at(&self, moment: Moment) -> Option<Arc<Chunk>> {
        let seen = self.lock();
        let open = seen.verdict != Verdict::Refuted;
        seen.chunks.iter().find(|chunk| open && chunk.span().contains(moment)).cloned()
    }

    /// How what was shown has ended.
    pub(super) fn conclude(&self, verdict: Verdict) {
        let mut seen = self.lock();
        if seen.verdict == Verdict::Open && (seen.end.is_some() || verdict == Verdict::Proven) {
            seen.verdict = verdict;
        }
        seen.chunks.clear();
    }

    /// See [`Sight::conclude`].
    pub(super) fn verdict(&self) -> Verdict {
        self.lock().verdict
    }

    /// Somebody who streams has come to `cursor`.
    pub(super) fn taken(&self) {
        self.taken.notify_one();
    }

    /// Lets go of what those who wait for `flight` have taken, and waits while there is too much for those who stream.
    pub(super) async fn make_room(&self, flight: &Flight) {
        loop {
            let (taken, gone) = (self.taken.notified(), flight.demand.changed());
            let cursors: Option<Vec<Moment>> = flight.seats().into_iter().map(|(seat, _)| seat.cursor()).collect();
            // Somebody wants all of it at once: holding it up would help nobody.
            let Some(cursors) = cursors else { return };
            let Some(first) = cursors.iter().min().copied() else { return };
            let held: usize = {
                let mut seen = self.lock();
                while seen.chunks.pop_front_if(|chunk| chunk.span().end <= first).is_some() {}
                seen.chunks.iter().map(|chunk| chunk.weight()).sum()
            };
            if held <= MOST || self.at(first).is_none() {
                return;
            }
            tokio::select! {
                () = taken => {}
                () = gone => {}
            }
        }
    }
}
