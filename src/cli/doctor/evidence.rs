//! The doctor's probes, and the evidence that they bring. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{JtiMode, TokenScheme};
use crate::upstream::RateLimitHeader;
use crate::window::Timestamp;

/// The most calls of one investigation.
pub(super) const MAX_CALLS: usize = 12;
/// The most items that Kore documents for one answer.
pub(super) const DOCUMENTED_LIMIT: u32 = 100;
/// A limit far above the documented one, which shows what a larger limit gets.
pub(super) const LARGE_LIMIT: u32 = 1000;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A call, as far as the doctor varies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) purpose: Purpose,
    pub(super) token: TokenForm,
    pub(super) window: Window,
    pub(super) offset: u64,
    /// `None` leaves the parameter out.
    pub(super) limit: Option<u32>,
}

/// The question that a probe asks. Its answer may serve other questions too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A window with items.
    Search,
    /// More items of a window.
    Items,
    /// Whether the upstream selects on this field.
    Field(Arc<str>),
    /// Whether an item exactly at `to` is in the window.
    UpperBound,
    /// The effect of a limit above the documented one.
    LargeLimit,
    /// The effect of a missing limit.
    NoLimit,
    /// Whether the same request gets the same answer.
    Repetition,
    /// Whether a window of this length is accepted.
    Span,
}

/// The form of the `auth` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenForm {
    pub(super) scheme: TokenScheme,
    pub(super) jti: JtiMode,
}

impl TokenForm {
    /// The other scheme.
    pub(super) fn other_scheme(self) -> Self {
        let scheme = match self.scheme {
            TokenScheme::Bare => TokenScheme::Bearer,
            TokenScheme::Bearer => TokenScheme::Bare,
        };
        Self { scheme, ..self }
    }
}

/// `from` and `to` of a call, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Window {
    /// The window of length `span` that ends at `to`.
    pub(super) fn before(to: Timestamp, span: Duration) -> Self {
        Self { from: to - span, to }
    }

    /// The shortest window that has `time` strictly within.
    pub(super) fn around(time: Timestamp) -> Self {
        let from = if time.floor_second() == time { time - SECOND } else { time.floor_second() };
        Self { from, to: time.floor_second() + SECOND }
    }

    pub(super) fn span(self) -> Duration {
        self.to.since(self.from)
    }

    /// Whether `time` lies within under every reading of the bounds.
    pub(super) fn surely_has(self, time: Timestamp) -> bool {
        self.from < time && time < self.to
    }

    /// Whether `time` lies outside under every reading of the bounds, also if `to` covers its second.
    pub(super) fn surely_lacks(self, time: Timestamp) -> bool {
        time < self.from || time >= self.to + SECOND
    }
}

/// The upstream's reaction to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeAnswer {
    pub(super) outcome: ProbeOutcome,
    /// Seconds by which this machine's clock was ahead of the `Date` of the answer; negative if it was behind.
    pub(super) clock_ahead: Option<i64>,
    /// The answer's rate-limit headers.
    pub(super) rate_limit: Option<RateLimitHeader>,
}

/// See [`ProbeAnswer::outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// A page of items.
    Page(SamplePage),
    /// 401: the token is refused. The text says with which message.
    Unauthorized(String),
    /// 400 or 412: the parameters are refused.
    Invalid(String),
    /// The upstream says that its quota is spent, and when it is not, as far as it does: in `Retry-After` or in
    /// `retryAfterMs`.
    RateLimited(String),
    /// No answer, or one that is neither a page nor a known refusal.
    Failed(String),
}

/// A page, without what the items say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SamplePage {
    /// In the upstream's order.
    pub(super) items: Vec<SampleItem>,
    pub(super) has_more: bool,
}

/// An item, reduced to its identity and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SampleItem {
    /// Hash of the `segmentID`, or of the item if it has none.
    pub(super) id: u64,
    /// Hash of the item's bytes.
    pub(super) digest: u64,
    /// Its members that are timestamps, by name.
    pub(super) times: BTreeMap<Arc<str>, Timestamp>,
}

/// The doctor's knowledge before the first call.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// The configured form of tokens.
    pub(super) token: TokenForm,
    /// The configured `window.field`.
    pub(super) field: Arc<str>,
    pub(super) now: Timestamp,
    /// Data before this second is settled.
    pub(super) settled: Timestamp,
}

/// All calls so far, in their order.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) setup: Setup,
    pub(super) exchanges: Vec<(Probe, ProbeAnswer)>,
}

impl Evidence {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, exchanges: Vec::new() }
    }

    pub(super) fn calls_left(&self) -> usize {
        MAX_CALLS.saturating_sub(self.exchanges.len())
    }

    /// The calls that brought pages: each with its number from 0.
    pub(super) fn pages(&self) -> impl Iterator<Item = (usize, &Probe, &SamplePage)> {
        self.exchanges.iter().enumerate().filter_map(|(number, (probe, answer))| match &answer.outcome {
            ProbeOutcome::Page(page) => Some((number, probe, page)),
            _ => None,
        })
    }

    /// The items that any of the first `calls` calls has brought, each once.
    pub(super) fn items_before(&self, calls: usize) -> BTreeMap<u64, &SampleItem> {
        let pages = self.pages().filter(|(number, ..)| *number < calls);
        pages.flat_map(|(_, _, page)| &page.items).map(|item| (item.id, item)).collect()
    }

    /// All items, each once.
    pub(super) fn items(&self) -> BTreeMap<u64, &SampleItem> {
        self.items_before(self.exchanges.len())
    }

    /// The form of tokens that the upstream has accepted first.
    pub(super) fn accepted_token(&self) -> Option<TokenForm> {
        self.pages().next().map(|(_, probe, _)| probe.token)
    }

    /// Whether the upstream accepts tokens of this form; `None` if that is not known.
    pub(super) fn accepts(&self, token: TokenForm) -> Option<bool> {
        self.exchanges.iter().filter(|(probe, _)| probe.token == token).find_map(|(_, answer)| match answer.outcome {
            ProbeOutcome::Page(_) => Some(true),
            ProbeOutcome::Unauthorized(_) => Some(false),
            _ => None,
        })
    }

    /// A window of which an answer from the beginning, with the documented limit, did not hold all items: the longest
    /// of them.
    pub(super) fn large_window(&self) -> Option<Window> {
        let is_large = |probe: &Probe, page: &SamplePage| probe.offset == 0 && page.has_more && is_long(probe.window);
        let windows = self.pages().filter(|(_, probe, page)| is_large(probe, page)).map(|(_, probe, _)| probe.window);
        windows.max_by_key(|window| window.span())
    }

    /// The first place in the window whose items no answer has brought; `None` if the end of the window was reached.
    pub(super) fn unread_offset(&self, window: Window) -> Option<u64> {
        let of_window = self.pages().filter(|(_, probe, _)| probe.window == window);
        let ends = of_window.map(|(_, probe, page)| (probe.offset + page.items.len() as u64, page.has_more));
        let (end, has_more) = ends.max()?;
        has_more.then_some(end)
    }
}

/// Whether a window is one in which items are searched, and not one around a single item.
fn is_long(window: Window) -> bool {
    window.span() > Duration::from_mins(1)
}
