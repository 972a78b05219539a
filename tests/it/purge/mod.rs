//! Purges: purged data is served from no tier by no replica, whatever is pending.

mod erasure;
mod propagation;
mod redis;
mod requests;

use serde_json::Value;

use crate::support::{
    GatewayClient, RedisServer, SETTLED_DAY, Settings, TestHarness, TestResponse, exact_profile, until, until_async,
};

/// The chunks of the settled day: one an hour.
const CHUNKS: usize = 24;

async fn start(settings: &Settings) -> TestHarness {
    TestHarness::start(exact_profile(250, 4), settings).await
}

/// Settings that encrypt what is in Redis, with the file of the key.
fn encrypted(redis: &RedisServer) -> (tempfile::NamedTempFile, Settings) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "32 random bytes or more, as they should be").unwrap();
    let key = format!("encryption_key = {{ file = '{}' }}", file.path().display());
    (file, Settings::default().redis_with(&redis.url(), &key))
}

/// Purges at one gateway and returns the report; `query` is percent-encoded.
async fn purge(gateway: &GatewayClient, query: &str) -> Value {
    completed(&gateway.purge(query).await)
}

/// The report of a purge with status 200.
#[track_caller]
fn completed(response: &TestResponse) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The number of replicas that receive messages through a node.
fn listeners(node: &RedisServer) -> usize {
    let subscribers = node.query(&["PUBSUB", "NUMSUB", "koregate:f1:all"]);
    subscribers.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until_listening(redis: &RedisServer, replicas: usize) {
    until("replicas that listen", || listeners(redis) == replicas).await;
}

/// Repeats the request for the settled day until the response is current.
async fn until_current(gateway: &GatewayClient, harness: &TestHarness) {
    let expected = harness.settled_day();
    until_async("the purge to take effect", async || gateway.get(SETTLED_DAY).await.has_items(&expected)).await;
}

/// Whether Redis has chunks that were fetched before the first purge.
fn has_old_chunks(redis: &RedisServer) -> bool {
    redis.for_each_chunk("if field:find('_0$') then return 'old' end") == "old"
}

/// Waits until Redis has all chunks of the day, fetched after the purge.
async fn until_replaced(redis: &RedisServer) {
    until("new chunks only", || !has_old_chunks(redis) && redis.chunk_count() == CHUNKS).await;
}

/// Saves the chunks of Redis for [`write_back`].
fn save(redis: &RedisServer) {
    let saved = redis.for_each_chunk("redis.call('hset', 'saved:' .. key, field, value)");
    assert_eq!(saved, CHUNKS.to_string());
}

/// Restores the saved chunks, as a replica that has missed the purge would write them.
fn write_back(redis: &RedisServer) {
    let back = "for _, key in ipairs(redis.call('keys', 'saved:*')) do \
                redis.call('rename', key, string.sub(key, 7)) end return 0";
    redis.command(&["EVAL", back, "0"]);
    assert_eq!(redis.chunk_count(), CHUNKS);
}

/// Waits until the restored chunks have been deleted.
async fn until_deleted(redis: &RedisServer) {
    until("no old chunk in Redis", || !has_old_chunks(redis)).await;
}
