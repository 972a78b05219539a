//! The shared state of the cache, for the stage and for the admin plane.

use std::path::Path;
use std::sync::Arc;

use super::disk::DiskTier;
use super::purge::{PurgeJournal, Purges};
use super::queued_bytes::QueuedBytes;
use super::retention::RetentionSweeper;
use super::series::SeriesMap;
use super::store::Memory;
use super::window_field::WindowFields;
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaManager;
use crate::replicas::Mailbox;
use crate::traces::Tracer;

/// Handles of the cache. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct CacheHandles {
    /// The memory tier.
    pub memory: Memory,
    /// The state of the check of each `window.field`.
    pub window_fields: WindowFields,
    /// Purges of this and of other replicas.
    pub purges: Purges,
    /// The sweep of what is too old.
    pub retention: RetentionSweeper,
    pub(super) series_map: SeriesMap,
    /// The disk tier; `None` without `cache.disk`.
    pub disk: Option<DiskTier>,
    pub(super) redis: Option<(config::RedisConfig, Mailbox)>,
    /// The bytes that wait to be written to Redis.
    pub(super) queued_for_redis: QueuedBytes,
    /// Starts the spans of what this replica does for others.
    pub(super) tracer: Tracer,
}

impl CacheHandles {
    /// A cache that is empty as yet, of the size that `cache` configures, for the accounts of `quotas`. With a `disk`,
    /// purges outlive the process; the path is the state file of the quota, beside which their anchor lies. With a
    /// `mailbox`, it shares Redis with other replicas, and must be created on a Tokio runtime, where it listens for
    /// purges.
    pub fn new(
        cache: &config::CacheConfig,
        settings: &config::SeriesSettings,
        disk: Option<(DiskTier, Option<&Path>)>,
        mailbox: Option<&Mailbox>,
        quotas: &QuotaManager,
        clock: &Clock,
    ) -> Self {
        let (memory, window_fields) = (Memory::new(cache.memory), WindowFields::default());
        let (series_map, redis) = (SeriesMap::default(), cache.redis.clone().zip(mailbox.cloned()));
        let accounts = quotas.iter().map(|(account, _)| account).collect();
        let (disk, journal) =
            disk.map(|(disk, state_file)| (disk.clone(), PurgeJournal::new(disk, state_file))).unzip();
        let shared = redis.as_ref().map(|(redis, mailbox)| (redis.prefix.as_str(), mailbox.clone()));
        let purges = Purges::new(series_map.clone(), memory.clone(), clock.clone(), accounts, journal, shared);
        let client = redis.as_ref().map(|(redis, mailbox)| (redis.prefix.as_str(), mailbox.redis()));
        let retention = RetentionSweeper::new(settings, &series_map, &memory, disk.as_ref(), clock, client);
        let (queued_for_redis, tracer) = (QueuedBytes::new(), Tracer::default());
        Self { memory, window_fields, purges, retention, series_map, disk, redis, queued_for_redis, tracer }
    }

    /// The same cache, with spans for what it does for other replicas.
    #[must_use]
    pub fn traced(self, tracer: &Tracer) -> Self {
        Self { tracer: tracer.clone(), ..self }
    }

    /// Waits until what is queued for Redis and for the disk is written, or could not be.
    pub async fn until_written(&self) {
        self.queued_for_redis.until_none().await;
        if let Some(disk) = &self.disk {
            disk.until_written().await;
        }
    }

    /// Serves these accounts from now on.
    pub fn set_accounts(&self, accounts: Vec<Arc<str>>) {
        self.purges.set_accounts(accounts);
    }
}
