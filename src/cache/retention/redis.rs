//! The sweep of Redis. Cells expire with the retention by themselves, so this finds only those that were written under a
//! longer one. One replica scans all keys, once an hour.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::cache::redis::keys::{CellKey, all_cells, retention_lock};
use crate::config::SeriesSettings;
use crate::redis_client::{Command, ConnectionError, RedisClient, Reply};
use crate::telemetry;
use crate::window::Timestamp;

/// Time between two scans.
const SCAN_INTERVAL: Duration = Duration::from_hours(1);
/// How long the lock of a scan keeps other replicas from another one: less than [`SCAN_INTERVAL`], so that the lock has
/// expired when the next scan is due.
const LOCK_SECONDS: &str = "3540";

/// Deletes cells that are too old.
#[derive(Debug)]
pub(super) struct RedisSweeper {
    redis: RedisClient,
    /// `cache.redis.prefix`.
    prefix: String,
    settings: SeriesSettings,
    /// When the next scan is due.
    due: Mutex<Instant>,
}

impl RedisSweeper {
    pub(super) fn new(prefix: &str, redis: &RedisClient, settings: &SeriesSettings) -> Self {
        let (redis, prefix, settings) = (redis.clone(), prefix.to_owned(), settings.clone());
        Self { redis, prefix, settings, due: Mutex::new(Instant::now()) }
    }

    /// Deletes what is too old at `now` of these accounts, if a scan is due, and no other replica has scanned lately. A
    /// scan that fails is due again.
    pub(super) async fn sweep(&self, accounts: &[Arc<str>], now: Timestamp) {
        if Instant::now() < *self.due.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        let mut has_failed = false;
        for account in accounts {
            if let Err(error) = self.sweep_account(account, now).await {
                telemetry::retention_sweep_failed(account, &error);
                has_failed = true;
            }
        }
        if !has_failed {
            *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + SCAN_INTERVAL;
        }
    }

    async fn sweep_account(&self, account: &str, now: Timestamp) -> Result<(), ConnectionError> {
        let lock = retention_lock(&self.prefix, account);
        let take = Command::new("SET").arg(lock.clone()).arg("1").arg("NX").arg("EX").arg(LOCK_SECONDS);
        match self.redis.run(vec![take]).await?.as_slice() {
            [Reply::Status(_)] => {}
            // Another replica has the lock.
            [Reply::Nil] => return Ok(()),
            other => return Err(other.first().map_or(ConnectionError::Nonsense, Reply::fault)),
        }
        let result = self.delete_too_old(account, now).await;
        if result.is_err() {
            // If this fails too, the next scan is in an hour.
            let _ = self.redis.run(vec![Command::new("DEL").arg(lock)]).await;
        }
        result
    }

    async fn delete_too_old(&self, account: &str, now: Timestamp) -> Result<(), ConnectionError> {
        // Cells of all versions and settings: those that no program reads any more may contain conversations too.
        let (prefix, pattern) = all_cells(&self.prefix, account);
        let mut scan = self.redis.scan(&prefix, &pattern);
        while let Some(keys) = scan.next().await? {
            let too_old: Vec<Bytes> = keys.into_iter().filter(|key| self.is_too_old(account, key, now)).collect();
            // Redis frees a whole key in the background.
            let deletes = too_old.into_iter().map(|key| Command::new("UNLINK").arg(key)).collect();
            let (mut deleted, mut failed) = (0, None);
            for reply in self.redis.run(deletes).await? {
                match reply {
                    Reply::Integer(_) => deleted += 1,
                    other => failed = Some(other.fault()),
                }
            }
            telemetry::retention_removed("redis", deleted);
            if let Some(fault) = failed {
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Whether a key is that of a cell of which everything is too old.
    fn is_too_old(&self, account: &str, key: &[u8], now: Timestamp) -> bool {
        let Some(CellKey { stream, interval, .. }) = CellKey::parse(&self.prefix, key) else { return false };
        let stream = percent_decode_str(stream).decode_utf8_lossy();
        self.settings.retained_since(account, &stream, now).is_some_and(|since| interval.end <= since)
    }
}
