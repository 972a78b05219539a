//! The query of one request: immutable while the request is answered. [`Query::delivery`] says which requests may get a
//! streamed answer; whether one does, `progress.rs` decides.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::chunk::PageRange;
use crate::cache::error::CacheError;
use crate::cache::fetch::Fetcher;
use crate::cache::types::{QueryOptions, WindowQuery};
use crate::config::WindowSettings;
use crate::request::{Requester, Series};
use crate::traces::Span;
use crate::window::{Bound, Interval, Timestamp};

/// The length of a window above which Redis is read in pieces, and above which fewer pages make it long.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// The query of one request, with what follows from it alone.
pub(super) struct Query {
    pub(super) series: Arc<Series>,
    /// The settings of the series when the request came: a reload does not change them for it.
    pub(super) settings: Arc<WindowSettings>,
    pub(super) window: Interval,
    pub(super) page_range: PageRange,
    /// The time of the request. Entries that were fetched later are fresh, whatever the freshness policy says.
    pub(super) asked_at: Timestamp,
    pub(super) requester: Requester,
    /// Whether the answer may be sent before its length is known.
    pub(super) may_stream: bool,
    pub(super) options: QueryOptions,
    /// The span of the request.
    pub(super) span: Span,
    /// Whether Redis is asked for the names of the chunks first, and then read in pieces.
    pub(super) lists_redis: bool,
}

/// How the answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As a whole.
    Whole,
    /// As a whole whose length is sent first, so that all of it must fit into memory.
    Buffered,
    /// As a whole, unless it turns out to be long: then it is streamed.
    WholeOrStreamed,
    /// Segment by segment, ascending. What was purged meanwhile is not sent.
    Streamed,
}

impl Query {
    pub(super) fn new(query: WindowQuery, fetcher: &Fetcher) -> Self {
        let WindowQuery {
            series, interval: window, page_range, asked_at, requester, may_stream, options, span, ..
        } = query;
        let settings = fetcher.settings.of(&series);
        let is_settled = window.end <= fetcher.settled_before(&settings, asked_at);
        // Otherwise a batch looks into Redis before it fetches.
        let is_listed = options.only_cached || (window.length() > DAY && is_settled);
        let lists_redis = fetcher.redis.is_some() && is_listed;
        Self { series, settings, window, page_range, asked_at, requester, may_stream, options, span, lists_redis }
    }

    /// Whether all of the window had settled at the time of the request. A later answer may differ, since the clock of
    /// this machine may be found to be ahead meanwhile.
    pub(super) fn is_settled(&self, fetcher: &Fetcher) -> bool {
        self.window.end <= fetcher.settled_before(&self.settings, self.asked_at)
    }

    /// Checks that the upstream can be asked for exactly this window, up to the present.
    ///
    /// # Errors
    /// [`CacheError::FractionOfSecond`] if it cannot, because its bounds are whole seconds.
    pub(super) fn check_upstream_bounds(&self) -> Result<(), CacheError> {
        let upper_bound = self.settings.upper_bound;
        let bounds = upper_bound.query_for(self.window);
        let asked = upper_bound.enclosed(Bound::Second(bounds.from), bounds.to);
        let is_same_end = asked.end == self.window.end || self.window.end >= self.asked_at;
        let is_exact = asked.start == self.window.start && is_same_end;
        if is_exact { Ok(()) } else { Err(CacheError::FractionOfSecond) }
    }

    /// How a client's answer is delivered.
    pub(super) fn delivery(&self, is_settled: bool) -> Delivery {
        match self.may_stream {
            false => Delivery::Buffered,
            true if is_settled && self.page_range == PageRange::ALL => Delivery::WholeOrStreamed,
            true => Delivery::Whole,
        }
    }
}
