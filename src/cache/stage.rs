//! The cache stage as a tower layer and service.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, Ready, ready};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

use super::answer::{self, FastPath};
use super::chunk::Chunk;
use super::cluster::Cluster;
use super::disk::{DiskContext, DiskTier};
use super::error::CacheError;
use super::estimate;
use super::fetch::{CacheSettings, Fetcher, RemoteFetcher, is_sane};
use super::handles::CacheHandles;
use super::outcome::NotStored;
use super::redis::RedisTier;
use super::store::{ChunkFacts, ChunkPacker, Memory};
use super::types::{CachedQuery, CachedWindow, Cost, CostQuery, WindowAnswer, WindowQuery};
use crate::clock::Clock;
use crate::config;
use crate::paging::{FetchedRun, PagingError, Run, RunLimiters};
use crate::quota::QuotaManager;
use crate::request::Series;
use crate::telemetry;
use crate::telemetry::Tier;
use crate::window::Grid;

/// Adds the cache in front of the stages below.
#[derive(Clone, Debug)]
pub struct CacheLayer {
    handles: CacheHandles,
    series_settings: config::SeriesSettings,
    quotas: QuotaManager,
    limiters: RunLimiters,
    queue_timeout: Duration,
    pub(super) clock: Clock,
}

impl CacheLayer {
    /// The cache with the state of `handles`, in front of the stages below.
    pub fn new(
        handles: &CacheHandles,
        series_settings: &config::SeriesSettings,
        quota: &config::QuotaConfig,
        quotas: &QuotaManager,
        limiters: &RunLimiters,
        clock: &Clock,
    ) -> Self {
        telemetry::register_not_stored(NotStored::ALL.map(NotStored::label));
        let (handles, series_settings, queue_timeout) = (handles.clone(), series_settings.clone(), quota.queue_timeout);
        let (quotas, limiters, clock) = (quotas.clone(), limiters.clone(), clock.clone());
        Self { handles, series_settings, quotas, limiters, queue_timeout, clock }
    }
}

impl CacheLayer {
    fn start_disk(&self, disk: &DiskTier) {
        let (settings, clock) = (self.series_settings.clone(), self.clock.clone());
        let CacheHandles { memory, window_fields, purges, series_map, .. } = self.handles.clone();
        let is_useful = move |series: &Series, facts: &ChunkFacts| {
            let ChunkFacts { interval, fetched_at, .. } = *facts;
            let (now, settings) = (clock.now(), settings.for_series(&series.account, &series.stream));
            let is_stale = settings.freshness_policy.stale(interval, fetched_at, now).next() == Some(interval);
            let is_too_old = settings.retained_since(now).is_some_and(|since| interval.end <= since);
            is_sane(fetched_at, now) && !is_stale && !is_too_old && !window_fields.is_wrong(series, &settings)
        };
        disk.start(DiskContext { series_map, memory, purges: Arc::new(purges), is_useful: Box::new(is_useful) });
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
        let CacheHandles {
            memory,
            window_fields,
            purges,
            retention,
            series_map,
            disk,
            redis,
            queued_for_redis,
            tracer,
        } = self.handles.clone();
        retention.start();
        let settings = &self.series_settings;
        let shared = redis.as_ref().map(|(redis, mailbox)| {
            let checks = Arc::new(purges.clone());
            let tier = RedisTier::new(redis, mailbox, settings, checks, &window_fields, &queued_for_redis, &self.clock);
            let cluster = Cluster::new(mailbox, &tier, &self.quotas, &self.clock, &tracer);
            (tier, cluster)
        });
        let (redis, cluster) = shared.unzip();
        let settings = CacheSettings {
            series: settings.clone(),
            grid: Grid::new(settings.chunk()),
            queue_timeout: self.queue_timeout,
        };
        if let Some(disk) = &disk {
            self.start_disk(disk);
        }
        let fetcher = Arc::new(Fetcher {
            disk,
            redis,
            remote: cluster.clone().map(|cluster| Arc::new(cluster) as Arc<dyn RemoteFetcher>),
            paging: BoxCloneSyncService::new(below),
            memory,
            series_map,
            settings,
            clock: self.clock.clone(),
            quotas: self.quotas.clone(),
            limiters: self.limiters.clone(),
            window_fields,
            purges,
            assemble_window: answer::assemble,
        });
        if let Some(cluster) = cluster {
            cluster.start(&fetcher);
        }
        CacheStage(fetcher)
    }
}

/// The service of [`CacheLayer`].
#[derive(Clone)]
pub struct CacheStage(pub(super) Arc<Fetcher>);

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
            Ok(hit) => {
                telemetry::tier_lookups(Tier::Memory, 1, 0);
                if hit.is_ready() {
                    return Either::Left(ready(admit(&self.0.memory, hit.answer())));
                }
                Either::Right(Box::pin(async { Ok(hit.stripped().await?) }))
            }
            Err(missing) => {
                let fetcher = self.0.clone();
                Either::Right(Box::pin(async move {
                    let from_disk = query.span.scope(FastPath::from_disk(&fetcher, &query, missing)).await;
                    let answer = match from_disk {
                        Some(hit) => {
                            telemetry::tier_lookups(Tier::Memory, 0, 1);
                            hit.stripped().await?
                        }
                        None => answer::answer(fetcher.clone(), query).await?,
                    };
                    admit(&fetcher.memory, answer)
                }))
            }
        }
    }
}

/// Lets an answer begin, unless it is large or streamed and other answers pin too much memory.
fn admit(memory: &Memory, answer: WindowAnswer) -> Result<WindowAnswer, CacheError> {
    let bytes = || answer.items.slices.iter().map(|slice| slice.chunk.weight()).sum();
    if memory.admits_answer(answer.rest.is_some(), bytes) { Ok(answer) } else { Err(CacheError::PinnedMemoryFull) }
}

impl Service<CachedQuery> for CacheStage {
    type Response = CachedWindow;
    type Error = CacheError;
    type Future = BoxFuture<'static, Result<CachedWindow, CacheError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CacheError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, CachedQuery(query): CachedQuery) -> Self::Future {
        let fetcher = self.0.clone();
        Box::pin(async move {
            fetcher.remove_future_entries(query.asked_at);
            until_disk_is_loaded(&fetcher).await;
            let hit = match FastPath::at(&fetcher, &query) {
                Ok(hit) => Some(hit),
                Err(missing) => FastPath::from_disk(&fetcher, &query, missing).await,
            };
            let answer = match hit {
                Some(hit) => Some(hit.stripped().await?),
                None => answer::answer_from_memory(fetcher.clone(), query.clone()).await?,
            };
            Ok(answer
                .map_or_else(|| CachedWindow::Incomplete(estimate::cost(&fetcher, &query)), CachedWindow::Complete))
        })
    }
}

impl Service<CostQuery> for CacheStage {
    type Response = Cost;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Cost, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, CostQuery(query): CostQuery) -> Self::Future {
        let fetcher = self.0.clone();
        Box::pin(async move {
            until_disk_is_loaded(&fetcher).await;
            Ok(estimate::cost(&fetcher, &query))
        })
    }
}

/// Waits until it is known what the disk has, which is soon after the start.
async fn until_disk_is_loaded(fetcher: &Fetcher) {
    if let Some(disk) = fetcher.disk.as_ref().filter(|disk| disk.is_loading()) {
        disk.until_loaded().await;
    }
}
