//! The sweep of what has grown too old for the retention of its stream, tier by tier.
//!
//! The sweep only frees what is kept: a window is cut at the retention when its request is parsed, so that nothing too
//! old is served or fetched, whether it was swept or not. A chunk or a cell is deleted when all of it is too old.
//!
//! | file | contents |
//! | --- | --- |
//! | `mod.rs` | when to sweep, and the sweeps of memory and disk |
//! | `redis.rs` | the sweep of Redis, whose cells also expire by themselves |

mod redis;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use self::redis::RedisSweeper;
use super::disk::DiskTier;
use super::series::SeriesMap;
use super::store::{ChunkFacts, Memory};
use crate::blocking::spawn_work;
use crate::clock::Clock;
use crate::config::SeriesSettings;
use crate::redis_client::RedisClient;
use crate::request::Series;
use crate::telemetry;
use crate::window::Timestamp;

/// How long data stays in memory after it has become too old.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// How long it stays on disk.
const DISK_SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// Deletes what is too old from all tiers. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub struct RetentionSweeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: SeriesSettings,
    series_map: SeriesMap,
    memory: Memory,
    disk: Option<DiskTier>,
    /// When the next sweep of the disk is due.
    disk_due: Mutex<Instant>,
    clock: Clock,
    /// `None` without Redis.
    redis: Option<RedisSweeper>,
}

impl RetentionSweeper {
    /// A sweeper of what `series_map`, `memory` and `disk` hold, and of the cells in Redis, given with the prefix of all keys.
    pub(in crate::cache) fn new(
        settings: &SeriesSettings,
        series_map: &SeriesMap,
        memory: &Memory,
        disk: Option<&DiskTier>,
        clock: &Clock,
        redis: Option<(&str, &RedisClient)>,
    ) -> Self {
        let redis = redis.map(|(prefix, redis)| RedisSweeper::new(prefix, redis, settings));
        Self(Arc::new(Inner {
            settings: settings.clone(),
            series_map: series_map.clone(),
            memory: memory.clone(),
            disk: disk.cloned(),
            disk_due: Mutex::new(Instant::now()),
            clock: clock.clone(),
            redis,
        }))
    }

    /// Sweeps at intervals until all handles are dropped. Must be called on a runtime.
    pub(in crate::cache) fn start(&self) {
        let handle = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut due = tokio::time::interval(SWEEP_INTERVAL);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                let Some(inner) = handle.upgrade() else { return };
                Self(inner).sweep().await;
            }
        });
    }

    /// Deletes from each tier what is too old now; from Redis only once in a while. Returns the number of chunks that
    /// were in memory. While the clock is known to be wrong, nothing is deleted.
    pub async fn sweep(&self) -> usize {
        let Inner { settings, clock, redis, .. } = &*self.0;
        let accounts = settings.accounts_with_retention();
        if accounts.is_empty() || clock.is_wrong() {
            return 0;
        }
        let now = clock.now();
        let removed = self.sweep_memory(&accounts, now).await;
        telemetry::retention_removed("memory", removed as u64);
        self.sweep_disk(now).await;
        if let Some(redis) = redis {
            redis.sweep(&accounts, now).await;
        }
        removed
    }

    /// Overwrites what is too old on disk, once an hour, since all records are visited.
    async fn sweep_disk(&self, now: Timestamp) {
        let Inner { settings, disk, disk_due, .. } = &*self.0;
        let due = *disk_due.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(disk) = disk.as_ref().filter(|disk| disk.is_loaded() && Instant::now() >= due) else { return };
        let settings = settings.clone();
        let is_too_old = move |series: &Series, facts: &ChunkFacts| {
            let since = settings.retained_since(&series.account, &series.stream, now);
            since.is_some_and(|since| facts.interval.end <= since)
        };
        match disk.erase_if(is_too_old).await {
            Ok(erased) => {
                telemetry::retention_removed("disk", erased);
                *disk_due.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + DISK_SWEEP_INTERVAL;
            }
            Err(error) => telemetry::disk_failed("erase", &error),
        }
    }

    async fn sweep_memory(&self, accounts: &[Arc<str>], now: Timestamp) -> usize {
        let (inner, accounts) = (self.0.clone(), accounts.to_vec());
        let sweep = move || {
            let Inner { settings, series_map, memory, .. } = &*inner;
            let series = accounts.iter().flat_map(|account| {
                let of_account = series_map.account_series(account).into_iter();
                of_account.map(move |(stream, state)| (settings.retained_since(account, &stream, now), state))
            });
            let removed =
                series.map(|(since, state)| since.map_or(0, |since| state.lock().remove_before(since, memory)));
            removed.sum()
        };
        // All series of the accounts are visited, and many chunks may be removed at once.
        spawn_work(sweep).await.unwrap_or_default()
    }
}
