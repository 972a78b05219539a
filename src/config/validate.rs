//! From the merged tree to a [`Config`]: which keys there are, what they default to, and what makes sense together.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use secrecy::ExposeSecret as _;

use super::parse::Keyword;
use super::table_reader::{Reader, Section};
use super::value_tree::ConfigNode;
use super::{
    AdminConfig, CacheConfig, Config, FreshnessTier, QuotaConfig, RedisConfig, ServerConfig, ServerLimits,
    ServerTlsConfig, UpperBound, UpstreamConfig, WindowConfig, accounts, parse, url,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

impl Keyword for UpperBound {
    const WORDS: &'static [(&'static str, Self)] = &[("inclusive", Self::Inclusive), ("exclusive", Self::Exclusive)];
}

/// The configuration that `root` describes. What is wrong with it is noted with the reader; after a fault, the answer
/// is `None` or of no use.
pub(super) fn config(reader: &Reader, root: ConfigNode) -> Option<Config> {
    let mut root = Section::new(reader, String::new(), root);
    let mut server_section = root.section("server");
    let server = server(&mut server_section);
    let admin = admin(root.section("admin"));
    let upstream = upstream(root.section("upstream"));
    let accounts = accounts::accounts(&mut root);
    let window = window(root.section("window"));
    let quota = quota(root.section("quota"));
    let cache = cache(root.section("cache"));
    let callers = accounts::callers(&mut root, accounts.as_deref());
    if callers.as_ref().is_some_and(Vec::is_empty) && !server.listen.ip().is_loopback() {
        server_section.fail(
            "listen",
            format!(
                "{} is open to the network, and there are no callers; add [[callers]], or listen on loopback \
                 (\"127.0.0.1:8080\")",
                server.listen
            ),
        );
    }
    server_section.done();
    root.done();
    Some(Config { server, admin, upstream, accounts: accounts?, window, quota, cache: cache?, callers: callers? })
}

fn server(section: &mut Section<'_>) -> ServerConfig {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = section.or("listen", loopback(8080), parse::address);
    let admin_listen = section.or("admin_listen", loopback(9090), parse::address);
    // Port 0 is any free one, so two of them never meet.
    if listen == admin_listen && listen.port() != 0 && section.is_clean() {
        section.fail("admin_listen", "is the address of `listen`; the admin plane has a listener of its own");
    }
    let hosts = section.or("hosts", Vec::new(), parse::host_names);
    let tls = section.optional_section("tls").and_then(|mut tls| {
        let cert = tls.required("cert", parse::path);
        let key = tls.required("key", parse::path);
        let client_ca = tls.optional("client_ca", parse::path);
        tls.done();
        Some(ServerTlsConfig { cert: cert?, key: key?, client_ca })
    });
    let drain_timeout = section.or("drain_timeout", 30 * SECOND, parse::duration);
    ServerConfig { listen, admin_listen, hosts, tls, drain_timeout, limits: server_limits(section) }
}

fn server_limits(section: &mut Section<'_>) -> ServerLimits {
    let mut count = |key, default| section.or(key, default, parse::integer(1..=1_000_000)) as usize;
    let max_connections = count("max_connections", 4096);
    let max_connections_per_peer = count("max_connections_per_peer", 1024);
    let max_requests = count("max_requests", 1536);
    ServerLimits {
        max_connections,
        max_connections_per_peer,
        max_requests,
        // Less is not supported by hyper; more than that is no head.
        max_head_size: section.or("max_head_size", 32 << 10, parse::size_within(8 << 10..=1 << 20)),
        request_memory: section.or("request_memory", 16 << 20, parse::size),
        send_timeout: section.or("send_timeout", MINUTE, parse::positive_duration),
        send_memory: section.or("send_memory", 32 << 20, parse::size),
    }
}

fn admin(mut section: Section<'_>) -> AdminConfig {
    let token = section.optional_secret("token");
    if token.as_ref().is_some_and(|token| !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())) {
        section.fail("token", "holds a space or a character beyond ASCII, which `authorization: Bearer` cannot carry");
    }
    let hosts = section.or("hosts", Vec::new(), parse::host_names);
    let metric_streams = section.or("metric_streams", 100, parse::integer(0..=100_000));
    section.done();
    AdminConfig { token, hosts, metric_streams: metric_streams as usize }
}

