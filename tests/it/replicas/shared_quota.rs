//! The quota of several replicas: together they keep the limits, whatever happens to a replica or to Redis.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    GatewayClient, Profile, RedisServer, RollingLimit, Settings, TestHarness, TestRequest, at, exact_profile, until,
    until_async,
};

/// Twelve calls in two seconds.
const LIMIT: (usize, Duration) = (12, Duration::from_secs(2));
/// Concurrent callers of each replica: more than the limit serves.
const CALLERS: u64 = 8;

pub(super) fn settings(url: &str) -> Settings {
    settings_with(url, "")
}

/// The same with more keys of `cache.redis`.
fn settings_with(url: &str, keys: &str) -> Settings {
    Settings::default()
        .limits("[{ requests = 12, per = '2s' }, { requests = 100000, per = '1h' }]")
        .section("quota", "queue_timeout = '20s'")
        .section("cache", &format!("redis = {{ url = '{url}', timeout = '250ms'{keys} }}"))
}

/// A harness whose upstream enforces the limit.
pub(super) async fn start(url: &str) -> TestHarness {
    let profile = Profile { rate_limits: vec![RollingLimit::new(LIMIT.0, LIMIT.1)].into(), ..exact_profile(480, 20) };
    TestHarness::start(profile, &settings(url)).await
}

/// Constant load on several replicas: distinct windows of one call each, until it is stopped.
pub(super) struct Load {
    next: AtomicU64,
    served: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    pub(super) fn new() -> Self {
        Self { next: AtomicU64::new(0), served: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    /// Sends requests to all replicas.
    pub(super) async fn run(&self, harness: &TestHarness, gateways: &[&GatewayClient]) {
        join_all(gateways.iter().map(|gateway| join_all((0..CALLERS).map(|_| self.call_repeatedly(harness, gateway)))))
            .await;
    }

    async fn call_repeatedly(&self, harness: &TestHarness, gateway: &GatewayClient) {
        while !self.stop.load(Ordering::Relaxed) {
            let from = at("2026-02-06") + Duration::from_mins(10 * self.next.fetch_add(1, Ordering::Relaxed));
            let to = from + Duration::from_mins(8);
            let [first, last] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
            let Ok(response) = gateway.try_send(&TestRequest::get(format!("from={first}&to={last}"))).await else {
                return;
            };
            if response.status == 503 {
                // A share of the quota may be too small for all callers.
                assert!(response.header("retry-after").is_some());
                continue;
            }
            response.assert_complete(&harness.items(from, to.next_tick()), "a cold window");
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits until `more` further windows have been served.
    pub(super) async fn until_served(&self, more: u64) {
        let wanted = self.served() + more;
        until("the windows are served", || self.served() >= wanted).await;
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asserts that the upstream saw no more calls than the limit in any rolling window.
#[track_caller]
pub(super) fn assert_limit_kept(harness: &TestHarness) {
    let most = harness.control.max_in_any_window(LIMIT.1);
    assert!(most <= LIMIT.0, "{most} calls in {:?}", LIMIT.1);
    assert_eq!(harness.control.counts().limited, 0, "the upstream refused calls");
}

/// Waits until `/readyz` of all replicas says `status`.
pub(super) async fn until_readiness(gateways: &[&GatewayClient], status: &str) {
    for gateway in gateways {
        until_async(status, async || gateway.readiness().await == status).await;
    }
}

#[tokio::test]
async fn replicas_share_one_limit_and_fill_it() {
    let redis = RedisServer::start();
    let harness = start(&redis.url()).await;
    let others = [
        harness.add_replica(&settings(&redis.url())).await,
        harness.add_replica(&settings(&redis.url())).await,
        harness.add_replica(&settings(&redis.url())).await,
    ];
    let gateways: Vec<&GatewayClient> = std::iter::once(&harness.gateway).chain(&others).collect();
    let load = Load::new();
    let watch = async {
        load.until_served(84).await;
        load.stop();
    };
    tokio::join!(watch, load.run(&harness, &gateways));
    assert_limit_kept(&harness);
    assert_eq!(harness.control.max_in_any_window(LIMIT.1), LIMIT.0, "the limit is used up");
}

#[tokio::test]
async fn leaving_replica_hands_over_leadership() {
    let redis = RedisServer::start();
    let harness = start(&redis.url()).await;
    let gateways =
        [harness.add_replica(&settings(&redis.url())).await, harness.add_replica(&settings(&redis.url())).await];
    let both = [&gateways[0], &gateways[1]];
    let load = Load::new();
    let watch = async {
        load.until_served(12).await;
        load.stop();
    };
    tokio::join!(watch, load.run(&harness, &both));
    let [one, other] = gateways;
    assert!(one.server.drain().await);
    let response = other.get("from=2026-02-24&to=2026-02-24").await;
    assert_eq!(response.status, 200);
    assert_limit_kept(&harness);
}

#[tokio::test]
async fn flushed_redis_keeps_limit() {
    let redis = RedisServer::start();
    let harness = start(&redis.url()).await;
    let other = harness.add_replica(&settings(&redis.url())).await;
    let (gateways, load) = ([&harness.gateway, &other], Load::new());
    let watch = async {
        for _ in 0..4 {
            load.until_served(15).await;
            redis.command(&["FLUSHALL"]);
        }
        load.until_served(12).await;
        load.stop();
    };
    tokio::join!(watch, load.run(&harness, &gateways));
    assert_limit_kept(&harness);
}

#[tokio::test]
async fn replicas_with_different_keys_keep_limit() {
    let redis = RedisServer::start();
    let harness = start(&redis.url()).await;
    let keys = tempfile::tempdir().unwrap();
    let encrypted = |name: &str| {
        let file = keys.path().join(name);
        std::fs::write(&file, format!("{name} is thirty-two bytes long, or more")).unwrap();
        settings_with(&redis.url(), &format!(", encryption_key = {{ file = '{}' }}", file.display()))
    };
    let (one, two) = (harness.add_replica(&encrypted("one")).await, harness.add_replica(&encrypted("two")).await);
    let (gateways, load) = ([&harness.gateway, &one, &two], Load::new());
    let watch = async {
        load.until_served(60).await;
        load.stop();
    };
    tokio::join!(watch, load.run(&harness, &gateways));
    assert_limit_kept(&harness);
    // Chunks encrypted with another key are a miss, which costs a call.
    let query = "from=2026-02-24T10:00:00&to=2026-02-24T10:29:59";
    let expected = harness.items(at("2026-02-24T10:00:00Z"), at("2026-02-24T10:30:00Z"));
    for gateway in gateways {
        let response = gateway.get(query).await;
        assert!(response.has_items(&expected), "{}", response.text());
    }
    assert_limit_kept(&harness);
}
