//! Erasures: purges of what holds an id, in each tier of each replica.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use koregate::cache::Chunk;
use redis::Value as RedisValue;
use serde_json::{Value, json};

use super::{CHUNKS, completed, encrypted, start, until_current, until_listening};
use crate::support::{
    ACCOUNT, GatewayClient, OTHER_ACCOUNT, OTHER_STREAM, Profile, RedisServer, SETTLED_DAY, STREAM, Settings,
    StreamProfile, TestHarness, TestRequest, TestResponse, exact_profile, exact_stream, other_credential, until_async,
};

/// Items of the day that are to be erased.
struct Erased {
    conversations: Vec<String>,
    segments: BTreeSet<String>,
    /// The hours of the day whose chunks hold them.
    hours: BTreeSet<usize>,
}

fn text(item: &Value, member: &str) -> String {
    item[member].as_str().unwrap().to_owned()
}

impl Erased {
    /// The first `count` conversations from `hour` on.
    fn of(harness: &TestHarness, hour: usize, count: usize) -> Self {
        let items: Vec<Value> =
            harness.settled_day().iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
        let hour_of = |item: &Value| text(item, "segmentStartTime")[11..13].parse::<usize>().unwrap();
        let mut conversations = Vec::new();
        for item in items.iter().filter(|item| hour_of(item) >= hour) {
            let conversation = text(item, "conversationID");
            if conversations.len() < count && !conversations.contains(&conversation) {
                conversations.push(conversation);
            }
        }
        assert_eq!(conversations.len(), count);
        let held = || items.iter().filter(|item| conversations.contains(&text(item, "conversationID")));
        let segments = held().map(|item| text(item, "segmentID")).collect();
        let hours = held().map(hour_of).collect();
        Self { conversations, segments, hours }
    }

    /// Deletes them at Kore.
    fn delete_upstream(&self, harness: &TestHarness) {
        for segment in &self.segments {
            assert!(harness.control.remove(STREAM, segment));
        }
    }

    fn request(&self) -> TestRequest {
        erasure(&json!({ "conversationIds": self.conversations }))
    }

    /// Whether bytes hold an id.
    fn is_in(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.conversations.iter().chain(&self.segments).any(|id| text.contains(id))
    }
}

fn erasure(body: &Value) -> TestRequest {
    TestRequest::get("").method(Method::POST).path("/api/v1/purge").body(body.to_string())
}

async fn erase(gateway: &GatewayClient, erased: &Erased) -> Value {
    completed(&gateway.send_admin(&erased.request()).await)
}

fn hour(hour: usize) -> String {
    format!("from=2026-02-23T{hour:02}:00:00&to=2026-02-23T{hour:02}:59:59")
}

/// All that Redis holds: names, values, and the items of the chunks.
fn stored(redis: &RedisServer) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for key in strings(redis.command(&["KEYS", "*"])) {
        let name = String::from_utf8(key.clone()).unwrap();
        let fields = match redis.query(&["TYPE", &name]).as_str() {
            "hash" => strings(redis.command(&["HGETALL", &name])),
            "string" => strings(redis.command(&["GET", &name])),
            "zset" => strings(redis.command(&["ZRANGE", &name, "0", "-1"])),
            other => panic!("{other}: {name}"),
        };
        for pair in fields.chunks(2) {
            let [field, value] = pair else { continue };
            let sealed = [&key[..], b"\0", field].concat();
            if let Some(chunk) = Chunk::from_bytes(&Bytes::from(value.clone()), &sealed) {
                all.extend(chunk.read(0..chunk.len()).map(|row| row.unwrap().1.to_vec()));
            }
        }
        all.push(key);
        all.extend(fields);
    }
    all
}

