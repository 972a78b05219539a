//! How each configuration key is read: builder of a [`Config`] from the merged tree, with the keys, their defaults, and
//! the checks between keys. `[[accounts]]` is in `accounts.rs`, `[[callers]]` in
//! `callers.rs`, `[window]` and what overrides it in `window_settings.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use secrecy::ExposeSecret as _;

use super::table_reader::{LoadContext, TableReader};
use super::value_tree::ConfigNode;
use super::{
    AdminConfig, CacheConfig, Config, DiskConfig, EncryptionKeys, JobsConfig, QuotaConfig, RedisConfig, ServerConfig,
    ServerLimits, ServerTlsConfig, UpstreamConfig, accounts, callers, observability, parse, url, window_settings,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
/// Least bytes of a secret from which a key of AES-256 is derived.
const MIN_ENCRYPTION_KEY_BYTES: usize = 32;

/// The configuration of the tree at `root`. Problems are reported to `context`; if there are any, the result is `None`
/// or must not be used.
pub(super) fn config(context: &LoadContext, root: ConfigNode) -> Option<Config> {
    let mut root = TableReader::new(context, String::new(), root);
    let mut server_table = root.table("server");
    let server = server(&mut server_table);
    let admin = admin(root.table("admin"));
    let upstream = upstream(root.table("upstream"));
    let accounts = accounts::accounts(&mut root);
    let window = window_settings::global(root.table("window"));
    let quota = quota(root.table("quota"));
    let jobs = jobs(root.table("jobs"));
    let cache = cache(root.table("cache"));
    let log = observability::log(root.table("log"));
    let traces = observability::traces(root.table("traces"));
    let client_certificates = server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let callers = callers::callers(&mut root, accounts.as_deref(), client_certificates);
    if callers.as_ref().is_some_and(Vec::is_empty) && !server.listen.ip().is_loopback() {
        server_table.report(
            "listen",
            format!(
                "{} is open to the network, and there are no callers; add [[callers]], or listen on loopback \
                 (\"127.0.0.1:8080\")",
                server.listen
            ),
        );
    }
    server_table.finish();
    root.finish();
    let (accounts, cache, callers, origins) = (accounts?, cache?, callers?, context.origins());
    Some(Config { server, admin, upstream, accounts, window, quota, cache, jobs, log, traces, callers, origins })
}

fn server(table: &mut TableReader<'_>) -> ServerConfig {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = table.value_or("listen", loopback(8080), parse::address);
    let admin_listen = table.value_or("admin_listen", loopback(9090), parse::address);
    // Port 0 means any free port, so two listeners with it do not collide.
    if listen == admin_listen && listen.port() != 0 && table.is_faultless() {
        table.report("admin_listen", "is the address of `listen`; the admin plane has a listener of its own");
    }
    let metrics_listen = table.optional("metrics_listen", parse::address);
    let is_taken = |addr: &SocketAddr| addr.port() != 0 && (*addr == listen || *addr == admin_listen);
    if metrics_listen.as_ref().is_some_and(is_taken) {
        table.report("metrics_listen", "is the address of another listener");
    }
    let hosts = table.value_or("hosts", Vec::new(), parse::host_names);
    let tls = table.optional_table("tls").and_then(tls);
    let drain_timeout = table.value_or("drain_timeout", 30 * SECOND, parse::duration);
    ServerConfig { listen, admin_listen, metrics_listen, hosts, tls, drain_timeout, limits: server_limits(table) }
}

fn tls(mut table: TableReader<'_>) -> Option<ServerTlsConfig> {
    let cert = table.required("cert", parse::path);
    let key = table.required("key", parse::path);
    let client_ca = table.optional("client_ca", parse::path);
    table.finish();
    Some(ServerTlsConfig { cert: cert?, key: key?, client_ca })
}

fn server_limits(table: &mut TableReader<'_>) -> ServerLimits {
    let mut count = |key, default| table.value_or(key, default, parse::integer(1..=1_000_000)) as usize;
    let max_connections = count("max_connections", 4096);
    let max_connections_per_peer = count("max_connections_per_peer", 1024);
    let max_requests = count("max_requests", 1536);
    ServerLimits {
        max_connections,
        max_connections_per_peer,
        max_requests,
        // hyper does not support less than 8 KiB.
        max_head_size: table.value_or("max_head_size", 32 << 10, parse::size_within(8 << 10..=1 << 20)),
        request_memory: table.value_or("request_memory", 16 << 20, parse::size),
        send_timeout: table.value_or("send_timeout", MINUTE, parse::positive_duration),
        send_memory: table.value_or("send_memory", 32 << 20, parse::size),
    }
}

fn admin(mut table: TableReader<'_>) -> AdminConfig {
    let token = table.optional_secret("token");
    if token.as_ref().is_some_and(|token| !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())) {
        table.report("token", "holds a space or a character beyond ASCII, which `authorization: Bearer` cannot carry");
    }
    let hosts = table.value_or("hosts", Vec::new(), parse::host_names);
    let metric_streams = table.value_or("metric_streams", 100, parse::integer(0..=100_000));
    let tls = table.optional_table("tls").and_then(tls);
    table.finish();
    AdminConfig { token, hosts, metric_streams: metric_streams as usize, tls }
}

