//! What the simulator is told to be: its data, its manners, its limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::window::{Timestamp, UpperBound};

/// Everything that decides how the simulator behaves; a start with the same profile gives the same data.
///
/// Kore's documentation leaves much unsaid; each such question is a member here, so that both answers can be played.
/// The seed, the streams and the timeline are read once, at the start; all else may be changed while it runs.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, named where it is set")]
pub struct Profile {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The account whose streams these are, and its credential.
    pub account: Credential,
    /// Further accounts, for streams that name one of them. Limits are counted for each account.
    pub more_accounts: Vec<Credential>,
    /// The streams that exist; any other is refused as Kore does, with 401.
    pub streams: Vec<StreamProfile>,
    /// What all data derives from.
    pub seed: u64,
    /// UTC days of data before `end`, for streams that do not say otherwise.
    pub days: u32,
    /// Where the timeline stops (exclusive); `None`: at the start of the UTC day after the simulator's start.
    pub end: Option<Timestamp>,
    /// The timestamp that `from` and `to` select on.
    pub select_on: SelectOn,
    /// Whether an item exactly at `to` is in the window. A `to` that is a date covers its day either way.
    pub upper_bound: UpperBound,
    /// How items are sorted.
    pub order: Order,
    /// The most items in one answer; a larger `limit` is cut to it.
    pub page_limit: usize,
    /// A longer window is refused with 412; `None`: no limit.
    pub longest_span: Option<Duration>,
    /// The order of the keys around the data.
    pub envelope: Envelope,
    /// How the `auth` header must carry the token.
    pub scheme: TokenScheme,
    /// Each token must bear a fresh `jti` and live at most an hour.
    pub enforce_jti: bool,
    /// Answer as if the credential lacked the API scope.
    pub scope_missing: bool,
    /// Name the text of an error `message`, as one page of Kore's does, and not `msg`.
    pub error_key_message: bool,
    /// The rolling limits, each counted exactly; empty: none.
    pub limits: Vec<Limit>,
    /// The status of a call above a limit: 429, 400 or 403. The message is the same.
    pub limit_status: u16,
    /// Whether such a refusal carries `Retry-After`.
    pub retry_after: bool,
    /// Whether a call refused for a limit counts against the limits all the same.
    pub count_refused: bool,
    /// Whether every answer to a known account tells in `X-RateLimit-*` how the shortest limit stands.
    pub rate_limit_headers: bool,
    /// How long each call takes.
    pub latency: Latency,
    /// How long after its timestamp an item can be seen.
    pub visibility_delay: Duration,
    /// The share of items, 0 to 1, that can be seen only `late_by` later than the others.
    pub late: f64,
    /// How much later.
    pub late_by: Duration,
    /// The share of items, 0 to 1, whose bytes change until they are `changes_until` old: their end time is null at
    /// first. The others have their last bytes as soon as they can be seen, even an end time that is still to come.
    pub changing: f64,
    /// The age, from the start of the segment, at which changing items are final.
    pub changes_until: Duration,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account: Credential::default(),
            more_accounts: Vec::new(),
            streams: vec![StreamProfile::default()],
            seed: 1,
            days: 30,
            end: None,
            select_on: SelectOn::Start,
            upper_bound: UpperBound::Inclusive,
            order: Order::Ascending,
            page_limit: 100,
            longest_span: None,
            envelope: Envelope::Documented,
            scheme: TokenScheme::Either,
            enforce_jti: false,
            scope_missing: false,
            error_key_message: false,
            limits: Vec::new(),
            limit_status: 429,
            retry_after: false,
            count_refused: false,
            rate_limit_headers: false,
            latency: Latency::default(),
            visibility_delay: Duration::ZERO,
            late: 0.0,
            late_by: Duration::from_hours(1),
            changing: 0.0,
            changes_until: Duration::from_hours(6),
        }
    }
}

impl Profile {
    /// The credential of an account, by its `accountId`.
    pub fn credential(&self, account_id: &str) -> Option<&Credential> {
        std::iter::once(&self.account).chain(&self.more_accounts).find(|known| known.account_id == account_id)
    }
}

/// One Kore account and the credential of its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The header `accountId`.
    pub account_id: String,
    /// The claim `appId`.
    pub client_id: String,
    /// What signs the token (HS256). Made up: it opens nothing but a simulator.
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

/// One stream and how much happens in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamProfile {
    /// The `{streamId}` of the path.
    pub id: String,
    /// The account it belongs to; `None`: [`Profile::account`].
    pub account_id: Option<String>,
    /// Items on a UTC day: exactly with `exact`, else within a tenth of it.
    pub items_per_day: u32,
    /// Exactly `items_per_day` on each day.
    pub exact: bool,
    /// The same load at every hour, in place of busy days and quiet nights.
    pub flat: bool,
    /// UTC days of data; `None`: [`Profile::days`].
    pub days: Option<u32>,
}

impl StreamProfile {
    /// A stream of `items_per_day`, on the daily curve.
    pub fn new(id: impl Into<String>, items_per_day: u32) -> Self {
        Self { id: id.into(), account_id: None, items_per_day, exact: false, flat: false, days: None }
    }
}

impl Default for StreamProfile {
    fn default() -> Self {
        Self::new("st-eef6ef35-35e5-52d7-99d6-000000000001", 1_700)
    }
}

/// The timestamp of an item that a window selects on, and that items are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SelectOn {
    /// `segmentStartTime`
    Start,
    /// `segmentEndTime`; an item whose end is null is in no window.
    End,
}

/// How the items of a window are sorted. Items of one millisecond are ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Oldest first; ties in a fixed order that is not that of their ids.
    Ascending,
    /// Newest first; ties in a fixed order that is not that of their ids.
    Descending,
    /// Oldest first; ties in another order at each call.
    Unstable,
    /// All items in another order at each call.
    Shuffled,
}

/// The order of the keys around the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Envelope {
    /// `numResults`, `hasMore`, `data`
    Documented,
    /// `numResults`, `data`, `hasMore`, as in some real samples.
    HasMoreLast,
    /// `data`, `hasMore`, `numResults`
    DataFirst,
}

/// How the `auth` header must carry the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenScheme {
    /// The token alone.
    Bare,
    /// `Bearer <token>`
    Bearer,
    /// One or the other.
    Either,
}

/// One rolling limit: at most `requests` in any span of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Calls.
    pub requests: usize,
    /// Length of the rolling window.
    pub per: Duration,
}

impl Limit {
    /// At most `requests` in any span of length `per`.
    pub const fn new(requests: usize, per: Duration) -> Self {
        Self { requests, per }
    }

    /// Kore's usual pair: 60 a minute and 1,800 an hour.
    pub fn kore() -> Vec<Self> {
        vec![Self::new(60, Duration::from_mins(1)), Self::new(1_800, Duration::from_hours(1))]
    }
}

/// How long a call takes before its answer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Each call takes this long,
    pub fixed: Duration,
    /// and up to this much more; how much is drawn from the seed and the number of the call.
    pub jitter: Duration,
}
