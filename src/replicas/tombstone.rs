//! The time of a stream that a purge removes, with the text under which it stands in Redis and in messages.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::redis_client::key_segment;
use crate::window::{Interval, Timestamp};

/// Epochs are milliseconds, so none of a replica is this large: a larger one was written by something else.
const MAX_EPOCH: u64 = 1 << 62;

/// The data of an account that a purge removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The purged stream; `None` means all streams of the account.
    pub stream: Option<Arc<str>>,
    /// The purged time.
    pub interval: Interval,
}

impl Tombstone {
    /// All data of an account.
    pub const EVERYTHING: Self = Self { stream: None, interval: Interval::EVER };

    /// Whether a chunk of this stream and interval overlaps the purged data.
    pub fn overlaps(&self, stream: &str, interval: Interval) -> bool {
        self.stream.as_deref().is_none_or(|own| own == stream) && self.interval.overlaps(interval)
    }

    /// Whether all data of `other` is purged by this tombstone too.
    pub fn covers(&self, other: &Self) -> bool {
        let streams = self.stream.is_none() || self.stream == other.stream;
        streams && self.interval.intersection(other.interval) == other.interval
    }

    /// The smallest tombstone that covers both.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let stream = self.stream.clone().filter(|_| self.stream == other.stream);
        let (start, end) = (self.interval.start.min(other.interval.start), self.interval.end.max(other.interval.end));
        Self { stream, interval: Interval::new(start, end) }
    }

    /// Parses the text that [`fmt::Display`] writes. A text that cannot be parsed stands for everything, because
    /// something was purged.
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
        words.next().is_none().then_some(Self { stream, interval })
    }
}

/// The stream, percent-encoded, or `*`; then start and end in nanoseconds since 1970.
impl fmt::Display for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream.as_deref().map_or("*".to_owned(), key_segment);
        write!(f, "{stream} {} {}", self.interval.start.as_nanos(), self.interval.end.as_nanos())
    }
}

/// Parses the epoch of a purge; `None` if it is none that a replica counts.
pub fn parse_epoch(text: &str) -> Option<u64> {
    text.parse().ok().filter(|epoch| *epoch < MAX_EPOCH)
}
