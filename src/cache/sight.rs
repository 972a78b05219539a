//! What a flight has seen before it has landed, for those who stream it: they need not wait for the last page to send
//! the first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::chunk::Chunk;
use super::flight::Flight;
use super::seat::Seat;
use crate::window::{Moment, Span};

/// More than this is not kept for those who are behind, while all who wait stream: then the fetch waits for them.
const MOST: usize = 4 << 20;

/// The chunks that a flight has seen from its beginning on, one after the other, until all have taken them.
#[derive(Debug, Default)]
pub(super) struct Sight {
    seen: Mutex<Seen>,
    is_long: AtomicBool,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    chunks: VecDeque<Arc<Chunk>>,
    /// What its run has landed with before, and for whom: they have it in hand, and not all have sent it yet.
    landed: VecDeque<Arc<Chunk>>,
    landed_for: Vec<Weak<Seat>>,
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
        if seen.verdict != Verdict::Open {
            return;
        }
        let mut end = seen.end.unwrap_or(span.start);
        for chunk in chunks {
            if chunk.span().start == end {
                end = chunk.span().end;
                seen.chunks.push_back(chunk.clone());
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

    /// Goes on behind what its run has landed with: before, and just now. Those who are slow to send it are waited for as
    /// before.
    pub(super) fn go_on_behind(&self, before: &Self, brought: &[Arc<Chunk>], seats: &[(Arc<Seat>, Span)]) {
        let mut landed = Vec::from(std::mem::take(&mut before.lock().landed));
        landed.extend_from_slice(brought);
        landed.sort_by_key(|chunk| chunk.span().start);
        landed.dedup_by(|next, one| Arc::ptr_eq(next, one));
        let mut seen = self.lock();
        seen.landed = landed.into();
        seen.landed_for = seats.iter().map(|(seat, _)| Arc::downgrade(seat)).collect();
    }

    /// How what was shown has ended. Gives what not all have taken yet: there may be no room for it anywhere else.
    pub(super) fn conclude(&self, verdict: Verdict) -> VecDeque<Arc<Chunk>> {
        let mut seen = self.lock();
        if seen.verdict == Verdict::Open && (seen.end.is_some() || verdict == Verdict::Proven) {
            seen.verdict = verdict;
        }
        std::mem::take(&mut seen.chunks)
    }

    /// See [`Sight::conclude`].
    pub(super) fn verdict(&self) -> Verdict {
        self.lock().verdict
    }

    /// Somebody who streams has come further, or somebody else has come.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Lets go of what those who wait for `flight` have taken, and waits while there is too much for those who stream.
    pub(super) async fn make_room(&self, flight: &Flight) {
        loop {
            let changed = self.changed.notified();
            let seats = flight.seats().into_iter();
            let cursors: Option<Vec<_>> = seats.map(|(seat, _)| Some((seat.cursor_in(flight)?, seat))).collect();
            // Somebody wants all of it at once, or cannot take it before: holding it up would help nobody.
            let Some(cursors) = cursors else { return };
            let Some((first, seat)) = cursors.iter().min_by_key(|(cursor, _)| *cursor) else { return };
            if !self.lock().is_too_much_for(seat, *first) {
                return;
            }
            changed.await;
        }
    }
}

impl Seen {
    /// Lets go of what lies in front of `first`, as far as the slowest of those who stream has come. Whether there is too
    /// much left, and that one has what it needs to go on: if it waits for something else, that might wait for this.
    fn is_too_much_for(&mut self, slowest: &Arc<Seat>, first: Moment) -> bool {
        let has_landed = self.landed_for.iter().any(|seat| std::ptr::eq(seat.as_ptr(), Arc::as_ptr(slowest)));
        let (mut held, mut goes_on) = (0, false);
        for (chunks, is_theirs) in [(&mut self.landed, has_landed), (&mut self.chunks, true)] {
            while chunks.pop_front_if(|chunk| chunk.span().end <= first).is_some() {}
            held += chunks.iter().map(|chunk| chunk.weight()).sum::<usize>();
            goes_on |= is_theirs && chunks.iter().any(|chunk| chunk.span().contains(first));
        }
        held > MOST && goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::cache::Settled;
    use crate::cache::seat::Cursor;
    use crate::repage::{Item, Placed};
    use crate::upstream::{Asker, Demand, Patience};

    fn hours(start: i64, end: i64) -> Span {
        Span::new(Moment::from_seconds(start * 3600), Moment::from_seconds(end * 3600))
    }

    /// A chunk of an hour, of a mebibyte that does not deflate.
    fn chunk(hour: i64) -> Arc<Chunk> {
        let mut noise = fastrand::Rng::with_seed(7);
        let json: Bytes = (0..1 << 20).map(|_| noise.u8(..)).collect();
        let item = Item { at: hours(hour, hour + 1).start, id: Bytes::new(), json };
        Arc::new(Chunk::new(hours(hour, hour + 1), Moment::from_seconds(0), Settled::Yes, &[item]))
    }

    fn flight() -> Arc<Flight> {
        let demand = Demand::new(Asker::anyone());
        Flight::begin(hours(0, 24), false, Placed::Checked, Moment::from_seconds(0), 0, demand).0
    }

    fn wait(flight: &Arc<Flight>, cursor: Option<Moment>) -> Arc<Seat> {
        let seat = Seat::new(Asker::anyone(), Arc::new(Patience::new(Duration::ZERO)));
        assert!(seat.wait_for(flight, hours(0, 24)));
        if let Some(cursor) = cursor {
            seat.stream_from(Cursor { at: cursor, rich: false });
        }
        seat
    }

    #[test]
    fn a_flight_waits_for_those_who_stream_and_for_nobody_else() {
        let flight = flight();
        let slow = wait(&flight, Some(hours(0, 0).start));
        for hour in 0..3 {
            flight.sight.show(hours(0, 24), &[chunk(hour)]);
            assert!(flight.sight.make_room(&flight).now_or_never().is_some(), "there is room");
        }
        flight.sight.show(hours(0, 24), &[chunk(3), chunk(4)]);
        let mut room = Box::pin(flight.sight.make_room(&flight));
        assert!(room.as_mut().now_or_never().is_none());
        slow.stream_from(Cursor { at: hours(2, 2).start, rich: false });
        assert!(room.as_mut().now_or_never().is_some());
        assert!(flight.sight.at(hours(1, 1).start).is_none(), "what all have taken is let go of");

        flight.sight.show(hours(0, 24), &[chunk(5), chunk(6)]);
        let mut room = Box::pin(flight.sight.make_room(&flight));
        assert!(room.as_mut().now_or_never().is_none());
        let _whole = wait(&flight, None);
        assert!(room.as_mut().now_or_never().is_some(), "somebody wants all of it, and streams nothing");
    }

    #[test]
    fn nobody_is_waited_for_who_has_gone_or_waits_for_something_else() {
        let flight = flight();
        let seat = wait(&flight, Some(hours(0, 0).start));
        flight.sight.show(hours(0, 24), &(0..6).map(chunk).collect::<Vec<_>>());
        let _ahead = wait(&flight, Some(hours(12, 12).start));
        assert!(flight.sight.make_room(&flight).now_or_never().is_none());
        drop(seat);
        assert!(flight.sight.make_room(&flight).now_or_never().is_some());
    }

    #[test]
    fn only_what_follows_from_the_beginning_is_shown_and_nothing_that_is_refuted() {
        let flight = flight();
        flight.sight.show(hours(0, 24), &[chunk(23)]);
        assert!(flight.sight.at(hours(23, 23).start).is_none());
        flight.sight.show(hours(0, 24), &[chunk(0)]);
        assert!(flight.sight.at(hours(0, 0).start).is_some());
        flight.sight.conclude(Verdict::Refuted);
        flight.sight.show(hours(0, 24), &[chunk(1)]);
        assert_eq!((flight.sight.verdict(), flight.sight.at(hours(1, 1).start).is_none()), (Verdict::Refuted, true));
        flight.sight.conclude(Verdict::Proven);
        assert_eq!(flight.sight.verdict(), Verdict::Refuted);
    }
}
