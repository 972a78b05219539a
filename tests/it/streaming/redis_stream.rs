//! Streaming of long windows from Redis, chunk by chunk as fast as the client reads; the response stays correct
//! whatever happens to Redis meanwhile.

use std::time::Duration;

use crate::support::{
    Fault, FaultPlan, GatewayClient, RedisServer, Settings, TestHarness, TestRequest, at, channel_filter,
    exact_profile, until,
};

/// Six settled days with 4800 items: thirty megabytes, far more than the buffers between sender and reader hold.
const SIX_DAYS: &str = "from=2026-02-18&to=2026-02-23";
const PAGES: u64 = 48;
/// The chunks of the six days.
const CHUNKS: usize = 144;
/// One of the six days.
const ONE_DAY: &str = "from=2026-02-20&to=2026-02-20";
const DAY_PAGES: u64 = 8;

/// Memory for all chunks.
fn large_memory(redis: &RedisServer) -> Settings {
    with_memory(redis, "256MiB")
}

fn with_memory(redis: &RedisServer, memory: &str) -> Settings {
    let settings = Settings::default().section("cache", &format!("memory = '{memory}'")).redis(&redis.url());
    // Without speculative calls, which would make the counts random.
    settings.section("upstream", "max_concurrency = 1")
}

/// A replica that has written the six days to Redis and has no memory for them.
async fn start_filled(redis: &RedisServer) -> TestHarness {
    let harness = TestHarness::start(exact_profile(800, 8), &with_memory(redis, "1KiB")).await;
    // Day by day, because a streamed window is cached once all of it is verified, for which memory is too small.
    for day in 18..=23 {
        harness.get(format!("from=2026-02-{day}&to=2026-02-{day}")).await.page();
    }
    redis.until_chunks(CHUNKS).await;
    harness.control.reset_counts();
    harness
}

/// Script that deletes each chunk.
const DELETE: &str = "redis.call('del', key)";
/// Script that truncates each chunk.
const DAMAGE: &str = "redis.call('hset', key, field, value:sub(1, #value - 1))";

fn six_days(harness: &TestHarness) -> Vec<Vec<u8>> {
    harness.items(at("2026-02-18"), at("2026-02-24"))
}

