//! Chunks shared through Redis: a window that one replica has fetched costs no other replica a call.

use std::time::Duration;

use crate::support::{
    HOUR, RedisCluster, RedisServer, SETTLED_DAY, Settings, TestHarness, TestRequest, UpperBound, Window, at,
    caller_table, channel_filter, exact_profile, until,
};

/// The chunks of a day.
const CHUNKS: usize = 24;
/// A part of the settled day.
const NOON: &str = "from=2026-02-23T09:00:00&to=2026-02-23T14:59:59";

async fn start(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(250, 4), settings).await
}

#[tokio::test]
async fn fetched_day_is_read_by_other_replicas() {
    let redis = RedisServer::start();
    let mut harness = start(&Settings::default().redis(&redis.url())).await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    let calls = harness.calls();
    redis.until_chunks(CHUNKS).await;
    harness.advance(Duration::from_secs(90));
    let (one, another) = (
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
        harness.add_replica(&Settings::default().redis(&redis.url())).await,
    );
    let response = one.get(SETTLED_DAY).await;
    response.assert_complete(&harness.settled_day(), "the settled day");
    assert_eq!(response.header("age"), Some("90"), "the age counts from the fetch of the other replica");
    response.assert_hit();
    assert_eq!(harness.calls(), calls);
    let (expected, part) =
        (harness.settled_day(), harness.items(at("2026-02-23T09:00:00Z"), at("2026-02-23T14:59:59Z").next_tick()));
    harness.stop_upstream().await;
    another.get(NOON).await.assert_complete(&part, "the window");
    another.get(SETTLED_DAY).await.assert_complete(&expected, "the window");
}

#[tokio::test]
async fn part_that_was_fetched_again_is_newest_on_other_replicas() {
    let redis = RedisServer::start();
    let caller = caller_table("all", "all", "cache_control = ['no-cache']");
    let settings = Settings::default().redis(&redis.url()).tables(&caller);
    let harness = start(&settings).await;
    let request = |query: &str| TestRequest::get(query).key("all");
    harness.send(&request(SETTLED_DAY)).await.page();
    redis.until_chunks(CHUNKS).await;
    let halves = |hour: u32| {
        let start = at("2026-02-23") + HOUR * hour;
        [start, start + HOUR / 2].map(|half| harness.items(half, half + HOUR / 2))
    };
    let before: Vec<_> = (0..24).map(halves).collect();
    harness.change_settled_day();
    let hour = (0..24).find(|hour| halves(*hour) != before[*hour as usize]).unwrap();
    let half = usize::from(halves(hour)[0] == before[hour as usize][0]);
    harness.advance(Duration::from_secs(90));
    let start = at("2026-02-23") + HOUR * hour;
    let second = Duration::from_secs(1);
    let half_start = start + HOUR / 2 * u32::try_from(half).unwrap();
    let part = Window::seconds(half_start, half_start + HOUR / 2 - second, UpperBound::Inclusive);
    let part = request(&part.query).header("cache-control", "no-cache");
    harness.send(&part).await.assert_complete(&halves(hour)[half], "the part");
    redis.until_chunks(CHUNKS + 1).await;
    let other = harness.add_replica(&settings).await;
    let whole = Window::seconds(start, start + HOUR - second, UpperBound::Inclusive);
    let response = other.send(&request(&whole.query)).await;
    response.assert_complete(&halves(hour).concat(), "the hour");
    response.assert_hit();
}

