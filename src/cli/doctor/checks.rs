//! Checks of what koregate needs beside the upstream: Redis, the disk, and certificates.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cache::DiskTier;
use crate::config::{Config, DiskConfig, RedisConfig, ServerTlsConfig};
use crate::environment::Environment;
use crate::quota::StateFile;
use crate::redis_client::RedisClient;
use crate::server::Validity;
use crate::units::{print_duration_roughly, print_size};
use crate::upstream::Client;
use crate::window::Timestamp;

/// A certificate that ends within this time is reported.
const EXPIRY_NOTICE: Duration = Duration::from_hours(14 * 24);

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// The key of the configuration that is checked.
    pub(super) name: &'static str,
    pub(super) state: CheckState,
    pub(super) detail: String,
}

/// See [`Check::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    Good,
    Wrong,
}

impl CheckState {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Wrong => "wrong",
        }
    }
}

impl Check {
    fn new(name: &'static str, result: Result<String, String>) -> Self {
        match result {
            Ok(detail) => Self { name, state: CheckState::Good, detail },
            Err(detail) => Self { name, state: CheckState::Wrong, detail },
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "name": self.name, "ok": self.state == CheckState::Good, "detail": self.detail })
    }
}

/// Runs the checks of everything that is configured.
pub(super) async fn run(config: &Config, environment: &Environment) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(redis) = &config.cache.redis {
        checks.push(Check::new("cache.redis", check_redis(redis, environment).await));
    }
    if let Some(disk) = &config.cache.disk {
        checks.push(Check::new("cache.disk", check_disk(disk)));
    }
    if let Some(path) = &config.quota.state_file {
        checks.push(Check::new("quota.state_file", check_state_file(path)));
    }
    if let Some(tls) = &config.server.tls {
        checks.push(Check::new("server.tls", check_tls(tls, environment.clock.now())));
    }
    let client = Client::new(&config.upstream, &environment.clock, &environment.network);
    let trust = client.map(|_| "the trust anchors are usable".to_owned()).map_err(|error| format!("{error:#}"));
    checks.push(Check::new("upstream.ca_file", trust));
    checks
}

async fn check_redis(redis: &RedisConfig, environment: &Environment) -> Result<String, String> {
    let client = RedisClient::new(redis, &environment.network).map_err(|error| error.to_string())?;
    match client.memory_advice().await {
        Ok(None) => Ok("it answers, and its memory is bounded".to_owned()),
        Ok(Some(advice)) => Err(format!("it answers, but {advice}")),
        Err(error) => Err(error.to_string()),
    }
}

fn check_disk(DiskConfig { path, size }: &DiskConfig) -> Result<String, String> {
    let shown = path.display();
    DiskTier::inspect(path).map_err(|error| format!("{shown}: {error}"))?;
    let Ok(entries) = fs::read_dir(path) else {
        // koregate makes the directory, with those above it.
        let existing = path.ancestors().skip(1).find(|parent| parent.is_dir()).unwrap_or(Path::new("."));
        return has_room(existing, *size, 0).map(|room| format!("{shown} does not exist yet and can be made; {room}"));
    };
    try_writing(path).map_err(|error| format!("{shown}: {error}"))?;
    let used = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    has_room(path, *size, used).map(|room| format!("{shown} is writable; {room}"))
}

/// Whether there is room for `size` bytes, of which `used` are there already.
fn has_room(path: &Path, size: u64, used: u64) -> Result<String, String> {
    let room = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let mebibytes = |bytes: u64| print_size(bytes >> 20 << 20);
    if free.saturating_add(used) < size {
        return Err(format!(
            "{} has {} free, which is not enough for size = {}",
            path.display(),
            mebibytes(free),
            print_size(size)
        ));
    }
    Ok(format!("{} are free", mebibytes(free)))
}

/// Makes a file in a directory, and removes it.
fn try_writing(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!(".koregate-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&file)?;
    fs::remove_file(&file)
}

fn check_state_file(path: &Path) -> Result<String, String> {
    StateFile::inspect(path).map_err(|error| error.to_string())?;
    let state = if path.exists() { "is writable" } else { "does not exist yet and can be made" };
    Ok(format!("{} {state}", path.display()))
}

fn check_tls(tls: &ServerTlsConfig, now: Timestamp) -> Result<String, String> {
    let Validity { from, until } = crate::server::certificate_validity(tls).map_err(|error| format!("{error:#}"))?;
    if now < from {
        return Err(format!("the certificate is not valid before {from}"));
    }
    if now > until {
        return Err(format!("the certificate expired at {until}"));
    }
    let left = print_duration_roughly(until.since(now));
    if until.since(now) < EXPIRY_NOTICE {
        return Err(format!("the certificate expires in {left}, at {until}"));
    }
    Ok(format!("the key fits the certificate, which is valid for another {left}"))
}