fn strings(value: RedisValue) -> Vec<Vec<u8>> {
    match value {
        RedisValue::BulkString(bytes) => vec![bytes],
        RedisValue::SimpleString(text) => vec![text.into_bytes()],
        RedisValue::Array(values) => values.into_iter().flat_map(strings).collect(),
        RedisValue::Nil => Vec::new(),
        RedisValue::Int(number) => vec![number.to_string().into_bytes()],
        other => panic!("{other:?}"),
    }
}

/// Requests each hour of the day at a gateway: only those that held the erased items may cost calls.
async fn assert_only_erased_fetched(harness: &TestHarness, gateway: &GatewayClient, erased: &Erased) {
    let before = harness.calls();
    for other in (0..CHUNKS).filter(|other| !erased.hours.contains(other)) {
        gateway.get(hour(other)).await.page();
    }
    assert_eq!(harness.calls(), before, "all other chunks are cached");
    for held in &erased.hours {
        gateway.get(hour(*held)).await.page();
    }
    assert!(harness.calls() > before, "{:?}", erased.hours);
    gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the erasure");
}

#[tokio::test]
async fn erased_conversations_leave_all_replicas_and_nothing_else_does() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = start(&settings).await;
    harness.gateway.until_leader().await;
    let others = [harness.add_replica(&settings).await, harness.add_replica(&settings).await];
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    for gateway in &others {
        gateway.get(SETTLED_DAY).await.page();
    }
    until_listening(&redis, 3).await;
    let erased = Erased::of(&harness, 3, 50);
    let count = erased.hours.len();
    assert!((5..20).contains(&count), "{count}");
    assert!(stored(&redis).iter().any(|bytes| erased.is_in(bytes)));
    erased.delete_upstream(&harness);

    let response = others[0].send_admin(&erased.request()).await;
    assert!(!erased.is_in(response.text().as_bytes()), "{}", response.text());
    let report = completed(&response);
    assert_eq!(report["ids"], json!({"conversations": 50, "sessions": 0, "segments": 0}));
    assert_eq!(
        [&report["memory_chunks"], &report["replica_chunks"], &report["redis_chunks"], &report["complete"]],
        [&json!(count), &json!(2 * count), &json!(count), &json!(true)]
    );
    let account = &report["accounts"][0];
    assert_eq!((&account["account"], &account["replicas"]), (&ACCOUNT.into(), &json!({"confirmed": 2, "expected": 2})));
    assert!(report["note"].as_str().unwrap().contains("asynchronously") && report["repeat_at"].is_null());
    assert_eq!(redis.chunk_count(), CHUNKS - count);
    assert!(!stored(&redis).iter().any(|bytes| erased.is_in(bytes)));

    assert_only_erased_fetched(&harness, &harness.gateway, &erased).await;
    redis.until_chunks(CHUNKS).await;
    let calls = harness.calls();
    for gateway in others.iter().chain([&harness.add_replica(&settings).await]) {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the erasure");
    }
    assert_eq!(harness.calls(), calls, "the new chunks are shared");
    assert!(!stored(&redis).iter().any(|bytes| erased.is_in(bytes)));
}

#[tokio::test]
async fn erasure_removes_encrypted_chunks_only_where_ids_are() {
    let redis = RedisServer::start();
    let (_file, encrypted) = encrypted(&redis);
    let harness = start(&encrypted).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    let erased = Erased::of(&harness, 3, 5);
    erased.delete_upstream(&harness);
    // A replica that has nothing in memory finds the chunks by their filters.
    let other = harness.add_replica(&encrypted).await;
    until_listening(&redis, 2).await;
    let report = erase(&other, &erased).await;
    assert_eq!(
        [&report["memory_chunks"], &report["replica_chunks"], &report["redis_chunks"], &report["complete"]],
        [&json!(0), &json!(erased.hours.len()), &json!(erased.hours.len()), &json!(true)]
    );
    assert_only_erased_fetched(&harness, &other, &erased).await;
    assert!(!stored(&redis).iter().any(|bytes| erased.is_in(bytes)));
    // Without the key, filters cannot be read, so that each chunk may hold an id.
    redis.until_chunks(CHUNKS).await;
    let keyless = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    let report = erase(&keyless, &Erased::of(&harness, 20, 1)).await;
    assert_eq!((&report["redis_chunks"], redis.chunk_count()), (&CHUNKS.into(), 0));
}