fn upstream(mut section: Section<'_>) -> UpstreamConfig {
    let base_url = section.or("base_url", Uri::from_static("https://platform.kore.ai"), |node| {
        url::base_url(parse::text(node, "a URL such as \"https://platform.kore.ai\"")?)
    });
    let timeout = section.or("timeout", 30 * SECOND, parse::positive_duration);
    // More than a server would bear, and far less than a semaphore can count.
    let max_concurrency = section.or("max_concurrency", 8, parse::integer(1..=10_000));
    let ca_file = section.optional("ca_file", parse::path);
    section.done();
    UpstreamConfig { base_url, timeout, max_concurrency: max_concurrency as usize, ca_file }
}

fn window(mut section: Section<'_>) -> WindowConfig {
    let window = WindowConfig {
        field: section.or("field", "segmentStartTime".into(), |node| parse::label(node).map(Into::into)),
        upper_bound: section.or("upper_bound", UpperBound::Inclusive, parse::word),
        settle_after: section.or("settle_after", DAY, parse::duration),
        freshness: freshness(&mut section),
        chunk: section.or("chunk", HOUR, |node| {
            let chunk = parse::whole_seconds(node)?;
            // Chunks are counted from midnight, so that a day is always made of whole ones.
            if chunk > DAY || !DAY.as_secs().is_multiple_of(chunk.as_secs()) {
                return Err("must divide a day into equal parts, such as \"15m\", \"1h\" or \"24h\"".to_owned());
            }
            Ok(chunk)
        }),
        max_span: section.or("max_span", 366 * DAY, parse::positive_duration),
    };
    section.done();
    window
}

fn freshness(section: &mut Section<'_>) -> Vec<FreshnessTier> {
    let Some(sections) = section.sections("freshness") else {
        return vec![
            FreshnessTier { younger_than: HOUR, max_age: 30 * SECOND },
            FreshnessTier { younger_than: 6 * HOUR, max_age: 5 * MINUTE },
            FreshnessTier { younger_than: DAY, max_age: HOUR },
        ];
    };
    let mut rungs: Vec<FreshnessTier> = Vec::new();
    for mut item in sections {
        let younger_than = item.required("younger_than", parse::positive_duration);
        let max_age = item.required("max_age", parse::duration);
        if let (Some(younger_than), Some(max_age)) = (younger_than, max_age) {
            if let Some(last) = rungs.last() {
                if younger_than <= last.younger_than {
                    item.fail("younger_than", "must be more than that of the entry before it");
                }
                if max_age < last.max_age {
                    item.fail("max_age", "must not be less than that of the entry before it");
                }
            }
            rungs.push(FreshnessTier { younger_than, max_age });
        }
        item.done();
    }
    rungs
}

fn quota(mut section: Section<'_>) -> QuotaConfig {
    let quota = QuotaConfig {
        queue_timeout: section.or("queue_timeout", 30 * SECOND, parse::duration),
        // With a reserve of 1, background work would wait for ever.
        interactive_reserve: section.or("interactive_reserve", 0.2, parse::share(0.0..=0.9)),
        state_file: section.optional("state_file", parse::path),
    };
    section.done();
    quota
}

fn cache(mut section: Section<'_>) -> Option<CacheConfig> {
    let memory = section.or("memory", 256 << 20, parse::size);
    let redis = section.optional_section("redis").map(redis);
    section.done();
    match redis {
        None => Some(CacheConfig { memory, redis: None }),
        Some(redis) => Some(CacheConfig { memory, redis: Some(redis?) }),
    }
}

fn redis(mut section: Section<'_>) -> Option<RedisConfig> {
    let url = section.required_redis_url("url");
    let prefix = section.or("prefix", "koregate".to_owned(), parse::name);
    let ttl = section.or("ttl", 400 * DAY, parse::positive_duration);
    let timeout = section.or("timeout", Duration::from_millis(250), parse::positive_duration);
    let max_value = section.or("max_value", 16 << 20, parse::size_of_at_least(1 << 20));
    let replicas = section.or("replicas", 8, parse::integer(1..=10_000));
    let encryption_key = section.optional_secret("encryption_key");
    let previous_encryption_key = section.optional_secret("previous_encryption_key");
    if previous_encryption_key.is_some() && encryption_key.is_none() && section.is_clean() {
        section.fail("previous_encryption_key", "is of no use without `encryption_key`");
    }
    section.done();
    Some(RedisConfig {
        url: url?,
        prefix,
        ttl,
        timeout,
        max_value,
        replicas: replicas as usize,
        encryption_key,
        previous_encryption_key,
    })
}
