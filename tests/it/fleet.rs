//! Replicas that share one Redis: what one has fetched, all have; and whatever happens to Redis, every answer is right.

use std::time::Duration;

use koregate::window::Timestamp;
use koregate_simulator::{ApiVariant, ItemFilter, Profile, SelectOn};

use crate::support::{Answer, Ask, RedisCluster, RedisServer, Rig, Settings, at, exact_profile, text, until};

/// A settled day.
const DAY: &str = "from=2026-02-23&to=2026-02-23";
/// The cells of a day: one chunk in each.
const CELLS: usize = 24;
/// A part of the day.
const NOON: &str = "from=2026-02-23T09:00:00&to=2026-02-23T14:59:59";

fn settings(redis: &RedisServer) -> Settings {
    with_key(redis, "")
}

fn with_key(redis: &RedisServer, more: &str) -> Settings {
    Settings::default().section("cache", &format!("redis = {{ url = '{}', timeout = '1s'{more} }}", redis.url()))
}

async fn rig(settings: &Settings) -> Rig {
    Rig::start(exact_profile(250, 4), settings).await
}

/// Runs `script` in Redis.
fn run(redis: &RedisServer, script: &str) -> String {
    text(&redis.admin(&["EVAL", script, "0"]))
}

/// Does something with each chunk: `key`, `field` and `value` name it.
fn for_each_chunk(redis: &RedisServer, body: &str) -> String {
    let script = format!(
        "local n, last = 0, nil for _, key in ipairs(redis.call('keys', 'koregate:c*')) do \
         local all = redis.call('type', key).ok == 'hash' and redis.call('hgetall', key) or {{}} for i = 1, #all, 2 do \
         local field, value = all[i], all[i + 1] n = n + 1 {body} end end return n"
    );
    run(redis, &script)
}

async fn until_written(redis: &RedisServer, chunks: usize) {
    until("all chunks are in Redis", || for_each_chunk(redis, "") == chunks.to_string()).await;
}

fn advance(rig: &Rig, seconds: u64) {
    rig.clock.set(rig.clock.now() + Duration::from_secs(seconds));
}

#[track_caller]
fn assert_whole(answer: &Answer, truth: &[Vec<u8>]) {
    assert!(answer.page().items().eq(truth.iter().map(Vec::as_slice)), "not the whole window");
}

fn day(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-23"), at("2026-02-24"))
}

#[tokio::test]
async fn what_one_replica_has_fetched_costs_no_other_a_call_even_without_the_upstream() {
    let redis = RedisServer::start();
    let mut rig = rig(&settings(&redis)).await;
    assert_whole(&rig.get(DAY).await, &day(&rig));
    let spent = rig.calls();
    until_written(&redis, CELLS).await;
    advance(&rig, 90);
    let (one, another) = (rig.another_door(&settings(&redis)).await, rig.another_door(&settings(&redis)).await);
    let answer = one.ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &day(&rig));
    assert_eq!(answer.header("age"), Some("90"), "as old as it is, not as new as it came here");
    assert!(answer.cache_status().starts_with("koregate; hit"), "{}", answer.cache_status());
    assert_eq!(rig.calls(), spent);
    let (truth, part) = (day(&rig), rig.truth(at("2026-02-23T09:00:00Z"), at("2026-02-23T14:59:59Z").next_tick()));
    rig.stop_upstream().await;
    assert_whole(&another.ask(&Ask::get(NOON)).await, &part);
    assert_whole(&another.ask(&Ask::get(DAY)).await, &truth);
}