#[tokio::test]
async fn filter_applies_to_window_of_other_replica() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    let calls = harness.calls();
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    let response = other.send(&TestRequest::post(SETTLED_DAY, r#"{"channels":["voice"]}"#)).await;
    let filter = channel_filter("voice");
    response.assert_complete(&harness.items_of(at("2026-02-23"), at("2026-02-24"), false, &filter), "filtered");
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn open_window_age_is_shared_between_replicas() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let now = "from=2026-02-25T11:00:00&to=2026-02-25T23:59:59";
    harness.get(now).await.page();
    let calls = harness.calls();
    redis.until_any_chunk().await;
    harness.advance(Duration::from_secs(20));
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    let response = other.get(now).await;
    assert_eq!((harness.calls(), response.header("age")), (calls, Some("20")));
    harness.advance(Duration::from_secs(20));
    other.get(now).await.page();
    assert!(harness.calls() > calls, "older than 30 s");
}

#[tokio::test]
async fn newer_chunk_replaces_covered_chunks() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    let now = "from=2026-02-25T12:00:00&to=2026-02-25T23:59:59";
    harness.get(now).await.page();
    redis.until_any_chunk().await;
    let first = redis.for_each_chunk("");
    for _ in 0..5 {
        harness.advance(Duration::from_secs(40));
        harness.get(now).await.page();
    }
    let newest = format!("_{}_0'", harness.clock.now().as_nanos());
    let script = format!("if string.find(field .. \"'\", \"{newest}\", 1, true) then return 'found' end");
    until("the last copies are in Redis", || redis.for_each_chunk(&script) == "found").await;
    let chunks: usize = redis.for_each_chunk("").parse().unwrap();
    assert!(chunks <= first.parse::<usize>().unwrap() + 2, "{chunks} after six polls, {first} after one");
}

#[tokio::test]
async fn redis_cluster_shares_chunks() {
    let cluster = RedisCluster::start();
    let settings = Settings::default().redis(&cluster.url());
    let harness = start(&settings).await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    let keys = || -> usize {
        let keys = |server: &RedisServer| server.query(&["KEYS", "koregate:c*"]).split_whitespace().count();
        cluster.masters.iter().map(keys).sum()
    };
    until("all cells are in the cluster", || keys() == CHUNKS).await;
    let calls = harness.calls();
    let other = harness.add_replica(&settings).await;
    other.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn long_sparse_window_is_shared_completely_and_in_few_chunks() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = TestHarness::start(exact_profile(2, 60), &settings).await;
    harness.gateway.until_leader().await;
    let months = "from=2025-12-29&to=2026-02-23";
    let dry_run = TestRequest::get(months).header("prefer", "dry-run");
    harness.get(months).await.page();
    redis.until_chunks(57 * CHUNKS).await;
    let (calls, expected) = (harness.calls(), harness.items(at("2025-12-29"), at("2026-02-24")));
    // Most hours hold no item.
    let few = 1..(57 * CHUNKS as u64 / 3);
    let from_redis = harness.add_replica(&settings).await;
    from_redis.get(months).await.assert_complete(&expected, "from Redis");
    // Redis loses what it has, so that the leader hands over what it has joined.
    redis.for_each_chunk("redis.call('del', key)");
    let from_leader = harness.add_replica(&settings).await;
    from_leader.get(months).await.assert_complete(&expected, "from the leader");
    for gateway in [&harness.gateway, &from_redis, &from_leader] {
        let hits = gateway.send(&dry_run).await.json()["hits"].as_u64().unwrap();
        assert!(few.contains(&hits), "{hits} chunks of {} items", expected.len());
    }
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn redis_hit_without_memory_is_served() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    redis.until_chunks(CHUNKS).await;
    let calls = harness.calls();
    let small = Settings::default().section("cache", "memory = '1KiB'").redis(&redis.url());
    let other = harness.add_replica(&small).await;
    let response = other.get(SETTLED_DAY).await;
    response.assert_complete(&harness.settled_day(), "the settled day");
    response.assert_hit();
    let filtered = other.send(&TestRequest::post(SETTLED_DAY, r#"{"channels":["voice"]}"#)).await;
    let filter = channel_filter("voice");
    filtered.assert_complete(&harness.items_of(at("2026-02-23"), at("2026-02-24"), false, &filter), "filtered");
    assert_eq!(harness.calls(), calls);
}