#[tokio::test]
async fn chunks_only_one_replica_has_are_erased_although_it_heard_nothing() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = start(&settings).await;
    harness.gateway.until_leader().await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    redis.command(&["ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels"]);
    let deaf = harness.add_replica(&Settings::default().redis(&redis.url_for("deaf:pw"))).await;
    deaf.get(SETTLED_DAY).await.page();
    redis.for_each_chunk("redis.call('del', key)");
    let fresh = harness.add_replica(&settings).await;
    until_listening(&redis, 2).await;
    let erased = Erased::of(&harness, 3, 5);
    erased.delete_upstream(&harness);
    let report = erase(&fresh, &erased).await;
    assert_eq!(
        [&report["memory_chunks"], &report["replica_chunks"], &report["redis_chunks"]],
        [&json!(0), &json!(erased.hours.len()), &json!(0)]
    );
    until_current(&deaf, &harness).await;
    harness.gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the erasure");
}

#[tokio::test]
async fn fetch_of_other_replica_during_erasure_is_stored_without_erased_chunks() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = start(&Settings::default()).await;
    let proxy = harness.start_proxy().await;
    let busy = harness.add_replica_behind(&proxy, &settings).await;
    busy.until_leader().await;
    let other = harness.add_replica(&settings).await;
    until_listening(&redis, 2).await;
    proxy.hold_responses();
    let (old, erased) = (harness.settled_day(), Erased::of(&harness, 3, 5));
    let requesting = async { busy.get(SETTLED_DAY).await.assert_complete(&old, "before the erasure") };
    let erasing = async {
        harness.until_calls(1).await;
        let report = erase(&other, &erased).await;
        assert_eq!((&report["replica_chunks"], &report["complete"]), (&0.into(), &true.into()));
        proxy.release();
    };
    tokio::join!(requesting, erasing);
    erased.delete_upstream(&harness);
    redis.until_chunks(CHUNKS - erased.hours.len()).await;
    for gateway in [&busy, &other, &harness.add_replica(&settings).await] {
        gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "after the erasure");
    }
    redis.until_chunks(CHUNKS).await;
    assert!(!stored(&redis).iter().any(|bytes| erased.is_in(bytes)));
}

#[tokio::test]
async fn erasure_is_incomplete_while_an_earlier_version_listens() {
    let redis = RedisServer::start();
    let harness = start(&Settings::default().redis(&redis.url())).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    redis.until_chunks(CHUNKS).await;
    // An earlier version listens, and does not know the message.
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut earlier = connection.as_pubsub();
    earlier.subscribe("koregate:f1:all").unwrap();
    until_listening(&redis, 2).await;
    let erased = Erased::of(&harness, 3, 5);
    // Nor does it read the cells, of which those that it wrote have no filters.
    let old = format!("koregate:c3:{ACCOUNT}:segmentStartTime:inclusive:st%2Dtest:plain:{:032x}:0:3600", 0);
    redis.command(&["HSET", &old, "0_1_2_3", "what somebody said"]);
    let report = erase(&harness.gateway, &erased).await;
    let account = &report["accounts"][0];
    assert_eq!((&report["complete"], &account["replicas"]), (&false.into(), &json!({"confirmed": 0, "expected": 1})));
    assert!(account["left"][0].as_str().unwrap().contains("earlier version"), "{report}");
    assert_eq!(report["redis_chunks"], erased.hours.len() + 1);
    assert_eq!(redis.query(&["EXISTS", &old]), "0");
    drop(earlier);
    drop(connection);
    until_listening(&redis, 1).await;
    assert_eq!(erase(&harness.gateway, &erased).await["complete"], true);
}

