//! What of an account was purged, and what that makes of a chunk. Pure.
//!
//! Each purge has a number, its epoch, and each chunk carries the epoch that was known when the run that brought it
//! began. So whether a chunk may be served is a matter of numbers, not of clocks: it may not if a purge of its time has a
//! greater one. A replica that knows of fewer purges gives its chunks smaller numbers, which is always safe.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::tier::encoded;
use crate::window::{Moment, Span};

/// So many purges of an account are remembered one by one.
const MOST: usize = 1000;
/// No epoch is as great as this: one that is was written by nobody who counts as we do.
const BEYOND: u64 = 1 << 62;

/// What was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tomb {
    /// Of which stream; `None` is of all.
    pub(super) stream: Option<Arc<str>>,
    /// Of which time.
    pub(super) span: Span,
}

impl Tomb {
    /// Of everything that an account has.
    pub(super) const EVERYTHING: Self = Self { stream: None, span: Span::EVER };

    /// Whether a chunk of `span` would hold something of it.
    pub(super) fn touches(&self, stream: &str, span: Span) -> bool {
        self.stream.as_deref().is_none_or(|own| own == stream) && self.span.overlaps(span)
    }

    /// Whether nothing of `other` lies beyond it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let streams = self.stream.is_none() || self.stream == other.stream;
        streams && self.span.intersection(other.span) == other.span
    }

    /// The least that covers both.
    fn and(&self, other: &Self) -> Self {
        let stream = self.stream.clone().filter(|_| self.stream == other.stream);
        let (start, end) = (self.span.start.min(other.span.start), self.span.end.max(other.span.end));
        Self { stream, span: Span::new(start, end) }
    }

    /// Reads what [`Tomb`] writes. What does not read is taken for everything: it was a purge of something.
    pub(super) fn read(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::EVERYTHING)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let stream = match words.next()? {
            "*" => None,
            stream => Some(percent_decode_str(stream).decode_utf8().ok()?.into()),
        };
        let mut moment = || words.next()?.parse().ok().map(Moment::from_nanos);
        let span = Span::new(moment()?, moment()?);
        words.next().is_none().then_some(Self { stream, span })
    }
}

/// As it stands in Redis: the stream, percent-encoded, or `*`; and the span, in nanoseconds since 1970.
impl fmt::Display for Tomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream.as_deref().map_or("*".to_owned(), encoded);
        write!(f, "{stream} {} {}", self.span.start.as_nanos(), self.span.end.as_nanos())
    }
}

/// An epoch that stands somewhere, if it is one.
pub(super) fn read_epoch(text: &str) -> Option<u64> {
    text.parse().ok().filter(|epoch| *epoch < BEYOND)
}

/// All purges of an account that still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tombs {
    /// Of what was before this, purges are forgotten: it counts as purged altogether.
    floor: u64,
    tombs: BTreeMap<u64, Tomb>,
}

impl Tombs {
    /// The epoch of the last purge; 0 if there was none.
    pub(super) fn epoch(&self) -> u64 {
        self.tombs.last_key_value().map_or(self.floor, |(epoch, _)| *epoch)
    }

