//! The error of the cache stage.

use std::time::Duration;

use super::chunk::Damaged;
use crate::paging::PagingError;
use crate::quota::Exhausted;

/// The reason why a window cannot be answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// A run failed.
    #[error(transparent)]
    Paging(PagingError),
    /// The quota granted no call within the queue timeout, or is known not to. A run that was started continues, so a
    /// later request finds more of it done.
    #[error("the quota is spent for another {} s", .0.retry_after.as_secs())]
    QuotaExhausted(Exhausted),
    /// The request allows only cached data, and something of the window is not cached or too old.
    #[error("only-if-cached: a part of the window is not cached, or is too old, and would have to be fetched")]
    NotCached,
    /// The fetches that the caller has in flight left no permit for another one within the queue timeout.
    #[error("too many fetches are under way for this caller")]
    TooManyFetches {
        /// The time after which a new request may succeed.
        retry_after: Duration,
    },
    /// The task of a fetch ended without a result.
    #[error("a fetch was lost")]
    FetchLost,
    /// Items kept moving from one chunk to another while the window was assembled, or no progress was made for too many
    /// rounds.
    #[error("the window's items kept moving")]
    ItemsMoving,
    /// Answers that are being sent, most likely to clients that do not read, pin as many evicted chunks as they may.
    #[error("answers that are being sent hold too much memory for one more that is as large as this one")]
    PinnedMemoryFull,
    /// A chunk does not inflate.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The leader of the account does not know the account, cuts chunks differently, or has a different time of day.
    #[error("the replica that makes the calls of this account is configured otherwise than this one")]
    ConfigMismatch,
    /// The window begins or ends within a second, and is fetched exactly as requested: the upstream's bounds are whole
    /// seconds, and its answer cannot be cut.
    #[error(
        "from, to: the items of this window cannot be cut at a fraction of a second, because not all of them have a \
         timestamp by which the upstream selects; write whole seconds"
    )]
    FractionOfSecond,
    /// The answer must not be streamed, and its items exceed what is buffered until its length is known.
    #[error(
        "the window is larger than {limit} bytes, the most that can be kept until its length is known: ask over \
         HTTP/1.1, or for a limit"
    )]
    TooLargeToBuffer {
        /// The maximum in bytes.
        limit: u64,
    },
}
