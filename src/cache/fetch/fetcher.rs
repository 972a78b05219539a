//! The handles that fetching needs, and questions about the account and the series that all parts of it ask.

use std::sync::Arc;
use std::time::Duration;

use tower::util::BoxCloneSyncService;

use super::assembly::AssembleWindow;
use super::remote::RemoteFetcher;
use crate::cache::chunk::Chunk;
use crate::cache::disk::DiskTier;
use crate::cache::purge::Purges;
use crate::cache::redis::RedisTier;
use crate::cache::series::{SeriesMap, SeriesState};
use crate::cache::store::{CacheEntry, ChunkPacker, Memory};
use crate::cache::window_field::{FieldScope, WindowFields};
use crate::clock::Clock;
use crate::config::{SeriesSettings, WindowSettings};
use crate::paging::{FetchedRun, PagingError, Run, RunLimiters};
use crate::quota::QuotaManager;
use crate::request::{Requester, Series};
use crate::window::{Density, Grid, Timestamp};

/// The stages below the cache.
pub(in crate::cache) type PagingService = BoxCloneSyncService<Run<ChunkPacker>, FetchedRun<Arc<Chunk>>, PagingError>;

/// Starts fetches and stores their results.
pub(in crate::cache) struct Fetcher {
    pub(in crate::cache) paging: PagingService,
    pub(in crate::cache) memory: Memory,
    /// The tier that outlives the process; `None` without `cache.disk`.
    pub(in crate::cache) disk: Option<DiskTier>,
    /// The tier that replicas share; `None` without Redis.
    pub(in crate::cache) redis: Option<RedisTier>,
    /// The interface to the leader replica; `None` without Redis.
    pub(in crate::cache) remote: Option<Arc<dyn RemoteFetcher>>,
    pub(in crate::cache) series_map: SeriesMap,
    pub(in crate::cache) settings: CacheSettings,
    pub(in crate::cache) clock: Clock,
    /// Whether callers compete for the quota, and how much of it is spare.
    pub(in crate::cache) quotas: QuotaManager,
    /// How many runs may be in flight.
    pub(in crate::cache) limiters: RunLimiters,
    pub(in crate::cache) window_fields: WindowFields,
    pub(in crate::cache) purges: Purges,
    /// Assembles windows for remote fetches and for checks of `window.field`.
    pub(in crate::cache) assemble_window: AssembleWindow<Self>,
}

/// Settings of the cache.
#[derive(Clone, Debug)]
pub(in crate::cache) struct CacheSettings {
    /// The settings of each series.
    pub(in crate::cache) series: SeriesSettings,
    pub(in crate::cache) grid: Grid,
    /// How long a request waits for the quota.
    pub(in crate::cache) queue_timeout: Duration,
}

impl CacheSettings {
    /// The settings of a series. Allocates nothing.
    pub(in crate::cache) fn of(&self, series: &Series) -> Arc<WindowSettings> {
        self.series.for_series(&series.account, &series.stream)
    }

    /// The series whose `window.field` is checked together with that of `series`.
    pub(in crate::cache) fn field_scope(&self, series: &Series) -> FieldScope {
        FieldScope::new(&series.account, &self.of(series))
    }
}

impl Fetcher {
    /// The interface to the leader of an account, unless this replica makes its calls. Which replica is the leader may
    /// not be known yet.
    pub(in crate::cache) fn remote(&self, account: &str) -> Option<&dyn RemoteFetcher> {
        self.remote.as_deref().filter(|remote| remote.is_remote(account))
    }

    /// Timestamp before which data of a series is settled at `timestamp`, by this machine's clock or by the upstream's, whichever
    /// is earlier.
    pub(in crate::cache) fn settled_before(&self, settings: &WindowSettings, timestamp: Timestamp) -> Timestamp {
        settings.freshness_policy.settled_before(timestamp - self.clock.ahead())
    }

    /// Density of a series: of its cached items, with and without `agenticActivities`, and of what its runs in flight
    /// have seen.
    pub(in crate::cache) fn density(&self, state: &SeriesState) -> Density {
        let mut density = state.density(|entry: &CacheEntry| entry.peek(&self.memory));
        for fetch in &state.in_flight {
            if let Some(seen) = &fetch.status().borrow().density {
                density.merge(seen);
            }
        }
        density
    }

    /// How many runs of this caller could start beside those in flight, if the upstream is so slow that they would make
    /// an answer faster; else 0.
    pub(in crate::cache) fn spare_runs(&self, series: &Series, requester: &Requester) -> usize {
        let limiter = self.limiters.of(&series.account).filter(|limiter| limiter.pages_are_slow());
        let Some((limiter, scheduler)) = limiter.zip(self.quotas.scheduler(&series.account)) else { return 0 };
        let idle = limiter.idle(requester);
        scheduler.spare_calls(requester.priority, u32::try_from(idle).unwrap_or(u32::MAX)) as usize
    }
}
