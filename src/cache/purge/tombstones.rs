//! What of an account was purged, and what that makes of a chunk. Pure.
//!
//! Each purge has a number, its epoch, and each chunk carries the epoch that was known when the run that brought it
//! began. So whether a chunk may be served is a matter of numbers, not of clocks: it may not if a purge of its time has a
//! greater one. A replica that knows of fewer purges gives its chunks smaller numbers, which is always safe.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::cache::redis::encoded;
use crate::window::{Interval, Timestamp};

/// So many purges of an account are remembered one by one.
const MOST: usize = 1000;
/// No epoch is as great as this: one that is was written by nobody who counts as we do.
const BEYOND: u64 = 1 << 62;

/// What was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cache) struct Tombstone {
    /// Of which stream; `None` is of all.
    pub(in crate::cache) stream: Option<Arc<str>>,
    /// Of which time.
    pub(in crate::cache) interval: Interval,
}

impl Tombstone {
    /// Of everything that an account has.
    pub(in crate::cache) const EVERYTHING: Self = Self { stream: None, interval: Interval::EVER };

    /// Whether a chunk of `interval` would hold something of it.
    pub(in crate::cache) fn touches(&self, stream: &str, interval: Interval) -> bool {
        self.stream.as_deref().is_none_or(|own| own == stream) && self.interval.overlaps(interval)
    }

    /// Whether nothing of `other` lies beyond it.
    pub(in crate::cache) fn covers(&self, other: &Self) -> bool {
        let streams = self.stream.is_none() || self.stream == other.stream;
        streams && self.interval.intersection(other.interval) == other.interval
    }

    /// The least that covers both.
    fn and(&self, other: &Self) -> Self {
        let stream = self.stream.clone().filter(|_| self.stream == other.stream);
        let (start, end) = (self.interval.start.min(other.interval.start), self.interval.end.max(other.interval.end));
        Self { stream, interval: Interval::new(start, end) }
    }

    /// Reads what [`Tombstone`] writes. What does not read is taken for everything: it was a purge of something.
    pub(in crate::cache) fn read(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::EVERYTHING)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let stream = match words.next()? {
            "*" => None,
            stream => Some(percent_decode_str(stream).decode_utf8().ok()?.into()),
        };
        let mut moment = || words.next()?.parse().ok().map(Timestamp::from_nanos);
        let interval = Interval::new(moment()?, moment()?);
        words.next().is_none().then_some(Self { stream, interval })
    }
}

/// As it stands in Redis: the stream, percent-encoded, or `*`; and the span, in nanoseconds since 1970.
impl fmt::Display for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream.as_deref().map_or("*".to_owned(), encoded);
        write!(f, "{stream} {} {}", self.interval.start.as_nanos(), self.interval.end.as_nanos())
    }
}

/// An epoch that stands somewhere, if it is one.
pub(in crate::cache) fn read_epoch(text: &str) -> Option<u64> {
    text.parse().ok().filter(|epoch| *epoch < BEYOND)
}

/// All purges of an account that still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Tombstones {
    /// Of what was before this, purges are forgotten: it counts as purged altogether.
    floor: u64,
    tombs: BTreeMap<u64, Tombstone>,
}

impl Tombstones {
    /// The epoch of the last purge; 0 if there was none.
    pub(in crate::cache) fn epoch(&self) -> u64 {
        self.tombs.last_key_value().map_or(self.floor, |(epoch, _)| *epoch)
    }

    /// See [`Tombstones`].
    pub(in crate::cache) fn floor(&self) -> u64 {
        self.floor
    }

    /// The purges, each with its epoch, ascending.
    pub(in crate::cache) fn iter(&self) -> impl Iterator<Item = (u64, &Tombstone)> {
        self.tombs.iter().map(|(epoch, tomb)| (*epoch, tomb))
    }

    /// The purge with this epoch.
    pub(in crate::cache) fn get(&self, epoch: u64) -> Option<&Tombstone> {
        self.tombs.get(&epoch)
    }

    /// **The rule**: whether what a run of this epoch brought of this time must not be served any more.
    pub(in crate::cache) fn buries(&self, stream: &str, interval: Interval, epoch: u64) -> bool {
        epoch < self.floor
            || self.tombs.range(epoch.saturating_add(1)..).any(|(_, tomb)| tomb.touches(stream, interval))
    }

    /// The epoch of a purge at `now`. Beyond all that are known, and beyond what chunks may carry that were fetched when
    /// more was known than now, as long as clocks are right.
    pub(in crate::cache) fn next(&self, now: Timestamp) -> u64 {
        let millis = u64::try_from(now.as_nanos() / 1_000_000).unwrap_or_default();
        millis.max(self.epoch() + 1)
    }

    /// Remembers a purge.
    pub(in crate::cache) fn add(&mut self, epoch: u64, tomb: Tombstone) {
        self.insert(epoch, tomb);
        self.prune(MOST);
    }

