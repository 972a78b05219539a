//! Requests to the cache stage, and its answers.

use std::sync::Arc;
use std::time::Duration;

use super::chunk::{ItemSlice, PageRange};
use super::outcome::Outcome;
use super::store::ValidityToken;
use super::stream_channel::RemainingStream;
use crate::request::{Requester, Series, WaitMeter};
use crate::traces::Span;
use crate::window::{FreshnessDemand, Interval, Timestamp};

/// A request for a window of a series.
#[derive(Clone, Debug)]
pub struct WindowQuery {
    /// The series whose rows are requested.
    pub series: Arc<Series>,
    /// The requested time, cut at now.
    pub interval: Interval,
    /// The requested items of the window.
    pub page_range: PageRange,
    /// The time of the request.
    pub asked_at: Timestamp,
    /// The caller, and the priority of the request.
    pub requester: Requester,
    /// Whether the answer may be sent before its length is known.
    pub may_stream: bool,
    /// The wishes of the request beside its window.
    pub options: QueryOptions,
    /// Counts the time for which the request waits for the quota.
    pub waited: WaitMeter,
    /// The span of the request.
    pub span: Span,
}

/// The wishes of a request beside its window: how fresh data must be, and how long it may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// The demand on the age of cached data.
    pub freshness: FreshnessDemand,
    /// Whether nothing is fetched: what is neither in memory, on disk nor in Redis is [`CacheError::NotCached`].
    ///
    /// [`CacheError::NotCached`]: super::CacheError::NotCached
    pub only_cached: bool,
    /// How long the request waits for the quota; `None` for `quota.queue_timeout`.
    pub queue_timeout: Option<Duration>,
}

/// The answer to a [`WindowQuery`].
#[derive(Debug)]
pub struct WindowAnswer {
    /// The requested items. Empty if the answer is streamed.
    pub items: ItemSlice,
    /// The items of a streamed answer, of which only the outcome is known yet.
    pub rest: Option<RemainingStream>,
    /// Whether all of the window has settled, so that the answer never changes.
    pub settled: bool,
    /// Holds as long as the same answer may be repeated without looking at its chunks; `None` if it must not be
    /// repeated.
    pub validity: Option<ValidityToken>,
    /// The time of the oldest fetch that is part of the answer; `None` if all of it was fetched after the request.
    pub oldest_entry: Option<Timestamp>,
    /// The time up to which every part of the answer is fresh; `None` if they stay fresh, or there are none.
    pub fresh_until: Option<Timestamp>,
    /// The cache's part in the answer.
    pub outcome: Outcome,
    /// The number of chunk slices that the window is made of.
    pub chunks: usize,
    /// The number of those slices that were cached before the request.
    pub hits: usize,
    /// The upstream calls that were made for this answer, and are reported in no other answer.
    pub calls: u32,
}

/// A request for the same window out of cached data alone. No fetch is started or waited for, and no other replica and
/// no Redis is asked.
#[derive(Clone, Debug)]
pub struct CachedQuery(pub WindowQuery);

/// The answer to a [`CachedQuery`].
#[derive(Debug)]
pub enum CachedWindow {
    /// All of the window is cached.
    Complete(WindowAnswer),
    /// Something is missing, or is too much to be read from disk at once: what the window would cost.
    Incomplete(Cost),
}

/// A request for what the same window would cost now. No fetch is started for it.
#[derive(Clone, Debug)]
pub struct CostQuery(pub WindowQuery);

/// The estimated cost of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The runs that would be fetched, ascending. Each takes at least one call.
    pub runs: Vec<Interval>,
    /// The estimated number of calls; `None` if nothing is known of the density.
    pub expected: Option<u64>,
    /// The intervals of the window that are being fetched already, ascending: they cost no further call, but are waited
    /// for.
    pub under_way: Vec<Interval>,
    /// The number of chunk slices that the answer would be made of, at least: a dense stream is divided further.
    pub chunks: usize,
    /// The number of those slices that are cached.
    pub hits: usize,
    /// The cache's part in the answer.
    pub outcome: Outcome,
    /// The cached data that `expected` is computed from.
    pub basis: CostBasis,
    /// The time before which data is settled now: a window that ends later is open.
    pub settled_until: Timestamp,
}

/// The data from which the number of calls is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostBasis {
    /// The series that the items belong to.
    pub source: DensitySource,
    /// The number of cached items.
    pub items: u64,
    /// The length of the time in which these items lie.
    pub length: Duration,
}

/// The series whose density is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DensitySource {
    /// The requested series.
    Series,
    /// The same series without its filter: an upper bound.
    Unfiltered,
    /// None: nothing is cached.
    Nothing,
}

impl DensitySource {
    /// The name in answers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Unfiltered => "unfiltered",
            Self::Nothing => "nothing",
        }
    }
}
