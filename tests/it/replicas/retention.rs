//! Retention in Redis, and replicas that differ in the settings of a stream.

use crate::support::{
    DAY, ItemFilter, OTHER_STREAM, Profile, RedisServer, SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, at,
    exact_profile, exact_stream,
};

/// The chunks of a day.
const CHUNKS: usize = 24;

#[tokio::test]
async fn cells_expire_with_the_retention() {
    let redis = RedisServer::start();
    let settings = Settings::default().account("retention = '3d'").redis(&redis.url());
    let harness = TestHarness::start(exact_profile(240, 4), &settings).await;
    harness.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    // A minute is more than the test has taken.
    let now = (harness.clock.now() - DAY * 3).as_seconds();
    let late = "tonumber(key:match(':(%d+):%d+$')) + 3600";
    let wrong = redis.for_each_chunk(&format!(
        "local left, due = redis.call('ttl', key), {late} - {now} \
         if left > due or left < due - 60 then return key .. ' in ' .. left .. ' instead of ' .. due end"
    ));
    assert_eq!(wrong, CHUNKS.to_string());
}

#[tokio::test]
async fn cells_of_a_longer_retention_are_deleted() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = TestHarness::start(exact_profile(240, 5), &settings).await;
    harness.get("from=2026-02-22&to=2026-02-23").await.page();
    redis.until_chunks(2 * CHUNKS).await;
    // 2026-02-23T00:34:56 is the limit: the first cell of that day is kept as a whole.
    let shorter = harness.add_replica(&settings.account("retention = '60h'")).await;
    redis.until_chunks(CHUNKS).await;
    let first = at("2026-02-23").as_seconds();
    let cell = "tonumber(key:match(':(%d+):%d+$'))";
    let early = redis.for_each_chunk(&format!("if {cell} < {first} then return key end"));
    assert_eq!(early, CHUNKS.to_string());
    let expected = harness.items(at("2026-02-23T00:34:56Z"), at("2026-02-24"));
    shorter.get(SETTLED_DAY).await.assert_complete(&expected, "the limit day");
    assert_eq!(shorter.get("from=2026-02-22&to=2026-02-23").await.status, 400);
}

#[tokio::test]
async fn replicas_with_other_settings_of_a_stream_do_not_mix() {
    let redis = RedisServer::start();
    let streams = vec![exact_stream(STREAM, 240), exact_stream(OTHER_STREAM, 240)];
    let settings = Settings::default().redis(&redis.url());
    let harness = TestHarness::start(Profile { streams, ..exact_profile(240, 5) }, &settings).await;
    harness.gateway.until_leader().await;
    let differs = settings.account(&format!(
        "stream_settings = [{{ stream = '{OTHER_STREAM}', window = {{ upper_bound = 'exclusive' }} }}]"
    ));
    let other = harness.add_replica(&differs).await;
    let hours = "from=2026-02-23T06:00:00&to=2026-02-23T18:00:00";
    for stream in [STREAM, OTHER_STREAM] {
        let (from, to) = (at("2026-02-23T06:00:00Z"), at("2026-02-23T18:00:00Z"));
        harness.control.insert(stream, to);
        let end = if stream == STREAM { to.next_tick() } else { to };
        let expected = harness.control.expected_until(stream, from, end, false, &ItemFilter::default());
        let expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
        other.send(&TestRequest::get(hours).stream(stream)).await.assert_complete(&expected, stream);
        let expected = harness.control.expected(stream, from, to, false, &ItemFilter::default());
        let expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
        harness.send(&TestRequest::get(hours).stream(stream)).await.assert_complete(&expected, stream);
    }
}
