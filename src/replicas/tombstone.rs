//! The data of an account that a purge removes, with the text under which it stands in Redis and in messages.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::hex;
use crate::redis_client::key_segment;
use crate::request::{IdFilter, IdHashes};
use crate::window::{Interval, Timestamp};

/// Epochs are milliseconds, so none of a replica is this large: a larger one was written by something else.
const MAX_EPOCH: u64 = 1 << 62;
/// Digits of the hash of an id.
const HASH_DIGITS: usize = 8;

/// The data of an account that a purge removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The purged stream; `None` means all streams of the account.
    pub stream: Option<Arc<str>>,
    /// The purged time.
    pub interval: Interval,
    /// The ids whose chunks are purged; `None` means all chunks.
    pub ids: Option<IdHashes>,
}

impl Tombstone {
    /// All data of an account.
    pub const EVERYTHING: Self = Self { stream: None, interval: Interval::EVER, ids: None };

    /// Whether a chunk of this stream and interval, whose items may have these ids, is purged.
    pub fn purges(&self, stream: &str, interval: Interval, ids: &IdFilter) -> bool {
        self.stream.as_deref().is_none_or(|own| own == stream)
            && self.interval.overlaps(interval)
            && self.ids.as_ref().is_none_or(|own| ids.may_hold(own))
    }

    /// Whether all data of `other` is purged by this tombstone too.
    pub fn covers(&self, other: &Self) -> bool {
        let ids = match (&self.ids, &other.ids) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.is_superset(other),
        };
        let streams = self.stream.is_none() || self.stream == other.stream;
        streams && ids && self.interval.intersection(other.interval) == other.interval
    }

    /// A tombstone that covers both, and of the same stream and interval no more than both.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let stream = self.stream.clone().filter(|_| self.stream == other.stream);
        let (start, end) = (self.interval.start.min(other.interval.start), self.interval.end.max(other.interval.end));
        let ids = self.ids.as_ref().zip(other.ids.as_ref()).map(|(own, other)| own.union(other));
        Self { stream, interval: Interval::new(start, end), ids }
    }

    /// Parses the text that [`fmt::Display`] writes. A text that cannot be parsed stands for everything, because
    /// something was purged. So does a text with ids for a replica of an earlier version.
    pub fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or(Self::EVERYTHING)
    }

    fn try_parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let stream = match words.next()? {
            "*" => None,
            stream => Some(percent_decode_str(stream).decode_utf8().ok()?.into()),
        };
        let mut timestamp = || words.next()?.parse().ok().map(Timestamp::from_nanos);
        let interval = Interval::new(timestamp()?, timestamp()?);
        let ids = match words.next() {
            None => None,
            Some(digits) => Some(parse_hashes(digits)?),
        };
        words.next().is_none().then_some(Self { stream, interval, ids })
    }
}

/// The stream, percent-encoded, or `*`; then start and end in nanoseconds since 1970; then, if there are ids, eight
/// hexadecimal digits for the hash of each, ascending.
impl fmt::Display for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream.as_deref().map_or("*".to_owned(), key_segment);
        write!(f, "{stream} {} {}", self.interval.start.as_nanos(), self.interval.end.as_nanos())?;
        let Some(ids) = &self.ids else { return Ok(()) };
        f.write_str(" ")?;
        ids.as_slice().iter().try_for_each(|hash| write!(f, "{hash:0HASH_DIGITS$x}"))
    }
}

fn parse_hashes(digits: &str) -> Option<IdHashes> {
    let (hashes, []) = digits.as_bytes().as_chunks::<HASH_DIGITS>() else { return None };
    let hash = |digits: &[u8; HASH_DIGITS]| Some(u32::from_be_bytes(hex::decode(std::str::from_utf8(digits).ok()?)?));
    IdHashes::from_ascending(hashes.iter().map(hash).collect::<Option<_>>()?).filter(|hashes| !hashes.is_empty())
}

/// Parses the epoch of a purge; `None` if it is none that a replica counts.
pub fn parse_epoch(text: &str) -> Option<u64> {
    text.parse().ok().filter(|epoch| *epoch < MAX_EPOCH)
}
