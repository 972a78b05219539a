//! Messages about windows that the leader fetches for a follower, as they stand in JSON.
//!
//! The names of members and variants are part of the format; `serde(rename)` keeps those that are named otherwise here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use crate::request::{Filter, KnownFilter, Priority, QueueWait, Requester, Series};
use crate::window::{FreshnessDemand, Interval, Timestamp};

/// Bytes that are percent-encoded in a text, so that any bytes can be restored from it.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A message about windows that the leader fetches for a follower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FetchMessage {
    /// To the leader: a batch is collected, and fetches may be requested soon.
    #[serde(rename = "Coming")]
    BatchAnnounced {
        /// The account of the batch.
        account: String,
        /// The number of the batch, unique for its sender.
        #[serde(rename = "gathering")]
        batch: u64,
    },
    /// To the leader: an announced batch needs no fetch.
    #[serde(rename = "Nothing")]
    BatchEmpty {
        /// The number of the batch.
        #[serde(rename = "gathering")]
        batch: u64,
    },
    /// To the leader: fetch these windows. Also repeated as long as there is a waiter.
    #[serde(rename = "Errands")]
    Requests {
        /// The settings by which the sender divides time of all these windows into chunks.
        #[serde(rename = "cut")]
        settings: FetchSettings,
        /// The windows.
        #[serde(rename = "errands")]
        requests: Vec<RemoteFetch>,
        /// The batch whose last fetches these are.
        closes: Option<u64>,
    },
    /// To the leader: no request waits for this window any more.
    #[serde(rename = "Gone")]
    Cancelled {
        /// The number of the fetch.
        id: u64,
    },
    /// To the follower: these fetches are not complete, but have waited for the quota for no longer than this.
    #[serde(rename = "Waited")]
    QueueWaits(Vec<(u64, QueueWait)>),
    /// To the follower: the result of a fetch.
    #[serde(rename = "Landed")]
    Reply(FetchReply),
    /// To either: the last fetch messages of the receiver could not be read, because it has another key or version.
    /// One byte on the wire, outside of the JSON.
    #[serde(skip)]
    Unreadable,
}

impl FetchMessage {
    /// How many chunks the message lists.
    pub fn chunk_count(&self) -> usize {
        if let Self::Reply(FetchReply { result: Ok(result), .. }) = self { result.chunks.len() } else { 0 }
    }
}

/// The version of fetch messages, and the settings by which a replica divides time of a series into chunks: `2:` and the
/// settings. Only replicas with equal ones fetch for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FetchSettings(String);

impl FetchSettings {
    /// The version of the fetch messages that this program writes, and the only one that it reads. To be raised when a
    /// fetch message changes its meaning; see ADR 45.
    pub const VERSION: u32 = 2;

    /// The settings of this program, with its version.
    pub fn new(chunk_settings: &str) -> Self {
        Self(format!("{}:{chunk_settings}", Self::VERSION))
    }

    /// The version of the sender's messages; `None` if the text does not begin with one.
    pub fn version(&self) -> Option<u32> {
        self.0.split(':').next()?.parse().ok()
    }

    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A window that the leader is to fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteFetch {
    /// The number of the fetch, unique for its sender.
    pub id: u64,
    /// How many results of this fetch could not be used, because chunks were not found or had been purged.
    pub attempt: u8,
    /// The series.
    pub series: SeriesJson,
    /// Start and end, in nanoseconds since 1970.
    #[serde(rename = "span")]
    pub interval: (i64, i64),
    /// Whether exactly this window is to be fetched, without chunks.
    #[serde(rename = "exactly")]
    pub is_exact: bool,
    /// The requester, which is charged by the fair queue.
    #[serde(rename = "asker")]
    pub requester: RequesterJson,
    /// How old the request is that the data must not precede, in milliseconds. A duration, because clocks may differ.
    #[serde(rename = "asked_ago")]
    pub age_ms: u64,
    /// How long the requester has waited for the quota, and the most pages that any leader has fetched for it.
    #[serde(rename = "waited")]
    pub queue_wait: QueueWait,
    /// The last purge of the account that the requester knew of: data of earlier runs is not wanted.
    pub epoch: u64,
    /// The wishes of the request beside its window.
    #[serde(default, skip_serializing_if = "FetchTerms::is_default")]
    pub terms: FetchTerms,
    /// The span of the requester, as `traces::TraceContext` writes it; `None` if its trace is not recorded. A leader that
    /// does not know it records nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// The wishes of the request of a remote fetch beside its window. A leader that does not know a member ignores it: then
/// data serves that is fresh by its own policy, and the wait is the configured one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTerms {
    /// The greatest age of cached open data, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Whether no cached data serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refetch: bool,
    /// How long the request waits for the quota, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
}

impl FetchTerms {
    /// The terms of a request with this demand, that waits for the quota for as long as `queue_timeout` if that was set
    /// by the request. How stale data may be is not sent: what is fetched is fresh.
    pub fn new(demand: FreshnessDemand, queue_timeout: Option<Duration>) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (refetch, max_age_ms) = match demand {
            FreshnessDemand::Refetch => (true, None),
            FreshnessDemand::Bounded { max_age: Duration::MAX, .. } => (false, None),
            FreshnessDemand::Bounded { max_age, .. } => (false, Some(milliseconds(max_age))),
        };
        Self { max_age_ms, refetch, queue_timeout_ms: queue_timeout.map(milliseconds) }
    }