#[tokio::test]
async fn a_filter_is_applied_to_what_another_replica_has_fetched_without_one() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    rig.get(DAY).await.page();
    until_written(&redis, CELLS).await;
    let spent = rig.calls();
    let other = rig.another_door(&settings(&redis)).await;
    let answer = other.ask(&Ask::post(DAY, r#"{"channels":["voice"]}"#)).await;
    let filter = ItemFilter { channels: vec!["voice".to_owned()], ..ItemFilter::default() };
    assert_whole(&answer, &rig.truth_of(at("2026-02-23"), at("2026-02-24"), false, &filter));
    assert_eq!(rig.calls(), spent);
}

#[tokio::test]
async fn what_is_open_is_as_old_in_one_replica_as_in_another() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let now = "from=2026-02-25T11:00:00&to=2026-02-25T23:59:59";
    rig.get(now).await.page();
    let spent = rig.calls();
    until("the open chunks are in Redis", || for_each_chunk(&redis, "") != "0").await;
    advance(&rig, 20);
    let other = rig.another_door(&settings(&redis)).await;
    let answer = other.ask(&Ask::get(now)).await;
    assert_eq!((rig.calls(), answer.header("age")), (spent, Some("20")));
    advance(&rig, 20);
    other.ask(&Ask::get(now)).await.page();
    assert!(rig.calls() > spent, "older than 30 s");
}

#[tokio::test]
async fn foreign_value_of_twenty_megabytes_leaves_its_cell_usable() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    assert_whole(&rig.get(DAY).await, &day(&rig));
    until_written(&redis, CELLS).await;
    let spent = rig.calls();
    for_each_chunk(&redis, "if n == 9 then redis.call('hset', key, '0_foreign', string.rep('x', 20971520)) end");
    let other = rig.another_door(&settings(&redis)).await;
    assert_whole(&other.ask(&Ask::get(DAY)).await, &day(&rig));
    assert_eq!(rig.calls(), spent, "the chunk beside it is a hit");
}

#[tokio::test]
async fn a_value_that_is_damaged_cut_or_of_another_name_is_a_miss() {
    // One for each day.
    let damages = [
        "redis.call('hset', key, field, value:sub(1, n * 3 % #value) .. string.char((value:byte(n * 3 % #value + 1) + 1) % 256) .. value:sub(n * 3 % #value + 2))",
        "redis.call('hset', key, field, value:sub(1, #value - n % #value - 1))",
        "redis.call('hset', key, field, '')",
        // Each under the next one's name, and in the next one's cell.
        "if last then redis.call('hset', key, field, last) end last = value",
        "redis.call('hdel', key, field) redis.call('hset', key, field .. '0', value)",
        "redis.call('del', key) redis.call('set', key, value)",
    ];
    let days = (0..).map(|n| at("2026-02-18") + Duration::from_hours(24) * n).zip(damages);
    let query = |day: Timestamp| {
        let date = day.to_string()[..10].to_owned();
        Ask::get(format!("from={date}&to={date}"))
    };
    let redis = RedisServer::start();
    let rig = Rig::start(exact_profile(250, 9), &settings(&redis)).await;
    let one = rig.another_door(&settings(&redis)).await;
    for (day, _) in days.clone() {
        one.ask(&query(day)).await.page();
    }
    until_written(&redis, damages.len() * CELLS).await;
    for (day, damage) in days.clone() {
        let first = day.as_seconds();
        let cell = "tonumber(key:match(':(%d+):%d+$'))";
        for_each_chunk(&redis, &format!("if {cell} >= {first} and {cell} < {first} + 86400 then {damage} end"));
    }
    // Whoever has fetched them could hand them over.
    rig.door.gateway.stack().quotas.leave().await;
    one.gateway.stack().quotas.leave().await;
    let other = rig.another_door(&settings(&redis)).await;
    for (day, damage) in days {
        let spent = rig.calls();
        assert_whole(&other.ask(&query(day)).await, &rig.truth(day, day + Duration::from_hours(24)));
        assert!(rig.calls() > spent, "{damage}");
    }
}