#[tokio::test]
async fn window_only_in_redis_is_streamed_without_calls() {
    let redis = RedisServer::start();
    let mut harness = start_filled(&redis).await;
    let other = harness.add_replica(&large_memory(&redis)).await;
    let (expected, filter) = (six_days(&harness), channel_filter("voice"));
    let voice = harness.items_of(at("2026-02-18"), at("2026-02-24"), false, &filter);
    harness.advance(Duration::from_secs(90));
    harness.stop_upstream().await;
    for gateway in [&harness.gateway, &other] {
        let response = gateway.get(SIX_DAYS).await;
        assert_eq!(response.cache_status(), "koregate; hit; ttl=31536000; detail=\"streamed\"");
        assert_eq!(response.header("age"), Some("90"));
        response.assert_complete(&expected, "the window");
    }
    let repeated = other.get(SIX_DAYS).await;
    assert!(
        repeated.cache_status().contains(&format!("chunks={CHUNKS} hits={CHUNKS}")),
        "streamed chunks are in memory"
    );
    assert!(repeated.header("etag").is_some());
    let filtered = harness.send(&TestRequest::post(SIX_DAYS, r#"{"channels":["voice"]}"#)).await;
    assert_eq!(filtered.cache_status(), "koregate; hit; ttl=31536000; detail=\"streamed\"");
    filtered.assert_complete(&voice, "the window");
}

#[tokio::test]
async fn window_partly_in_redis_fetches_missing_day() {
    let redis = RedisServer::start();
    let harness = start_filled(&redis).await;
    let start = at("2026-02-20").as_seconds();
    let delete_day = format!(
        "local at = tonumber(key:match(':(%d+):%d+$')) if at >= {start} and at < {} then redis.call('del', key) end",
        start + 24 * 3600
    );
    redis.for_each_chunk(&delete_day);
    let response = harness.get(SIX_DAYS).await;
    assert_eq!(response.cache_status(), "koregate; fwd=partial; ttl=31536000; detail=\"streamed\"");
    response.assert_complete(&six_days(&harness), "the window");
    assert_eq!(harness.calls(), DAY_PAGES);
}

#[tokio::test]
async fn window_partly_in_memory_fetches_the_rest() {
    let redis = RedisServer::start();
    let harness = start_filled(&redis).await;
    let other = harness.add_replica(&large_memory(&redis)).await;
    other.get(ONE_DAY).await.page();
    assert_eq!(harness.calls(), 0);
    redis.for_each_chunk(DELETE);
    other.get(SIX_DAYS).await.assert_complete(&six_days(&harness), "the window");
    // On a busy machine the leader may learn of the two gaps in parts. Each further run ends with a page of its own.
    let fewest = PAGES - DAY_PAGES;
    assert!((fewest..fewest + DAY_PAGES).contains(&harness.calls()), "{} calls", harness.calls());
}

/// A change of Redis during a response.
#[derive(Clone, Copy, Debug)]
enum Interference {
    ChunksDeleted,
    ChunksDamaged,
    RedisKilled,
    WindowPurged,
}

impl Interference {
    async fn apply(self, redis: &mut RedisServer, gateway: &GatewayClient) {
        match self {
            Self::ChunksDeleted => drop(redis.for_each_chunk(DELETE)),
            Self::ChunksDamaged => drop(redis.for_each_chunk(DAMAGE)),
            Self::RedisKilled => redis.kill(),
            Self::WindowPurged => assert_eq!(gateway.purge("").await.status, 200),
        }
    }
}

#[tokio::test]
async fn redis_change_during_stream_fetches_the_rest() {
    for interference in [
        Interference::ChunksDeleted,
        Interference::ChunksDamaged,
        Interference::RedisKilled,
        Interference::WindowPurged,
    ] {
        let mut redis = RedisServer::start();
        let harness = start_filled(&redis).await;
        let mut response = harness.gateway.open(&TestRequest::get(SIX_DAYS)).await;
        response.read(1000).await;
        // A client that does not read on delays the other chunks.
        interference.apply(&mut redis, &harness.gateway).await;
        response.finish().await.assert_complete(&six_days(&harness), &format!("{interference:?}"));
        // Some chunks had been read from Redis, and the others had not.
        assert!((PAGES / 4..PAGES).contains(&harness.calls()), "{interference:?}: {} calls", harness.calls());
    }
}

#[tokio::test]
async fn damaged_chunks_cost_few_extra_calls() {
    let redis = RedisServer::start();
    let harness = start_filled(&redis).await;
    redis.for_each_chunk(DAMAGE);
    harness.get(SIX_DAYS).await.assert_complete(&six_days(&harness), "the window");
    // Each listed chunk that could not be read begins a run.
    assert!((PAGES..=PAGES + 4).contains(&harness.calls()), "{} calls", harness.calls());
}

/// Six days with 26,400 items: 264 pages, of which 250 are verified before the last one arrives.
#[tokio::test]
async fn long_fetch_verified_chunks_reach_redis_early() {
    let redis = RedisServer::start();
    let harness = TestHarness::start(exact_profile(4_400, 8), &with_memory(&redis, "64MiB")).await;
    // The 251st call verifies; the 261st is never answered.
    harness.control.set_faults(FaultPlan::always(Fault::Slow).after(260));
    let response = harness.gateway.open(&TestRequest::get(SIX_DAYS)).await;
    let reading = tokio::spawn(response.try_finish());
    // At least one chunk in each verified hour.
    until("verified chunks in Redis", || redis.chunk_count() > 135).await;
    harness.until_calls(261).await;
    let another = harness.add_replica(&large_memory(&redis)).await;
    let day = TestRequest::get("from=2026-02-22&to=2026-02-22");
    let expected = harness.items(at("2026-02-22"), at("2026-02-23"));
    assert!(another.send(&day).await.has_items(&expected));
    assert_eq!(harness.calls(), 261);
    reading.abort();
}
