//! The configuration of the simulator: its data, its variant of the API, and its limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

/// The configuration of the simulator. Two simulators with the same profile have the same data.
///
/// The seed, the streams and the timeline are read once, at the start. All other settings can be changed at runtime,
/// with [`Control::change`](crate::Control::change).
#[derive(Clone, Debug)]
pub struct Profile {
    /// The address to listen on; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The first account, to which streams belong by default.
    pub account: Credential,
    /// Further accounts, for streams that name one of them. Limits are counted for each account.
    pub more_accounts: Vec<Credential>,
    /// The streams that exist. Any other stream is refused with 401, as Kore does.
    pub streams: Vec<StreamProfile>,
    /// The seed of all generated data.
    pub seed: u64,
    /// Whether items have no spellings that make readers of JSON stumble: no `1e2`, no integer beyond 63 bits, no `\u0000`,
    /// no key twice, and no keys that differ only in case.
    pub plain: bool,
    /// UTC days of data before `end`, for streams that do not set their own.
    pub days: u32,
    /// The exclusive end of the timeline. Defaults to the end of the UTC day on which the simulator starts.
    pub end: Option<Timestamp>,
    /// Choices where Kore's documentation is silent.
    pub api: ApiVariant,
    /// Token validation.
    pub token: TokenRules,
    /// The rolling limits and how the API reports them.
    pub rate_limits: RateLimits,
    /// The duration of a call.
    pub latency: Latency,
    /// When items appear, and how long their bytes change.
    pub changes: ItemChanges,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account: Credential::default(),
            more_accounts: Vec::new(),
            streams: vec![StreamProfile::default()],
            seed: 1,
            plain: false,
            days: 30,
            end: None,
            api: ApiVariant::default(),
            token: TokenRules::default(),
            rate_limits: RateLimits::default(),
            latency: Latency::default(),
            changes: ItemChanges::default(),
        }
    }
}

impl Profile {
    /// The credential of the account with this `accountId`.
    pub fn credential(&self, account_id: &str) -> Option<&Credential> {
        std::iter::once(&self.account).chain(&self.more_accounts).find(|known| known.account_id == account_id)
    }
}

impl Profile {
    /// The choices in force for a stream.
    pub(crate) fn api_of(&self, stream: &str) -> ApiVariant {
        self.streams.iter().find(|known| known.id == stream).and_then(|known| known.api).unwrap_or(self.api)
    }
}

/// The credential of one Kore account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The header `accountId`.
    pub account_id: String,
    /// The claim `appId`.
    pub client_id: String,
    /// The key that signs the token (HS256). The default is fictitious and valid for simulators only.
    pub client_secret: String,
}

impl Default for Credential {
    fn default() -> Self {
        Self {
            account_id: "664b33a620bd0892e0000001".to_owned(),
            client_id: "cs-00000000-0000-5000-8000-000000000001".to_owned(),
            client_secret: "simulated-secret-of-no-worth-at-all=".to_owned(),
        }
    }
}

/// The load of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamProfile {
    /// The `{streamId}` of the path.
    pub id: String,
    /// The account that the stream belongs to. Defaults to [`Profile::account`].
    pub account_id: Option<String>,
    /// Items on each UTC day: exactly this many if `exact`, otherwise within 10 % of it.
    pub items_per_day: u32,
    /// Whether each day has exactly `items_per_day` items.
    pub exact: bool,
    /// Whether all hours have the same load, instead of a daily curve with busy office hours and quiet nights.
    pub flat: bool,
    /// UTC days of data. Defaults to [`Profile::days`].
    pub days: Option<u32>,
    /// The choices of this stream. Defaults to [`Profile::api`].
    pub api: Option<ApiVariant>,
}

impl StreamProfile {
    /// A stream with about `items_per_day` items on the daily curve.
    pub fn new(id: impl Into<String>, items_per_day: u32) -> Self {
        Self { id: id.into(), account_id: None, items_per_day, exact: false, flat: false, days: None, api: None }
    }
}

impl Default for StreamProfile {
    fn default() -> Self {
        Self::new("st-eef6ef35-35e5-52d7-99d6-000000000001", 1_700)
    }
}

/// A choice for each question that Kore's documentation leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVariant {
    /// The timestamp that `from` and `to` select on.
    pub select_on: SelectOn,
    /// Whether an item exactly at `to` is outside the window. A date-only `to` covers its day in either case.
    pub exclusive_to: bool,
    /// The order of the items.
    pub order: SortOrder,
    /// The maximum number of items in one response. A larger `limit` is reduced to it.
    pub page_limit: usize,
    /// The longest window; a longer one is refused with 412. `None` is unlimited.
    pub longest_span: Option<Duration>,
    /// The order of the keys of the envelope.
    pub envelope: EnvelopeOrder,
    /// Whether errors carry their text as `message`, as on one page of Kore's documentation, instead of `msg`.
    pub error_key_message: bool,
}