fn upstream(mut table: TableReader<'_>) -> UpstreamConfig {
    let base_url = table.value_or("base_url", Uri::from_static("https://platform.kore.ai"), |node: &ConfigNode| {
        url::base_url(parse::text(node, "a URL such as \"https://platform.kore.ai\"")?)
    });
    let timeout = table.value_or("timeout", 30 * SECOND, parse::positive_duration);
    // The upper bound is far below the largest count of a semaphore.
    let max_concurrency = table.value_or("max_concurrency", 8, parse::integer(1..=10_000));
    let ca_file = table.optional("ca_file", parse::path);
    let proxy = url::proxy::proxy(&mut table);
    let send_traceparent = table.value_or("send_traceparent", false, parse::boolean);
    table.finish();
    UpstreamConfig { base_url, timeout, max_concurrency: max_concurrency as usize, ca_file, proxy, send_traceparent }
}

fn quota(mut table: TableReader<'_>) -> QuotaConfig {
    let quota = QuotaConfig {
        queue_timeout: table.value_or("queue_timeout", 30 * SECOND, parse::duration),
        max_wait: table.value_or("max_wait", 5 * MINUTE, parse::whole_seconds),
        // With a reserve of 1, background work would never be done.
        interactive_reserve: table.value_or("interactive_reserve", 0.2, parse::share(0.0..=0.9)),
        state_file: table.optional("state_file", parse::path),
    };
    table.finish();
    quota
}

fn jobs(mut table: TableReader<'_>) -> JobsConfig {
    let jobs = JobsConfig {
        per_caller: table.value_or("per_caller", 100, parse::integer(0..=100_000)),
        keep_for: table.value_or("keep_for", 60 * MINUTE, parse::whole_seconds),
    };
    table.finish();
    jobs
}

fn cache(mut table: TableReader<'_>) -> Option<CacheConfig> {
    let memory = table.value_or("memory", 256 << 20, parse::size);
    let own_keys = encryption_keys(&mut table);
    let disk = table.optional_table("disk").map(disk);
    let redis = table.optional_table("redis").map(redis);
    let redis_keys = redis.as_ref().map(|(_, keys)| keys.clone()).unwrap_or_default();
    if own_keys.current.is_some() && redis_keys.current.is_some() && table.is_faultless() {
        table.report("encryption_key", "stands in `cache.redis` too, where it means the same");
    }
    table.finish();
    let encryption = if own_keys.current.is_some() { own_keys } else { redis_keys };
    let (disk, redis) = (disk.map_or(Some(None), |disk| disk.map(Some)), redis.map(|(redis, _)| redis));
    Some(CacheConfig { memory, disk: disk?, redis: redis.map_or(Some(None), |redis| redis.map(Some))?, encryption })
}

fn disk(mut table: TableReader<'_>) -> Option<DiskConfig> {
    let path = table.required("path", parse::path);
    let size = table.value_or("size", 10 << 30, parse::size_of_at_least(16 << 20));
    table.finish();
    Some(DiskConfig { path: path?, size })
}

fn encryption_keys(table: &mut TableReader<'_>) -> EncryptionKeys {
    let (current, previous) =
        (table.optional_secret("encryption_key"), table.optional_secret("previous_encryption_key"));
    for (key, secret) in [("encryption_key", &current), ("previous_encryption_key", &previous)] {
        if secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < MIN_ENCRYPTION_KEY_BYTES) {
            table.report(key, "has less than 32 bytes, so it can be guessed; make one with `openssl rand -hex 32`");
        }
    }
    if previous.is_some() && current.is_none() && table.is_faultless() {
        table.report("previous_encryption_key", "is of no use without `encryption_key`");
    }
    EncryptionKeys { current, previous }
}

/// `cache.redis`, and the keys that may stand there instead of in `cache`.
fn redis(mut table: TableReader<'_>) -> (Option<RedisConfig>, EncryptionKeys) {
    let url = table.required_redis_url("url");
    let prefix = table.value_or("prefix", "koregate".to_owned(), parse::name);
    let ttl = table.value_or("ttl", 400 * DAY, parse::positive_duration);
    let timeout = table.value_or("timeout", Duration::from_millis(250), parse::positive_duration);
    let max_value = table.value_or("max_value", 16 << 20, parse::size_of_at_least(1 << 20));
    let replicas = table.value_or("replicas", 8, parse::integer(1..=10_000));
    let keys = encryption_keys(&mut table);
    table.finish();
    let redis = url.map(|url| RedisConfig { url, prefix, ttl, timeout, max_value, replicas: replicas as usize });
    (redis, keys)
}
