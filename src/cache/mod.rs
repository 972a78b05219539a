//! The cache stage: serves a window from chunks, and asks below for the missing runs only.

mod answer;
mod chunk;
mod cluster;
mod estimate;
mod fetch;
mod handles;
mod outcome;
mod purge;
mod redis;
mod series;
mod series_map;
mod store;
#[cfg(test)]
mod tests;
mod window_field;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, Ready, ready};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

pub use self::answer::{RemainingStream, StreamEvent};
pub use self::chunk::AccessCounter;
pub use self::chunk::{Chunk, Damaged, DeflateSplice, Settled, Slice};
pub use self::chunk::{ItemSlice, PageRange};
pub use self::estimate::{Basis, Known};
pub use self::handles::CacheHandles;
pub use self::outcome::{NotStored, Outcome};
pub use self::purge::{DeletionStatus, Purge, PurgeDelivery, PurgeResult, Purges};
pub use self::store::ValidityToken;
pub use self::store::{AnswerStore, Memory};
pub use self::window_field::WindowFields;

use self::answer::FastPath;
use self::cluster::Cluster;
use self::fetch::Fetcher;
use self::redis::RedisTier;
use self::series_map::SeriesMap;
use self::store::ChunkPacker;
use crate::clock::Clock;
use crate::config;
use crate::paging::{FetchedRun, PagingError, Run, RunLimiters};
use crate::quota::{Exhausted, QuotaManager};
use crate::replicas::Mailbox;
use crate::request::{Requester, Series};
use crate::window::{FreshnessPolicy, Grid, Interval, Timestamp};

/// A window that somebody asks for.
#[derive(Clone, Debug)]
pub struct WindowQuery {
    /// Which rows.
    pub series: Arc<Series>,
    /// Of which time, cut at now.
    pub interval: Interval,
    /// Which of its items.
    pub page_range: PageRange,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Who asks, and how urgently.
    pub asker: Requester,
    /// Whether the answer may be sent before its length is known.
    pub may_stream: bool,
}

/// What is wanted of a window.
#[derive(Debug)]
pub struct WindowAnswer {
    /// The items that are wanted.
    pub items: ItemSlice,
    /// What is still to come: then nothing else is known yet.
    pub rest: Option<RemainingStream>,
    /// Whether it can never change again.
    pub settled: bool,
    /// How long the same answer may be given again without a look at its chunks; `None` if it may not.
    pub validity: Option<ValidityToken>,
    /// When the oldest part of it was fetched; `None` if all of it was fetched since it was asked for.
    pub oldest_entry: Option<Timestamp>,
    /// How it was answered.
    pub outcome: Outcome,
    /// How many pieces of chunks the window is made of.
    pub chunks: usize,
    /// How many of these were there already.
    pub hits: usize,
    /// The upstream calls that were made for it, and are told of in no other answer.
    pub calls: u32,
}

/// What the same window would cost if it were asked for now; to ask this costs nothing and begins nothing.
#[derive(Clone, Debug)]
pub struct CostQuery(pub WindowQuery);

/// What a window would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The runs that would be asked for, ascending. Each is a call at least.
    pub runs: Vec<Interval>,
    /// How many calls they would take, as far as is known; `None` if nothing is.
    pub expected: Option<u64>,
    /// What of the window is being fetched already, ascending: it costs nobody anything more, but must be waited for.
    pub under_way: Vec<Interval>,
    /// How many pieces of chunks the answer would be made of; more if the stream turns out to be dense.
    pub chunks: usize,
    /// How many of these are there already.
    pub hits: usize,
    /// What `expected` comes from.
    pub basis: Basis,
}

/// Why a window cannot be answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// A run failed.
    #[error(transparent)]
    Paging(PagingError),
    /// The quota has granted no call for too long, or will not; a run that has begun goes on, so asking again later will
    /// find it further.
    #[error("the quota is spent for another {} s", .0.retry_after.as_secs())]
    QuotaExhausted(Exhausted),
    /// The runs that the caller has under way left no room for another one in time.
    #[error("too many fetches are under way for this caller")]
    TooManyFetches {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// The task of a run ended without a word.
    #[error("a fetch was lost")]
    FetchLost,
    /// Items kept moving from one chunk to another while the window was put together.
    #[error("the window's items kept moving")]
    ItemsMoving,
    /// Answers under way, most likely those of readers that take nothing, hold as many chunks as they may that memory has
    /// let go of.
    #[error("answers that are being sent hold too much memory for one more that is as large as this one")]
    PinnedMemoryFull,
    /// A chunk does not read back.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Another replica makes the calls of the account, but does not know the account, cuts chunks otherwise, or has
    /// another time of day.
    #[error("the replica that makes the calls of this account is configured otherwise than this one")]
    ConfigMismatch,
    /// The window must not be streamed, and its items are more than can be kept until its length is known.
    #[error(
        "the window is larger than {limit} bytes, the most that can be kept until its length is known: ask over \
         HTTP/1.1, or for a limit"
    )]
    TooLargeToBuffer {
        /// Bytes.
        limit: u64,
    },
}

