//! The shared state of the cache, for the stage and for the admin plane.

use std::sync::Arc;

use super::disk::DiskTier;
use super::purge::{PurgeJournal, Purges};
use super::series::SeriesMap;
use super::store::Memory;
use super::window_field::WindowFields;
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaManager;
use crate::replicas::{Cipher, Mailbox};

/// Handles of the cache. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct CacheHandles {
    /// The memory tier.
    pub memory: Memory,
    /// The state of each account's `window.field` check.
    pub window_fields: WindowFields,
    /// Purges of this and of other replicas.
    pub purges: Purges,
    pub(super) series_map: SeriesMap,
    /// The disk tier; `None` without `cache.disk`.
    pub disk: Option<DiskTier>,
    pub(super) redis: Option<(config::RedisConfig, Mailbox)>,
}

impl CacheHandles {
    /// A cache that is empty as yet, of the configured size, for the accounts of `quotas`. What is on disk is sealed by
    /// `cipher`. With a `mailbox`, it shares Redis with other replicas, and must be created on a Tokio runtime, where it
    /// listens for purges.
    pub fn new(
        config: &config::Config,
        mailbox: Option<&Mailbox>,
        cipher: Arc<Cipher>,
        quotas: &QuotaManager,
        clock: &Clock,
    ) -> Self {
        let config::Config { cache, window, quota, .. } = config;
        let (memory, window_fields) = (Memory::new(cache.memory), WindowFields::default());
        let (series_map, redis) = (SeriesMap::default(), cache.redis.clone().zip(mailbox.cloned()));
        let accounts = quotas.iter().map(|(account, _)| account.clone()).collect();
        let disk = cache.disk.as_ref().map(|disk| DiskTier::new(disk, window, cipher));
        let journal = disk.clone().map(|disk| PurgeJournal::new(disk, quota.state_file.as_deref()));
        let shared = redis.as_ref().map(|(redis, mailbox)| (redis.prefix.as_str(), mailbox.clone()));
        let purges = Purges::new(series_map.clone(), memory.clone(), clock.clone(), accounts, journal, shared);
        Self { memory, window_fields, purges, series_map, disk, redis }
    }
}
