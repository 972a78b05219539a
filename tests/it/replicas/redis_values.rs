//! Values in Redis that must not be used: damaged, foreign, encrypted with another key, or written with wrong settings.

use crate::support::{
    ApiVariant, DAY, Profile, RedisServer, SETTLED_DAY, SelectOn, Settings, TestHarness, TestRequest, Timestamp, at,
    exact_profile, until,
};

/// The chunks of a day.
const CHUNKS: usize = 24;

async fn start(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(250, 4), settings).await
}

#[tokio::test]
async fn oversized_foreign_value_leaves_cell_usable() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    redis.until_chunks(CHUNKS).await;
    let calls = harness.calls();
    redis.for_each_chunk("if n == 9 then redis.call('hset', key, '0_foreign', string.rep('x', 20971520)) end");
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    other.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    assert_eq!(harness.calls(), calls, "the other value of the cell is a hit");
}

#[tokio::test]
async fn damaged_or_misplaced_value_is_a_miss() {
    // One script for each of six days.
    let damages = [
        "redis.call('hset', key, field, value:sub(1, n * 3 % #value) .. string.char((value:byte(n * 3 % #value + 1) + 1) % 256) .. value:sub(n * 3 % #value + 2))",
        "redis.call('hset', key, field, value:sub(1, #value - n % #value - 1))",
        "redis.call('hset', key, field, '')",
        // Each value under the name of the next one, and under a name of its own.
        "if last then redis.call('hset', key, field, last) end last = value",
        "redis.call('hdel', key, field) redis.call('hset', key, field .. '0', value)",
        "redis.call('del', key) redis.call('set', key, value)",
    ];
    let days = (0..).map(|n| at("2026-02-18") + DAY * n).zip(damages);
    let query = |day: Timestamp| {
        let date = day.to_string()[..10].to_owned();
        TestRequest::get(format!("from={date}&to={date}"))
    };
    let redis = RedisServer::start();
    let harness = TestHarness::start(exact_profile(250, 9), &Settings::default().redis(&redis.url())).await;
    let one = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    for (day, _) in days.clone() {
        one.send(&query(day)).await.page();
    }
    redis.until_chunks(damages.len() * CHUNKS).await;
    for (day, damage) in days.clone() {
        let first = day.as_seconds();
        let cell = "tonumber(key:match(':(%d+):%d+$'))";
        redis.for_each_chunk(&format!("if {cell} >= {first} and {cell} < {first} + 86400 then {damage} end"));
    }
    // A replica with the chunks in memory would hand them over.
    harness.gateway.release_lease().await;
    one.release_lease().await;
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    for (day, damage) in days {
        let calls = harness.calls();
        other.send(&query(day)).await.assert_complete(&harness.items(day, day + DAY), "the window");
        assert!(harness.calls() > calls, "{damage}");
    }
}

#[tokio::test]
async fn encrypted_values_open_with_their_key_only() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("{name}: a secret of 32 random bytes or more")).unwrap();
        format!("{{ file = '{}' }}", file.display())
    };
    let encrypted = Settings::default().redis_with(&redis.url(), &format!("encryption_key = {}", key("one")));
    let harness = start(&encrypted).await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    redis.until_chunks(CHUNKS).await;
    let readable = redis.for_each_chunk(
        "if value:find('kgc4', 1, true) or value:find('segmentID', 1, true) then return 'readable' end",
    );
    assert_eq!(readable, CHUNKS.to_string(), "values are readable without the key");
    let calls = harness.calls();
    let keys = format!("encryption_key = {}, previous_encryption_key = {}", key("two"), key("one"));
    let rotated = harness.add_replica(&Settings::default().redis_with(&redis.url(), &keys)).await;
    rotated.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    assert_eq!(harness.calls(), calls);
    let keys = format!("encryption_key = {}", key("three"));
    let wrong = harness.add_replica(&Settings::default().redis_with(&redis.url(), &keys)).await;
    wrong.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the settled day");
    assert!(harness.calls() > calls);
}

#[tokio::test]
async fn chunks_cut_by_wrong_field_are_not_read() {
    let redis = RedisServer::start();
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(250, 4) };
    let harness = TestHarness::start(profile, &Settings::default().redis(&redis.url())).await;
    // A second without a conversation across its edges does not reveal the wrong field; a day does.
    let quiet = "from=2026-02-23T04:00:00&to=2026-02-23T04:00:00";
    harness.get(quiet).await.page();
    redis.until_any_chunk().await;
    harness.get(SETTLED_DAY).await.page();
    let marked = "return redis.call('keys', '*:wrong')[1]";
    until("the account is marked", || redis.query(&["EVAL", marked, "0"]).ends_with(":wrong")).await;
    let calls = harness.calls();
    let after = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    after.get(quiet).await.page();
    assert!(harness.calls() > calls, "chunks of the wrong field are not used");
    let corrected = Settings::default().redis(&redis.url()).section("window", "field = 'segmentEndTime'");
    let corrected = harness.add_replica(&corrected).await;
    corrected.get(SETTLED_DAY).await.page();
    let calls = harness.calls();
    until("the right chunks are in Redis", || {
        redis.for_each_chunk("if key:find('segmentEndTime') then return 'found' end") == "found"
    })
    .await;
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn chunks_settled_by_wrong_clock_are_ignored() {
    let redis = RedisServer::start();
    let ahead = start(&Settings::default().redis(&redis.url())).await;
    let open = "from=2026-02-25T11:00:00&to=2026-02-25T11:59:59";
    ahead.advance(DAY * 3);
    ahead.get(open).await.page();
    redis.until_any_chunk().await;
    // While the replica with the wrong clock is the leader, its results are ignored.
    ahead.gateway.release_lease().await;
    let right = start(&Settings::default().redis(&redis.url())).await;
    right.get(open).await.page();
    assert!(right.calls() > 0);
}