/// Puts a cache before the stages below.
#[derive(Clone, Debug)]
pub struct CacheLayer {
    window: config::WindowConfig,
    memory: Memory,
    redis: Option<(config::RedisConfig, Mailbox)>,
    fields: WindowFields,
    shelves: SeriesMap,
    purges: Purges,
    quotas: QuotaManager,
    limiters: RunLimiters,
    queue_timeout: Duration,
    clock: Clock,
}

impl CacheLayer {
    /// The cache with the state of `handles`, in front of the stages below.
    pub fn new(
        handles: &CacheHandles,
        window: &config::WindowConfig,
        quota: &config::QuotaConfig,
        quotas: &QuotaManager,
        limiters: &RunLimiters,
        clock: &Clock,
    ) -> Self {
        let CacheHandles { memory, window_fields: fields, purges, series_map: shelves, redis } = handles.clone();
        let (window, queue_timeout) = (window.clone(), quota.queue_timeout);
        let (quotas, limiters, clock) = (quotas.clone(), limiters.clone(), clock.clone());
        Self { window, memory, redis, fields, shelves, purges, quotas, limiters, queue_timeout, clock }
    }
}

impl<S> Layer<S> for CacheLayer
where
    S: Service<Run<ChunkPacker>, Response = FetchedRun<Arc<Chunk>>, Error = PagingError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    type Service = CacheStage;

    fn layer(&self, below: S) -> CacheStage {
        let grid = Grid::new(self.window.chunk);
        let shared = self.redis.as_ref().map(|(redis, mailbox)| {
            let purges = Arc::new(self.purges.clone());
            let tier = RedisTier::new(redis, mailbox, &self.window, purges, &self.fields);
            let relay = Cluster::new(mailbox, &tier, &self.quotas, &self.clock);
            (tier, relay)
        });
        let (tier, relay) = shared.unzip();
        let fetcher = Arc::new(Fetcher {
            redis: tier,
            remote: relay,
            below: BoxCloneSyncService::new(below),
            memory: self.memory.clone(),
            series_map: self.shelves.clone(),
            freshness_policy: FreshnessPolicy::new(self.window.settle_after, self.window.freshness.clone()),
            grid,
            clock: self.clock.clone(),
            quotas: self.quotas.clone(),
            limiters: self.limiters.clone(),
            queue_timeout: self.queue_timeout,
            window_fields: self.fields.clone(),
            window_field: self.window.field.clone(),
            purges: self.purges.clone(),
            stored: AtomicU64::new(0),
            latest_fetch: AtomicI64::new(i64::MIN),
        });
        if let Some(relay) = &fetcher.remote {
            relay.start(&fetcher, answer::answer_follower);
        }
        CacheStage(fetcher)
    }
}

/// See [`CacheLayer`].
#[derive(Clone)]
pub struct CacheStage(Arc<Fetcher>);

impl Service<WindowQuery> for CacheStage {
    type Response = WindowAnswer;
    type Error = CacheError;
    type Future = Either<Ready<Result<WindowAnswer, CacheError>>, BoxFuture<'static, Result<WindowAnswer, CacheError>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CacheError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, query: WindowQuery) -> Self::Future {
        self.0.remove_future_entries(query.asked_at);
        match FastPath::at(&self.0, &query) {
            Some(glance) if glance.is_ready() => Either::Left(ready(self.0.memory.admit_answer(glance.answer()))),
            Some(glance) => Either::Right(Box::pin(async { Ok(glance.stripped().await?) })),
            None => {
                let fetcher = self.0.clone();
                Either::Right(Box::pin(async move {
                    let answer = answer::answer(fetcher.clone(), query).await?;
                    fetcher.memory.admit_answer(answer)
                }))
            }
        }
    }
}

impl Service<CostQuery> for CacheStage {
    type Response = Cost;
    type Error = Infallible;
    type Future = Ready<Result<Cost, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, CostQuery(query): CostQuery) -> Self::Future {
        ready(Ok(estimate::cost(&self.0, &query)))
    }
}