    /// Remembers that what was before `floor` counts as purged.
    pub(in crate::cache) fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.tombs.retain(|epoch, _| *epoch > self.floor);
    }

    /// Forgets a purge that nobody else has heard of.
    pub(in crate::cache) fn take_back(&mut self, epoch: u64) {
        self.tombs.remove(&epoch);
    }

    /// Remembers what another knows too.
    pub(in crate::cache) fn merge(&mut self, other: &Self) {
        self.raise(other.floor);
        for (epoch, tomb) in other.iter() {
            self.insert(epoch, tomb.clone());
        }
        self.prune(MOST);
    }

    fn insert(&mut self, epoch: u64, mut tomb: Tombstone) {
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

    fn interval(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
    }

    fn tomb((stream, start, length): (u8, i64, i64)) -> Tombstone {
        let stream = (stream > 0).then(|| stream.to_string().into());
        // Now and then it is of all time.
        let interval = if length > 15 { Interval::EVER } else { interval(start, start + length.max(1)) };
        Tombstone { stream, interval }
    }

    fn tombs(given: &[(u64, Tombstone)]) -> Tombstones {
        let mut tombs = Tombstones::default();
        for (epoch, tomb) in given {
            tombs.add(*epoch, tomb.clone());
        }
        tombs
    }

    fn purges() -> impl Strategy<Value = Vec<(u64, Tombstone)>> {
        let purge = (0u8..3, 0i64..30, 0i64..20);
        prop::collection::vec(purge, 0..20).prop_map(|purges| {
            let numbered = purges.into_iter().enumerate();
            numbered.map(|(number, purge)| (3 * number as u64 + 1, tomb(purge))).collect()
        })
    }

    fn naive(purges: &[(u64, Tombstone)], stream: &str, interval: Interval, epoch: u64) -> bool {
        let moments = |of: Interval| of.start.as_nanos().max(-5)..of.end.as_nanos().min(100);
        purges.iter().any(|(purged, tomb)| {
            let of_it = tomb.stream.as_deref().is_none_or(|own| own == stream);
            *purged > epoch && of_it && moments(tomb.interval).any(|moment| moments(interval).contains(&moment))
        })
    }

    proptest! {
        /// The naive model is the list of all purges, and of each its moments.
        #[test]
        fn a_chunk_is_buried_if_a_later_purge_touches_it(
            purges in purges(), order in any::<u64>(), stream in 1u8..3, start in 0i64..40, length in 1i64..9, epoch in 0u64..70
        ) {
            let (stream, interval) = (stream.to_string(), interval(start, start + length));
            let expected = naive(&purges, &stream, interval, epoch);
            prop_assert_eq!(tombs(&purges).buries(&stream, interval, epoch), expected);
            // In whatever order they become known, one by one or from another replica.
            let mut shuffled = purges.clone();
            shuffled.sort_by_key(|(epoch, _)| (epoch.wrapping_mul(order | 1)).rotate_left(17));
            let (ours, theirs) = shuffled.split_at(shuffled.len() / 2);
            let (mut ours, theirs) = (tombs(ours), tombs(theirs));
            ours.merge(&theirs);
            prop_assert_eq!(ours.buries(&stream, interval, epoch), expected);
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
            let (stream, interval) = (stream.to_string(), interval(start, start + length));
            if naive(&purges, &stream, interval, epoch) {
                prop_assert!(pruned.buries(&stream, interval, epoch));
            }
            prop_assert!(!pruned.buries(&stream, interval, known), "what began after the last purge is good");
        }

        #[test]
        fn a_purge_reads_back_as_it_was(stream in prop::option::of(".{1,12}"), start: i64, end: i64) {
            let tomb = Tombstone { stream: stream.map(Into::into), interval: interval(start, end) };
            prop_assert_eq!(Tombstone::read(&tomb.to_string()), tomb);
        }
    }

    #[test]
    fn what_does_not_read_as_a_purge_is_one_of_everything() {
        for text in ["", "*", "* 1", "* 1 x", "* 1 2 3", "%ff 1 2"] {
            assert_eq!(Tombstone::read(text), Tombstone::EVERYTHING, "{text}");
        }
    }

    #[test]
    fn an_epoch_grows_even_if_the_clock_does_not() {
        let mut tombs = Tombstones::default();
        let now = Timestamp::from_millis(1_000);
        assert_eq!(tombs.next(now), 1_000);
        tombs.add(1_000, Tombstone::EVERYTHING);
        assert_eq!(
            (tombs.next(now), tombs.next(Timestamp::MIN), tombs.next(Timestamp::from_millis(5_000))),
            (1_001, 1_001, 5_000)
        );
    }

    #[test]
    fn no_more_than_a_thousand_are_remembered() {
        let mut tombs = Tombstones::default();
        for number in 1..=1_200 {
            tombs.add(number, Tombstone { stream: Some(number.to_string().into()), interval: Interval::EVER });
        }
        assert_eq!((tombs.iter().count(), tombs.floor(), tombs.epoch()), (1_000, 200, 1_200));
        tombs.add(1_201, Tombstone::EVERYTHING);
        assert_eq!(tombs.iter().count(), 1);
    }

    #[test]
    fn two_of_one_epoch_are_both() {
        let purge =
            |stream: &str, start| Tombstone { stream: Some(stream.into()), interval: interval(start, start + 1) };
        let tombs = tombs(&[(7, purge("a", 0)), (7, purge("b", 9))]);
        assert!(
            tombs.buries("a", interval(0, 1), 6)
                && tombs.buries("b", interval(9, 10), 6)
                && !tombs.buries("a", interval(0, 1), 7)
        );
    }
}