#[tokio::test]
async fn erasure_without_account_reaches_all_accounts() {
    let mut profile = Profile { more_accounts: vec![other_credential()], ..exact_profile(250, 4) };
    let account_id = Some(OTHER_ACCOUNT.to_owned());
    profile.streams.push(StreamProfile { account_id, ..exact_stream(OTHER_STREAM, 250) });
    let harness = TestHarness::start(profile, &Settings::default()).await;
    let requests =
        [TestRequest::get(hour(9)), TestRequest::get(hour(9)).stream(OTHER_STREAM).header("accountId", OTHER_ACCOUNT)];
    let mut segments = Vec::new();
    for request in &requests {
        segments.push(text(&harness.send(request).await.json()["data"][0], "segmentID"));
    }
    let part = json!({"account": OTHER_ACCOUNT, "segmentIds": segments, "to": "2026-02-22"});
    assert_eq!(completed(&harness.gateway.send_admin(&erasure(&part)).await)["memory_chunks"], 0);
    let calls = harness.calls();
    let report = completed(&harness.gateway.send_admin(&erasure(&json!({ "segmentIds": segments }))).await);
    let accounts = report["accounts"].as_array().unwrap();
    let chunks = |account: &Value| (text(account, "account"), account["memory_chunks"].as_u64());
    let expected = [ACCOUNT, OTHER_ACCOUNT].map(|account| (account.to_owned(), Some(1)));
    assert_eq!(accounts.iter().map(chunks).collect::<BTreeSet<_>>(), expected.into());
    assert_eq!((&report["memory_chunks"], &report["complete"]), (&2.into(), &true.into()));
    assert_eq!((&report["redis_chunks"], &report["replica_chunks"]), (&Value::Null, &0.into()));
    for request in &requests {
        harness.send(request).await.page();
    }
    assert_eq!(harness.calls(), calls + 2);
}

#[tokio::test]
async fn thousand_ids_are_accepted_and_one_more_refused() {
    let harness = start(&Settings::default()).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    let ids = |count: usize| (0..count).map(|number| format!("conv-{number:>059}")).collect::<Vec<_>>();
    let send = async |body: Value| -> TestResponse { harness.gateway.send_admin(&erasure(&body)).await };
    let largest = json!({"conversationIds": ids(400), "sessionIds": ids(300), "segmentIds": ids(300)});
    let report = completed(&send(largest).await);
    assert_eq!(report["ids"], json!({"conversations": 400, "sessions": 300, "segments": 300}));
    assert_eq!(report["memory_chunks"], 0);
    let refused = send(json!({"conversationIds": ids(400), "segmentIds": ids(601)})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("more than 1000 ids"), "{}", refused.text());
}

#[tokio::test]
async fn erasure_is_repeated_after_the_requested_time() {
    let harness = start(&Settings::default()).await;
    harness.gateway.get(SETTLED_DAY).await.page();
    let erased = Erased::of(&harness, 3, 2);
    let body = json!({"conversationIds": erased.conversations, "repeat_after": "100ms"});
    let report = completed(&harness.gateway.send_admin(&erasure(&body)).await);
    assert_eq!(report["memory_chunks"], erased.hours.len());
    let at = report["repeat_at"].as_str().unwrap();
    assert_eq!(at, "2026-02-25T12:34:56.889Z");
    // Kore still has them, so that they are cached again until the erasure is repeated.
    let is_repeated = async || {
        let before = harness.calls();
        harness.gateway.get(SETTLED_DAY).await.page();
        harness.calls() > before && purges(&harness).await == 2
    };
    harness.gateway.get(SETTLED_DAY).await.page();
    until_async("the erasure to be repeated", is_repeated).await;
}

async fn purges(harness: &TestHarness) -> u64 {
    harness.gateway.metrics().await.count("koregate_purges_total", &["result=\"complete\""])
}