#[tokio::test]
async fn a_newer_copy_takes_the_place_of_those_that_it_covers() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let now = "from=2026-02-25T12:00:00&to=2026-02-25T23:59:59";
    rig.get(now).await.page();
    until("the first copies are in Redis", || for_each_chunk(&redis, "") != "0").await;
    let first = for_each_chunk(&redis, "");
    for _ in 0..5 {
        advance(&rig, 40);
        rig.get(now).await.page();
    }
    let newest = format!("_{}_0'", rig.clock.now().as_nanos());
    let script = format!("if string.find(field .. \"'\", \"{newest}\", 1, true) then return 'there' end");
    until("the last copies are in Redis", || for_each_chunk(&redis, &script) == "there").await;
    let chunks: usize = for_each_chunk(&redis, "").parse().unwrap();
    assert!(chunks <= first.parse::<usize>().unwrap() + 2, "{chunks} after six polls, {first} after one");
}

#[tokio::test]
async fn sealed_values_show_nothing_and_open_with_their_key_only() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("{name} of 32 random bytes or more")).unwrap();
        format!("{{ file = '{}' }}", file.display())
    };
    let sealed = with_key(&redis, &format!(", encryption_key = {}", key("one")));
    let rig = rig(&sealed).await;
    assert_whole(&rig.get(DAY).await, &day(&rig));
    until_written(&redis, CELLS).await;
    let shown = for_each_chunk(
        &redis,
        "if value:find('kgc2', 1, true) or value:find('segmentID', 1, true) then return 'shown' end",
    );
    assert_eq!(shown, CELLS.to_string());
    let spent = rig.calls();
    let rotated = format!(", encryption_key = {}, previous_encryption_key = {}", key("two"), key("one"));
    let rotated = rig.another_door(&with_key(&redis, &rotated)).await;
    assert_whole(&rotated.ask(&Ask::get(DAY)).await, &day(&rig));
    assert_eq!(rig.calls(), spent);
    let wrong = rig.another_door(&with_key(&redis, &format!(", encryption_key = {}", key("three")))).await;
    assert_whole(&wrong.ask(&Ask::get(DAY)).await, &day(&rig));
    assert!(rig.calls() > spent);
}

#[tokio::test]
async fn without_redis_every_answer_is_right_and_it_is_used_again_when_it_is_back() {
    let mut redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    rig.get(NOON).await.page();
    until_written(&redis, 6).await;
    redis.kill();
    for query in ["from=2026-02-24T00:00:00&to=2026-02-24T03:59:59", DAY, "from=2026-02-24&to=2026-02-24"] {
        let answer = rig.get(query).await;
        assert!(answer.status == 200, "{}", answer.text());
        if query == DAY {
            assert_whole(&answer, &day(&rig));
        }
    }
    redis.restart();
    // The first windows may come before it is noticed that Redis is back; each is a new one.
    let mut minutes = (0..1440).map(|minute| format!("2026-02-22T{:02}:{:02}", minute / 60, minute % 60));
    let used_again = async {
        while for_each_chunk(&redis, "") == "0" {
            let minute = minutes.next().expect("Redis is never used again");
            rig.get(format!("from={minute}:00&to={minute}:59")).await.page();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), used_again).await.expect("Redis is not used again");
    redis.stop();
    let frozen = rig.another_door(&settings(&redis)).await;
    assert_whole(&frozen.ask(&Ask::get(DAY)).await, &day(&rig));
    redis.cont();
}

#[tokio::test]
async fn what_was_cut_by_a_wrong_timestamp_is_read_by_nobody_any_more() {
    let redis = RedisServer::start();
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(250, 4) };
    let rig = Rig::start(profile, &settings(&redis)).await;
    // A minute that nobody was talking over the edge of does not give the upstream away; a day does.
    let quiet = "from=2026-02-23T04:00:00&to=2026-02-23T04:00:00";
    rig.get(quiet).await.page();
    until("something is in Redis", || for_each_chunk(&redis, "") != "0").await;
    rig.get(DAY).await.page();
    let marked = "return redis.call('keys', '*:wrong')[1]";
    until("the account is marked", || run(&redis, marked).ends_with(":wrong")).await;
    let spent = rig.calls();
    let after = rig.another_door(&settings(&redis)).await;
    after.ask(&Ask::get(quiet)).await.page();
    assert!(rig.calls() > spent, "it asks for itself");
    let mended = settings(&redis).section("window", "field = 'segmentEndTime'");
    let mended = rig.another_door(&mended).await;
    mended.ask(&Ask::get(DAY)).await.page();
    let spent = rig.calls();
    until("the right chunks are in Redis", || {
        for_each_chunk(&redis, "if key:find('segmentEndTime') then return 'there' end") == "there"
    })
    .await;
    assert_eq!(rig.calls(), spent);
}