impl Default for ApiVariant {
    fn default() -> Self {
        Self {
            select_on: SelectOn::Start,
            exclusive_to: false,
            order: SortOrder::Ascending,
            page_limit: 100,
            longest_span: None,
            envelope: EnvelopeOrder::Documented,
            error_key_message: false,
        }
    }
}

/// The timestamp that a window selects on, and that items are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SelectOn {
    /// `segmentStartTime`
    Start,
    /// `segmentEndTime`; an item whose end is null is in no window.
    End,
}

/// The order of the items of a window. Items of the same millisecond are ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SortOrder {
    /// Oldest first; ties in a fixed order that is not that of their ids.
    Ascending,
    /// Newest first; ties in a fixed order that is not that of their ids.
    Descending,
    /// Oldest first; ties in a different order at each call.
    Unstable,
    /// All items in a different order at each call.
    Shuffled,
}

/// The order of the keys of the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EnvelopeOrder {
    /// `numResults`, `hasMore`, `data`
    Documented,
    /// `numResults`, `data`, `hasMore`, as in some real samples.
    HasMoreLast,
    /// `data`, `hasMore`, `numResults`
    DataFirst,
}

/// How tokens are validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// The form of the `auth` header.
    pub scheme: AcceptedScheme,
    /// Whether each token must carry an unused `jti` and be valid for at most one hour.
    pub enforce_jti: bool,
    /// Whether every token is refused for lack of the API scope.
    pub scope_missing: bool,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { scheme: AcceptedScheme::Either, enforce_jti: false, scope_missing: false }
    }
}

/// The form of the `auth` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AcceptedScheme {
    /// The token alone.
    Bare,
    /// `Bearer <token>`
    Bearer,
    /// Either form.
    Either,
}

/// The rolling limits and how the API reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// The rolling limits, each counted exactly. No entry means no limit.
    pub rolling: Vec<RollingLimit>,
    /// The status of a call above a limit: 429, 400 or 403. The error text is the same for all of them.
    pub refusal_status: u16,
    /// Whether the refusal carries `Retry-After`.
    pub retry_after: bool,
    /// Whether a refused call counts against the limits.
    pub count_refused: bool,
    /// Whether every response to a known account carries `X-RateLimit-*` for the shortest limit.
    pub headers: bool,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { rolling: Vec::new(), refusal_status: 429, retry_after: false, count_refused: false, headers: false }
    }
}

impl From<Vec<RollingLimit>> for RateLimits {
    fn from(rolling: Vec<RollingLimit>) -> Self {
        Self { rolling, ..Self::default() }
    }
}

/// A rolling limit: at most `requests` in any interval of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingLimit {
    /// The maximum number of calls.
    pub requests: usize,
    /// The length of the interval.
    pub per: Duration,
}

impl RollingLimit {
    /// At most `requests` in any interval of length `per`.
    pub const fn new(requests: usize, per: Duration) -> Self {
        Self { requests, per }
    }

    /// Kore's usual pair of limits: 60 calls per minute and 1,800 per hour.
    pub fn kore_defaults() -> Vec<Self> {
        vec![Self::new(60, Duration::from_mins(1)), Self::new(1_800, Duration::from_hours(1))]
    }
}

/// The time from the arrival of a call to the start of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The minimum latency.
    pub fixed: Duration,
    /// The maximum additional latency. The amount derives from the seed and the number of the call.
    pub jitter: Duration,
}

/// When items appear, and how long their bytes change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ItemChanges {
    /// The delay from an item's timestamp to its appearance.
    pub visibility_delay: Duration,
    /// The share of items, 0 to 1, that appear later than the others by `late_by`.
    pub late: f64,
    /// The additional delay of late items.
    pub late_by: Duration,
    /// The share of items, 0 to 1, whose bytes change until they are `changes_until` old; their end time is null at
    /// first. All other items have their final bytes from the start, even an end time in the future.
    pub changing: f64,
    /// The age, from the start of the segment, at which changing items are final.
    pub changes_until: Duration,
}

impl Default for ItemChanges {
    fn default() -> Self {
        Self {
            visibility_delay: Duration::ZERO,
            late: 0.0,
            late_by: Duration::from_hours(1),
            changing: 0.0,
            changes_until: Duration::from_hours(6),
        }
    }
}