    /// The demand on the age of cached data.
    pub fn freshness(self) -> FreshnessDemand {
        if self.refetch {
            return FreshnessDemand::Refetch;
        }
        let max_age = self.max_age_ms.map_or(Duration::MAX, Duration::from_millis);
        FreshnessDemand::Bounded { max_age, max_stale: Duration::ZERO }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl RemoteFetch {
    /// How long the request waits for the quota: `configured`, unless the request says otherwise.
    pub fn queue_timeout(&self, configured: Duration) -> Duration {
        self.terms.queue_timeout_ms.map_or(configured, Duration::from_millis)
    }

    /// The window.
    pub fn interval(&self) -> Interval {
        Interval::new(Timestamp::from_nanos(self.interval.0), Timestamp::from_nanos(self.interval.1))
    }
}

/// The result of a remote fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchReply {
    /// [`RemoteFetch::id`].
    pub id: u64,
    /// [`RemoteFetch::attempt`].
    pub attempt: u8,
    /// The data, or why there is none.
    pub result: Result<RemoteResult, WireError>,
}

/// The data of a remote fetch, which is in Redis by then, and its cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteResult {
    /// The time that the chunks cover, start and end in nanoseconds since 1970. A long window is answered from its
    /// start to the end of the leader's next run, and the rest is requested again.
    #[serde(rename = "span")]
    pub interval: (i64, i64),
    /// The chunks.
    #[serde(rename = "pieces")]
    pub chunks: Vec<ChunkRef>,
    /// The upstream calls that no other answer reports.
    pub calls: u32,
    /// Whether the data was cached, or in flight for another request.
    #[serde(rename = "collapsed")]
    pub is_coalesced: bool,
}

impl RemoteResult {
    /// The time that the chunks cover.
    pub fn interval(&self) -> Interval {
        Interval::new(Timestamp::from_nanos(self.interval.0), Timestamp::from_nanos(self.interval.1))
    }
}

/// Where a chunk of a known series is in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64, i64, u64, bool)", into = "(i64, i64, i64, u64, bool)")]
pub struct ChunkRef {
    /// The time of the chunk.
    pub interval: Interval,
    /// When it was fetched, by the leader's clock.
    pub fetched_at: Timestamp,
    /// The last purge that the leader knew of when the chunk's run began.
    pub epoch: u64,
    /// Whether the chunk is in the hash of this handover, and not in its cell.
    pub is_in_handover: bool,
}

impl From<(i64, i64, i64, u64, bool)> for ChunkRef {
    fn from((start, end, fetched_at, epoch, is_in_handover): (i64, i64, i64, u64, bool)) -> Self {
        let [start, end, fetched_at] = [start, end, fetched_at].map(Timestamp::from_nanos);
        Self { interval: Interval::new(start, end), fetched_at, epoch, is_in_handover }
    }
}