    /// See [`Tombs`].
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The purges, each with its epoch, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Tomb)> {
        self.tombs.iter().map(|(epoch, tomb)| (*epoch, tomb))
    }

    /// The purge with this epoch.
    pub(super) fn get(&self, epoch: u64) -> Option<&Tomb> {
        self.tombs.get(&epoch)
    }

    /// **The rule**: whether what a run of this epoch brought of this time must not be served any more.
    pub(super) fn buries(&self, stream: &str, span: Span, epoch: u64) -> bool {
        epoch < self.floor || self.tombs.range(epoch.saturating_add(1)..).any(|(_, tomb)| tomb.touches(stream, span))
    }

    /// The epoch of a purge at `now`. Beyond all that are known, and beyond what chunks may carry that were fetched when
    /// more was known than now, as long as clocks are right.
    pub(super) fn next(&self, now: Moment) -> u64 {
        let millis = u64::try_from(now.as_nanos() / 1_000_000).unwrap_or_default();
        millis.max(self.epoch() + 1)
    }

    /// Remembers a purge.
    pub(super) fn add(&mut self, epoch: u64, tomb: Tomb) {
        self.insert(epoch, tomb);
        self.prune(MOST);
    }

    /// Remembers that what was before `floor` counts as purged.
    pub(super) fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.tombs.retain(|epoch, _| *epoch > self.floor);
    }

    /// Forgets a purge that nobody else has heard of.
    pub(super) fn take_back(&mut self, epoch: u64) {
        self.tombs.remove(&epoch);
    }

    /// Remembers what another knows too.
    pub(super) fn merge(&mut self, other: &Self) {
        self.raise(other.floor);
        for (epoch, tomb) in other.iter() {
            self.insert(epoch, tomb.clone());
        }
        self.prune(MOST);
    }

    fn insert(&mut self, epoch: u64, mut tomb: Tomb) {
        if let Some(known) = self.tombs.get(&epoch) {
            // Two purges of one epoch can only be of replicas that could not tell each other: then it is of both.
            tomb = known.and(&tomb);
        }
        let needless = epoch <= self.floor || self.tombs.range(epoch + 1..).any(|(_, later)| later.covers(&tomb));
        if !needless {
            self.tombs.retain(|earlier, known| *earlier > epoch || !tomb.covers(known));
            self.tombs.insert(epoch, tomb);
        }
    }

    fn prune(&mut self, most: usize) {
        while self.tombs.len() > most
            && let Some((epoch, _)) = self.tombs.pop_first()
        {
            self.floor = epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Moment::from_nanos(start), Moment::from_nanos(end))
    }

    fn tomb((stream, start, length): (u8, i64, i64)) -> Tomb {
        let stream = (stream > 0).then(|| stream.to_string().into());
        // Now and then it is of all time.
        let span = if length > 15 { Span::EVER } else { span(start, start + length.max(1)) };
        Tomb { stream, span }
    }

    fn tombs(given: &[(u64, Tomb)]) -> Tombs {
        let mut tombs = Tombs::default();
        for (epoch, tomb) in given {
            tombs.add(*epoch, tomb.clone());
        }
        tombs
    }

    fn purges() -> impl Strategy<Value = Vec<(u64, Tomb)>> {
        let purge = (0u8..3, 0i64..30, 0i64..20);
        prop::collection::vec(purge, 0..20).prop_map(|purges| {
            let numbered = purges.into_iter().enumerate();
            numbered.map(|(number, purge)| (3 * number as u64 + 1, tomb(purge))).collect()
        })
    }

    fn naive(purges: &[(u64, Tomb)], stream: &str, span: Span, epoch: u64) -> bool {
        let moments = |of: Span| of.start.as_nanos().max(-5)..of.end.as_nanos().min(100);
        purges.iter().any(|(purged, tomb)| {
            let of_it = tomb.stream.as_deref().is_none_or(|own| own == stream);
            *purged > epoch && of_it && moments(tomb.span).any(|moment| moments(span).contains(&moment))
        })
    }

    proptest! {
        /// The naive model is the list of all purges, and of each its moments.
        #[test]
        fn a_chunk_is_buried_if_a_later_purge_touches_it(
            purges in purges(), order in any::<u64>(), stream in 1u8..3, start in 0i64..40, length in 1i64..9, epoch in 0u64..70
        ) {
            let (stream, span) = (stream.to_string(), span(start, start + length));
            let expected = naive(&purges, &stream, span, epoch);
            prop_assert_eq!(tombs(&purges).buries(&stream, span, epoch), expected);
            // In whatever order they become known, one by one or from another replica.
            let mut shuffled = purges.clone();
            shuffled.sort_by_key(|(epoch, _)| (epoch.wrapping_mul(order | 1)).rotate_left(17));
            let (ours, theirs) = shuffled.split_at(shuffled.len() / 2);
            let (mut ours, theirs) = (tombs(ours), tombs(theirs));
            ours.merge(&theirs);
            prop_assert_eq!(ours.buries(&stream, span, epoch), expected);
            let merged = ours.clone();
            ours.merge(&merged);
            prop_assert_eq!(&ours, &merged, "known already");
        }

        #[test]
        fn what_is_forgotten_counts_as_purged(
            purges in purges(), most in 0usize..5, stream in 1u8..3, start in 0i64..40, length in 1i64..9, epoch in 0u64..70
        ) {
            let mut pruned = tombs(&purges);
            let known = pruned.epoch();
            pruned.prune(most);
            prop_assert!(pruned.tombs.len() <= most && pruned.epoch() == known);
            let (stream, span) = (stream.to_string(), span(start, start + length));
            if naive(&purges, &stream, span, epoch) {
                prop_assert!(pruned.buries(&stream, span, epoch));
            }
            prop_assert!(!pruned.buries(&stream, span, known), "what began after the last purge is good");
        }

        #[test]
        fn a_purge_reads_back_as_it_was(stream in prop::option::of(".{1,12}"), start: i64, end: i64) {
            let tomb = Tomb { stream: stream.map(Into::into), span: span(start, end) };
            prop_assert_eq!(Tomb::read(&tomb.to_string()), tomb);
        }
    }

    #[test]
    fn what_does_not_read_as_a_purge_is_one_of_everything() {
        for text in ["", "*", "* 1", "* 1 x", "* 1 2 3", "%ff 1 2"] {
            assert_eq!(Tomb::read(text), Tomb::EVERYTHING, "{text}");
        }
    }

    #[test]
    fn an_epoch_grows_even_if_the_clock_does_not() {
        let mut tombs = Tombs::default();
        let now = Moment::from_millis(1_000);
        assert_eq!(tombs.next(now), 1_000);
        tombs.add(1_000, Tomb::EVERYTHING);
        assert_eq!(
            (tombs.next(now), tombs.next(Moment::MIN), tombs.next(Moment::from_millis(5_000))),
            (1_001, 1_001, 5_000)
        );
    }

    #[test]
    fn no_more_than_a_thousand_are_remembered() {
        let mut tombs = Tombs::default();
        for number in 1..=1_200 {
            tombs.add(number, Tomb { stream: Some(number.to_string().into()), span: Span::EVER });
        }
        assert_eq!((tombs.iter().count(), tombs.floor(), tombs.epoch()), (1_000, 200, 1_200));
        tombs.add(1_201, Tomb::EVERYTHING);
        assert_eq!(tombs.iter().count(), 1);
    }

    #[test]
    fn two_of_one_epoch_are_both() {
        let purge = |stream: &str, start| Tomb { stream: Some(stream.into()), span: span(start, start + 1) };
        let tombs = tombs(&[(7, purge("a", 0)), (7, purge("b", 9))]);
        assert!(
            tombs.buries("a", span(0, 1), 6) && tombs.buries("b", span(9, 10), 6) && !tombs.buries("a", span(0, 1), 7)
        );
    }
}
