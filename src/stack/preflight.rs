//! Check of what the stack needs of this machine: see `server/preflight.rs`.

use crate::cache::DiskTier;
use crate::config::{AuditTarget, Config, KeyFault};
use crate::environment::Environment;
use crate::quota::StateFile;
use crate::redis_client::RedisClient;
use crate::upstream::Client;
use crate::writable::check_appendable;

/// The faults for which [`Stack::new`](super::Stack::new) would fail, or for which the disk tier could never be used.
pub fn preflight(config: &Config, environment: &Environment) -> Vec<KeyFault> {
    let Environment { clock, network, .. } = environment;
    let mut faults = Vec::new();
    let mut check =
        |key, result: Result<(), String>| faults.extend(result.err().map(|message| KeyFault { key, message }));
    if let Some(redis) = &config.cache.redis {
        check("cache.redis.url", RedisClient::new(redis, network).map(drop).map_err(|error| error.to_string()));
    }
    if let Some(disk) = &config.cache.disk {
        check(
            "cache.disk.path",
            DiskTier::inspect(&disk.path).map_err(|error| format!("{}: {error}", disk.path.display())),
        );
    }
    if let Some(path) = &config.quota.state_file {
        check("quota.state_file", StateFile::inspect(path).map_err(|error| error.to_string()));
    }
    if let Some(AuditTarget::File(path)) = &config.log.audit {
        check("log.audit", check_appendable(path).map_err(|error| format!("{}: {error}", path.display())));
    }
    if config.traces.collector.is_some() {
        check(
            "traces.ca_file",
            super::handles::collector_tls(&config.traces).map(drop).map_err(|error| format!("{error:#}")),
        );
    }
    let client = Client::new(&config.upstream, clock, network);
    check("upstream.ca_file", client.map(drop).map_err(|error| format!("{error:#}")));
    check(
        "cache.encryption_key",
        super::handles::cipher(&config.cache.encryption).map(drop).map_err(|error| error.to_string()),
    );
    faults
}