#[tokio::test]
async fn it_is_told_that_redis_is_away() {
    let mut redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    assert_eq!(rig.door.admin("/readyz").await.json()["status"], "ready");
    redis.kill();
    for hour in 0..8 {
        rig.get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:59:59")).await.page();
    }
    let ready = rig.door.admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (200, Some("degraded")), "{}", ready.text());
}

#[tokio::test]
async fn replicas_share_a_cluster_too() {
    let cluster = RedisCluster::start();
    let settings = Settings::default().redis(&cluster.url());
    let rig = rig(&settings).await;
    assert_whole(&rig.get(DAY).await, &day(&rig));
    let keys = || -> usize {
        let keys = |server: &RedisServer| text(&server.admin(&["KEYS", "koregate:c*"])).split_whitespace().count();
        cluster.masters.iter().map(keys).sum()
    };
    until("all cells are in the cluster", || keys() == CELLS).await;
    let spent = rig.calls();
    let other = rig.another_door(&settings).await;
    assert_whole(&other.ask(&Ask::get(DAY)).await, &day(&rig));
    assert_eq!(rig.calls(), spent);
}

#[tokio::test]
async fn what_a_clock_that_is_wrong_has_settled_is_not_believed() {
    let redis = RedisServer::start();
    let ahead = rig(&settings(&redis)).await;
    let open = "from=2026-02-25T11:00:00&to=2026-02-25T11:59:59";
    advance(&ahead, 3 * 86_400);
    ahead.get(open).await.page();
    until("it is in Redis", || for_each_chunk(&redis, "") != "0").await;
    // As long as it makes the calls, nobody believes what it brings.
    ahead.door.gateway.stack().quotas.leave().await;
    let right = rig(&settings(&redis)).await;
    right.get(open).await.page();
    assert!(right.calls() > 0);
}

#[tokio::test]
async fn a_long_window_is_shared_whole() {
    let redis = RedisServer::start();
    let rig = Rig::start(exact_profile(2, 60), &settings(&redis)).await;
    let months = "from=2025-12-29&to=2026-02-23";
    rig.get(months).await.page();
    until_written(&redis, 57 * CELLS).await;
    let spent = rig.calls();
    let other = rig.another_door(&settings(&redis)).await;
    assert_whole(&other.ask(&Ask::get(months)).await, &rig.truth(at("2025-12-29"), at("2026-02-24")));
    assert_eq!(rig.calls(), spent);
}

#[tokio::test]
async fn what_stands_in_redis_serves_though_memory_is_too_small_to_keep_it() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    assert_whole(&rig.get(DAY).await, &day(&rig));
    until_written(&redis, CELLS).await;
    let spent = rig.calls();
    let small = Settings::default().section("cache", "memory = '1KiB'").redis(&redis.url());
    let other = rig.another_door(&small).await;
    let answer = other.ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &day(&rig));
    assert!(answer.cache_status().starts_with("koregate; hit"), "{}", answer.cache_status());
    let filtered = other.ask(&Ask::post(DAY, r#"{"channels":["voice"]}"#)).await;
    let filter = ItemFilter { channels: vec!["voice".to_owned()], ..ItemFilter::default() };
    assert_whole(&filtered, &rig.truth_of(at("2026-02-23"), at("2026-02-24"), false, &filter));
    assert_eq!(rig.calls(), spent);
}