impl From<ChunkRef> for (i64, i64, i64, u64, bool) {
    fn from(ChunkRef { interval, fetched_at, epoch, is_in_handover }: ChunkRef) -> Self {
        (interval.start.as_nanos(), interval.end.as_nanos(), fetched_at.as_nanos(), epoch, is_in_handover)
    }
}

/// Why a remote fetch failed: everything that a problem document is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the error of the stages that `cache/cluster/wire_error.rs` maps it to")]
pub enum WireError {
    #[serde(rename = "Held")]
    QuotaExhausted(Duration),
    #[serde(rename = "Busy")]
    TooManyFetches(Duration),
    #[serde(rename = "Lost")]
    FetchLost,
    #[serde(rename = "Restless")]
    ItemsMoving,
    Damaged,
    #[serde(rename = "Foreign")]
    ConfigMismatch,
    #[serde(rename = "TooLargeToHold")]
    TooLargeToBuffer(u64),
    WindowField,
    Unplaced,
    Torn,
    Oversized,
    RunTooLarge(u64),
    #[serde(rename = "Exhausted")]
    CallExhausted(Duration),
    #[serde(rename = "Refused")]
    CallRefused(Duration),
    #[serde(rename = "Unwanted")]
    Abandoned,
    #[serde(rename = "Elsewhere")]
    NotLeader,
    UnknownAccount,
    Mint(String),
    /// The length of the window of the limit, and the time until it allows one more call. This and the next are unknown
    /// to replicas of earlier versions, which request the window again until their queue timeout.
    CallerLimit(Duration, Duration),
    Cordoned,
    /// Unknown to replicas of earlier versions, which fetch by themselves then.
    StreamRefused(u16, Option<String>),
    Connect,
    BrokenOff,
    Timeout,
    Status(u16, Option<String>),
    Unauthorized(Option<String>),
    RateLimited,
    /// The name of the fault in the page.
    BadPage(String),
    TooLarge,
}

/// A series in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesJson {
    account: String,
    stream: String,
    filter: FilterJson,
    parameters: Vec<(String, String)>,
    #[serde(rename = "rich")]
    agentic: bool,
}

impl SeriesJson {
    /// Kore's `accountId`.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Kore's `streamId`.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum FilterJson {
    None,
    Known(Box<KnownFilter>),
    Opaque(String),
}

/// A requester in JSON. Shows no name in `Debug` output of a message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RequesterJson {
    caller: String,
    weight: u32,
    #[serde(rename = "class")]
    priority: Priority,
}

impl fmt::Debug for RequesterJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequesterJson").field("class", &self.priority).finish_non_exhaustive()
    }
}

impl From<&Series> for SeriesJson {
    fn from(series: &Series) -> Self {
        // Destructured, so that a new member is a compile error here.
        let Series { account, stream, filter, parameters, agentic } = series;
        let filter = match filter {
            Filter::None => FilterJson::None,
            Filter::Known(known) => FilterJson::Known(known.clone()),
            Filter::Opaque(body) => FilterJson::Opaque(percent_encode(body, ESCAPED).to_string()),
        };
        let (account, stream) = (account.to_string(), stream.to_string());
        Self { account, stream, filter, parameters: parameters.clone(), agentic: *agentic }
    }
}

impl From<&SeriesJson> for Series {
    fn from(SeriesJson { account, stream, filter, parameters, agentic }: &SeriesJson) -> Self {
        let filter = match filter {
            FilterJson::None => Filter::None,
            FilterJson::Known(known) => Filter::Known(known.clone()),
            FilterJson::Opaque(body) => Filter::Opaque(percent_decode_str(body).collect()),
        };
        let [account, stream] = [account, stream].map(|name| Arc::from(name.as_str()));
        Self { account, stream, filter, parameters: parameters.clone(), agentic: *agentic }
    }
}

impl From<&Requester> for RequesterJson {
    fn from(Requester { caller, weight, priority }: &Requester) -> Self {
        Self { caller: caller.to_string(), weight: *weight, priority: *priority }
    }
}

impl From<&RequesterJson> for Requester {
    fn from(RequesterJson { caller, weight, priority }: &RequesterJson) -> Self {
        Self { caller: caller.as_str().into(), weight: (*weight).max(1), priority: *priority }
    }
}
