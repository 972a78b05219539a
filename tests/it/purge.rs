//! What an operator has purged is served from no tier, by no replica, whatever is under way.

use std::time::Duration;

use http::Method;
use koregate::quota::Role;
use koregate_simulator::{ItemFilter, StreamProfile};

use crate::support::{
    ACCOUNT, Answer, Ask, Door, RedisCluster, RedisServer, Rig, STREAM, Settings, at, exact_profile, text, until,
};
use crate::tap::Tap;

/// A settled day, with one chunk for each hour.
const DAY: &str = "from=2026-02-23&to=2026-02-23";
const CELLS: usize = 24;

fn settings(redis: &RedisServer) -> Settings {
    at_url(&redis.url(), "")
}

fn at_url(url: &str, more: &str) -> Settings {
    Settings::default().section("cache", &format!("redis = {{ url = '{url}', timeout = '1s'{more} }}"))
}

async fn rig(settings: &Settings) -> Rig {
    Rig::start(exact_profile(250, 4), settings).await
}

fn day(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-23"), at("2026-02-24"))
}

/// Changes an item of the day upstream: what was fetched before shows it.
fn change(rig: &Rig) {
    let day = rig.control.expected_until(STREAM, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
    assert!(rig.control.touch(STREAM, &day[7].0));
}

fn is_whole(answer: &Answer, truth: &[Vec<u8>]) -> bool {
    answer.page().items().eq(truth.iter().map(Vec::as_slice))
}

#[track_caller]
fn assert_whole(answer: &Answer, truth: &[Vec<u8>]) {
    assert!(is_whole(answer, truth), "not the window as it is now");
}

async fn get(door: &Door) -> Answer {
    door.ask(&Ask::get(DAY)).await
}

/// How many chunks are in Redis; `body` may do something with `key`, `field` and `value` of each.
fn chunks(redis: &RedisServer, body: &str) -> usize {
    let script = format!(
        "local n = 0 for _, key in ipairs(redis.call('keys', 'koregate:c3:*')) do if redis.call('type', key).ok == 'hash' \
         then local all = redis.call('hgetall', key) for i = 1, #all, 2 do \
         local field, value = all[i], all[i + 1] n = n + 1 {body} end end end return n"
    );
    text(&redis.admin(&["EVAL", &script, "0"])).parse().unwrap()
}

/// How many replicas take letters in at a node.
fn listening(node: &RedisServer) -> usize {
    let told = text(&node.admin(&["PUBSUB", "NUMSUB", "koregate:f1:all"]));
    told.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until_written(redis: &RedisServer, count: usize) {
    until("all chunks are in Redis", || chunks(redis, "") == count).await;
}

/// Asks again and again until the answer is right: for a replica that has yet to hear of something.
async fn until_whole(door: &Door, truth: &[Vec<u8>]) {
    let asking = async { while !is_whole(&get(door).await, truth) {} };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("it goes on serving what was purged");
}

/// Waits until a replica makes the calls of all; those that come later follow it.
async fn until_calls(door: &Door) {
    let mut role = door.gateway.stack().quotas.scheduler(ACCOUNT).unwrap().role();
    let calls = role.wait_for(|role| *role == Role::Leader);
    tokio::time::timeout(Duration::from_secs(30), calls).await.expect("it does not come to make the calls").unwrap();
}

/// The field of a chunk that was fetched before the first purge.
const OLD: &str = "field:find('_0$')";

async fn until_written_anew(redis: &RedisServer) {
    let script = format!("if {OLD} then return 99 end");
    until("what was fetched since is in Redis, and nothing else", || chunks(redis, &script) == CELLS).await;
}

fn done(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn without_redis_a_span_a_stream_or_an_account_is_fetched_again() {
    let other = StreamProfile { exact: true, ..StreamProfile::new("st-other", 250) };
    let mut profile = exact_profile(250, 4);
    profile.streams.push(other);
    let rig = Rig::start(profile, &Settings::default()).await;
    let other = Ask::get(DAY).stream("st-other");
    let spent = async || {
        let before = rig.calls();
        assert_whole(&get(&rig.door).await, &day(&rig));
        rig.ask(&other).await.page();
        rig.calls() - before
    };
    assert_eq!((spent().await, spent().await), (6, 0));

    change(&rig);
    let told = done(&rig.door.purge("stream=st-test&from=2026-02-23&to=2026-02-23").await);
    let epoch = told["epoch"].as_u64().unwrap();
    assert_eq!(
        told,
        serde_json::json!({
            "account": ACCOUNT, "stream": "st-test", "from": "2026-02-23", "to": "2026-02-23", "epoch": epoch,
            "memory_chunks": CELLS, "redis_chunks": null, "replicas": null, "complete": true, "left": []
        })
    );
    assert_eq!((spent().await, spent().await), (3, 0));

    let body =
        r#"{"accountId": "664b33a620bd0892e0000001", "from": "2026-02-23T09:00:00", "to": "2026-02-23 09:59:59"}"#;
    let part = Ask::get("").method(Method::POST).path("/api/v1/purge").body(body);
    assert_eq!(done(&rig.door.ask_admin(&part).await)["memory_chunks"], 2);
    assert_eq!((spent().await, spent().await), (2, 0), "an hour of each");
    assert_eq!(done(&rig.door.purge("to=2026-02-22").await)["memory_chunks"], 0);
    assert_eq!(done(&rig.door.purge("from=2026-02-23T23:59:59").await)["memory_chunks"], 2);

    let last = done(&rig.door.purge("").await);
    assert_eq!((last["memory_chunks"].as_u64(), last["stream"].is_null()), (Some(2 * CELLS as u64 - 2), true));
    assert!(last["epoch"].as_u64().unwrap() > epoch);
    assert_eq!(spent().await, 6);
    let metrics = rig.door.admin("/metrics").await;
    let count = format!("koregate_purges_total{{account=\"{ACCOUNT}\",result=\"complete\"}} 5");
    assert!(metrics.text().contains(&count), "{}", metrics.text());
}

#[tokio::test]
async fn a_purge_at_one_replica_is_one_at_all() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let doors = [rig.another_door(&settings(&redis)).await, rig.another_door(&settings(&redis)).await];
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    for door in &doors {
        get(door).await.page();
    }
    change(&rig);
    until("all listen", || listening(&redis) == 3).await;
    let told = done(&rig.door.purge("from=2026-02-23T00:00:00&to=2026-02-23T15:59:59").await);
    assert_eq!(
        (&told["memory_chunks"], &told["redis_chunks"], &told["replicas"], &told["complete"]),
        (&16.into(), &16.into(), &serde_json::json!({"confirmed": 2, "expected": 2}), &true.into())
    );
    assert_eq!(chunks(&redis, ""), 8);
    for door in doors.iter().chain([&rig.door]) {
        assert_whole(&get(door).await, &day(&rig));
    }
    until_written(&redis, CELLS).await;
    let spent = rig.calls();
    assert_whole(&get(&rig.another_door(&settings(&redis)).await).await, &day(&rig));
    assert_eq!(rig.calls(), spent, "what was fetched since is shared as ever");
}

#[tokio::test]
async fn a_fetch_under_way_at_another_replica_brings_nothing_back() {
    let redis = RedisServer::start();
    let rig = rig(&Settings::default()).await;
    let tap = Tap::start(rig.simulator.as_ref().unwrap().addr(), None).await;
    let busy = tap.door(&rig, &settings(&redis)).await;
    until_calls(&busy).await;
    let other = rig.another_door(&settings(&redis)).await;
    until("both listen", || listening(&redis) == 2).await;
    tap.hold_answers();
    let old = day(&rig);
    let asking = async { assert_whole(&get(&busy).await, &old) };
    let purging = async {
        until("the first page was asked for", || rig.calls() > 0).await;
        change(&rig);
        let told = done(&other.purge("").await);
        assert_eq!((&told["replicas"]["confirmed"], &told["complete"]), (&1.into(), &true.into()));
        // Whoever comes now does not wait for what began before.
        tap.release();
    };
    tokio::join!(asking, purging);
    assert_ne!(old, day(&rig));
    for door in [&busy, &other, &rig.another_door(&settings(&redis)).await] {
        assert_whole(&get(door).await, &day(&rig));
    }
}

#[tokio::test]
async fn a_fetch_under_way_for_another_replica_brings_nothing_back_to_it() {
    let redis = RedisServer::start();
    let rig = rig(&Settings::default()).await;
    let tap = Tap::start(rig.simulator.as_ref().unwrap().addr(), None).await;
    let caller = tap.door(&rig, &settings(&redis)).await;
    until_calls(&caller).await;
    let [follower, third] = [rig.another_door(&settings(&redis)).await, rig.another_door(&settings(&redis)).await];
    until("all listen", || listening(&redis) == 3).await;
    tap.hold_answers();
    let old = day(&rig);
    let before = async { assert_whole(&get(&follower).await, &old) };
    let purging = async {
        until("the first page was asked for", || rig.calls() == 1).await;
        change(&rig);
        let told = done(&third.purge("").await);
        assert_eq!((&told["replicas"]["confirmed"], &told["complete"]), (&2.into(), &true.into()));
        let after = async { assert_whole(&get(&follower).await, &day(&rig)) };
        let release = async {
            until("it is asked for anew while the first is still under way", || rig.calls() == 2).await;
            tap.release();
        };
        tokio::join!(after, release);
    };
    tokio::join!(before, purging);
    assert_ne!(old, day(&rig));
    until_written_anew(&redis).await;
    let spent = rig.calls();
    for door in [&follower, &caller, &third, &rig.another_door(&settings(&redis)).await] {
        assert_whole(&get(door).await, &day(&rig));
    }
    assert_eq!(rig.calls(), spent, "what was fetched since is kept");
}

/// A replica whose letters nobody gets: what it purges, all others find out for themselves.
async fn mute_door(rig: &Rig, redis: &RedisServer) -> Door {
    redis.admin(&["ACL", "SETUSER", "mute", "on", ">pw", "~*", "+@all", "resetchannels"]);
    rig.another_door(&at_url(&redis.url_for("mute:pw"), "")).await
}

/// Keeps what is in Redis for [`write_back`].
fn save(redis: &RedisServer) {
    assert_eq!(chunks(redis, "redis.call('hset', 'saved:' .. key, field, value)"), CELLS);
}

/// As if a replica had done so that did not know better.
fn write_back(redis: &RedisServer) {
    let back = "for _, key in ipairs(redis.call('keys', 'saved:*')) do \
                redis.call('rename', key, string.sub(key, 7)) end return 0";
    redis.admin(&["EVAL", back, "0"]);
    assert_eq!(chunks(redis, ""), CELLS);
}

async fn until_deleted(redis: &RedisServer) {
    let old = format!("if {OLD} then return 99 end");
    until("what was met has been deleted", || chunks(redis, &old) != 99).await;
}

#[tokio::test]
async fn replicas_that_miss_the_letter_read_nothing_that_was_purged_and_learn_of_it_soon() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    until_calls(&rig.door).await;
    let [other, empty] = [rig.another_door(&settings(&redis)).await, rig.another_door(&settings(&redis)).await];
    let mute = mute_door(&rig, &redis).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    get(&other).await.page();
    save(&redis);
    change(&rig);
    let told = done(&mute.purge("").await);
    assert_eq!((&told["replicas"]["expected"], &told["redis_chunks"]), (&serde_json::Value::Null, &CELLS.into()));
    write_back(&redis);
    // It finds out as it reads, and so does the one that it sends its errand to, which has the old chunks in memory.
    assert_whole(&get(&empty).await, &day(&rig));
    assert_whole(&get(&rig.door).await, &day(&rig));
    until_whole(&other, &day(&rig)).await;
    until_deleted(&redis).await;
}

#[tokio::test]
async fn a_replica_that_misses_the_letter_writes_nothing_back() {
    let redis = RedisServer::start();
    let rig = rig(&Settings::default()).await;
    let tap = Tap::start(rig.simulator.as_ref().unwrap().addr(), None).await;
    let busy = tap.door(&rig, &settings(&redis)).await;
    until_calls(&busy).await;
    let mute = mute_door(&rig, &redis).await;
    tap.hold_answers();
    let old = day(&rig);
    let asking = async { assert_whole(&get(&busy).await, &old) };
    let purging = async {
        until("the first page was asked for", || rig.calls() > 0).await;
        change(&rig);
        done(&mute.purge("").await);
        tap.release();
    };
    tokio::join!(asking, purging);
    let fresh = rig.another_door(&settings(&redis)).await;
    assert_whole(&get(&fresh).await, &day(&rig));
    until_whole(&busy, &day(&rig)).await;
    until_written_anew(&redis).await;
}

#[tokio::test]
async fn a_redis_that_forbids_to_look_for_keys_is_told_of() {
    let redis = RedisServer::start();
    // All that the README names, but for SCAN.
    let may = "+get +set +hgetall +hkeys +hset +hsetnx +hdel +expire +exists +unlink +publish +subscribe +ping";
    let user = ["ACL", "SETUSER", "narrow", "on", ">pw", "~koregate:*", "&koregate:*", "-@all"];
    redis.admin(&user.into_iter().chain(may.split(' ')).collect::<Vec<_>>());
    let rig = rig(&at_url(&redis.url_for("narrow:pw"), "")).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    change(&rig);
    let told = done(&rig.door.purge("").await);
    assert_eq!((&told["complete"], &told["redis_chunks"]), (&false.into(), &0.into()));
    assert!(told["left"][0].as_str().unwrap().contains("NOPERM"), "{told}");
    let fresh = rig.another_door(&settings(&redis)).await;
    assert_whole(&get(&fresh).await, &day(&rig));
    redis.admin(&["ACL", "SETUSER", "narrow", "+scan"]);
    until("it is deleted when that is allowed", || chunks(&redis, "if field:find('_0$') then return 99 end") != 99)
        .await;
}

#[tokio::test]
async fn a_purge_survives_a_redis_that_was_emptied() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    until_calls(&rig.door).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    save(&redis);
    change(&rig);
    let first = done(&rig.door.purge("").await);
    let empty = "for _, key in ipairs(redis.call('keys', '*')) do \
                 if key:sub(1, 6) ~= 'saved:' then redis.call('del', key) end end return 0";
    redis.admin(&["EVAL", empty, "0"]);
    write_back(&redis);
    until_whole(&rig.another_door(&settings(&redis)).await, &day(&rig)).await;
    let field = first["epoch"].to_string();
    let stands = || text(&redis.admin(&["HKEYS", &format!("koregate:p1:{{{ACCOUNT}}}:purges")])) == field;
    until("who knew of it has written it again", stands).await;
    assert!(done(&rig.door.purge("").await)["epoch"].as_u64() > first["epoch"].as_u64());
}

#[tokio::test]
async fn two_purges_at_one_time_both_hold() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let other = rig.another_door(&settings(&redis)).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    get(&other).await.page();
    change(&rig);
    // The clock stands still, so they draw the same number.
    let (one, two) = tokio::join!(
        rig.door.purge("from=2026-02-23T00:00:00&to=2026-02-23T11:59:59"),
        other.purge("from=2026-02-23T12:00:00&to=2026-02-23T23:59:59")
    );
    let (one, two) = (done(&one), done(&two));
    assert_ne!(one["epoch"], two["epoch"]);
    let left = text(&redis.admin(&["HLEN", &format!("koregate:p1:{{{ACCOUNT}}}:purges")]));
    assert_eq!((left.as_str(), chunks(&redis, "")), ("2", 0));
    for door in [&rig.door, &other, &rig.another_door(&settings(&redis)).await] {
        assert_whole(&get(door).await, &day(&rig));
    }
}

#[tokio::test]
async fn without_redis_it_is_said_what_is_not_done_and_made_up_for_later() {
    let mut redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let other = rig.another_door(&settings(&redis)).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    get(&other).await.page();
    change(&rig);
    redis.kill();
    for _ in 0..3 {
        let answer = rig.door.purge("").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let told = answer.json();
        assert_eq!(
            (&told["status"], &told["complete"], &told["account"]),
            (&503.into(), &false.into(), &ACCOUNT.into())
        );
        assert!(told["detail"].as_str().unwrap().contains("memory of this replica"), "{told}");
        assert!(told["replicas"].is_null() && told["redis_chunks"].is_null(), "{told}");
    }
    assert_whole(&get(&rig.door).await, &day(&rig));
    redis.restart();
    until_whole(&other, &day(&rig)).await;
    let purges = format!("koregate:p1:{{{ACCOUNT}}}:purges");
    until("it is in Redis", || text(&redis.admin(&["HLEN", &purges])) == "1").await;
}

#[tokio::test]
async fn in_a_cluster_it_is_deleted_from_all_nodes() {
    let cluster = RedisCluster::start();
    let settings = at_url(&cluster.url(), "");
    let rig = rig(&settings).await;
    let other = rig.another_door(&settings).await;
    get(&rig.door).await.page();
    let count = || cluster.masters.iter().map(chunks_of).collect::<Vec<_>>();
    until("all cells are in the cluster", || count().iter().sum::<usize>() == CELLS).await;
    get(&other).await.page();
    assert!(count().iter().all(|count| *count > 0), "{:?}", count());
    change(&rig);
    until("both listen", || cluster.masters.iter().map(listening).sum::<usize>() == 2).await;
    let told = done(&rig.door.purge("").await);
    assert_eq!(
        (&told["redis_chunks"], &told["replicas"], &told["complete"]),
        (&CELLS.into(), &serde_json::json!({"confirmed": 1, "expected": 1}), &true.into())
    );
    assert_eq!(count(), [0, 0, 0]);
    for door in [&rig.door, &other] {
        assert_whole(&get(door).await, &day(&rig));
    }
}

/// The cells in one node of a Cluster.
fn chunks_of(node: &RedisServer) -> usize {
    let keys = text(&node.admin(&["KEYS", "koregate:c3:*"]));
    keys.split_whitespace().count()
}

#[tokio::test]
async fn of_a_cell_only_the_chunks_of_the_span_go_and_nothing_else_is_touched() {
    let redis = RedisServer::start();
    let rig = rig(&settings(&redis)).await;
    let half = |minutes: &str| Ask::get(format!("from=2026-02-23T09:{minutes}"));
    let first = half("00:00&to=2026-02-23T09:29:59");
    let second = half("30:00&to=2026-02-23T09:59:59");
    rig.ask(&first).await.page();
    rig.ask(&second).await.page();
    until_written(&redis, 2).await;
    let cell = |format: &str, stream: &str, more: &str| {
        format!(
            "koregate:{format}:{ACCOUNT}:segmentStartTime:inclusive:{stream}:plain:00000000000000000000000000000000{more}"
        )
    };
    let (start, nanos) = (at("2026-02-23T09:00:00Z").as_seconds(), at("2026-02-23T09:00:00Z").as_nanos());
    let old = cell("c1", "st%2Dtest", &format!(":{start}:3600"));
    let others = [
        cell("c3", "st%2Dother", &format!(":{start}:3600")),
        cell("c3", "st%2Dtest", &format!(":{}:3600", start + 3600)),
        cell("c3", "passing", ""),
        cell("c3", "st%2Dtest", &format!(":{start}:3600")).replace(ACCOUNT, "another"),
    ];
    let field = format!("{nanos}_{}_{nanos}", nanos + 1);
    for key in others.iter().chain([&old]) {
        redis.admin(&["HSET", key, &field, "x"]);
    }
    redis.admin(&["SET", &format!("koregate:c3:{ACCOUNT}:segmentStartTime:inclusive:wrong-not"), "1"]);
    let told = done(&rig.door.purge("stream=st-test&from=2026-02-23T09:00:00&to=2026-02-23T09:10:00").await);
    assert_eq!((&told["memory_chunks"], &told["redis_chunks"]), (&1.into(), &2.into()), "one of an older format too");
    assert_eq!(text(&redis.admin(&["EXISTS", &old])), "0");
    for key in &others {
        assert_eq!(text(&redis.admin(&["EXISTS", key])), "1", "{key}");
    }
    let spent = rig.calls();
    let door = rig.another_door(&settings(&redis)).await;
    door.ask(&second).await.page();
    assert_eq!(rig.calls(), spent);
    door.ask(&first).await.page();
    assert_eq!(rig.calls(), spent + 1);
}

#[tokio::test]
async fn sealed_values_are_purged_without_being_opened() {
    let redis = RedisServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "32 random bytes or more, as they should be").unwrap();
    let sealed = at_url(&redis.url(), &format!(", encryption_key = {{ file = '{}' }}", file.path().display()));
    let rig = rig(&sealed).await;
    get(&rig.door).await.page();
    until_written(&redis, CELLS).await;
    change(&rig);
    // Whoever has not the key deletes them all the same.
    let keyless = rig.another_door(&settings(&redis)).await;
    assert_eq!(done(&keyless.purge("").await)["redis_chunks"], CELLS);
    assert_eq!(chunks(&redis, ""), 0);
    for door in [&rig.door, &rig.another_door(&sealed).await] {
        assert_whole(&get(door).await, &day(&rig));
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_purges_nothing() {
    let rig = rig(&Settings::default()).await;
    get(&rig.door).await.page();
    let spent = rig.calls();
    let post = |query: &str| Ask::get(query).method(Method::POST).path("/api/v1/purge");
    for (ask, status, named) in [
        (post("form=2026-02-23"), 400, "form"),
        (post("from=yesterday"), 400, "from"),
        (post("from=2026-02-24&to=2026-02-23"), 400, "from"),
        (post("from=2026-02-23&from=2026-02-23"), 400, "from"),
        (post("to="), 400, "to"),
        (post("").body("[]"), 400, "object"),
        (post("").body(r#"{"stream": 1}"#), 400, "stream"),
        (post("account=nobody"), 404, "not configured"),
        (post("").header("origin", "http://127.0.0.1:9090"), 403, "Origin"),
        (post("").header("sec-fetch-site", "cross-site"), 403, "Sec-Fetch-Site"),
        (post("").body(" ".repeat((16 << 10) + 1)), 413, "16384"),
    ] {
        let answer = rig.door.ask_admin(&ask).await;
        let told = answer.json();
        assert_eq!((answer.status.as_u16(), &told["status"]), (status, &status.into()), "{ask:?}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(told["detail"].as_str().unwrap().contains(named), "{ask:?}: {}", answer.text());
        assert!(told["epoch"].is_null());
    }
    for method in [Method::GET, Method::PUT, Method::OPTIONS] {
        let answer = rig.door.ask_admin(&post("").method(method)).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")));
    }
    assert_eq!(rig.door.ask_admin(&post("").path("/api/v1/status")).await.status, 405);
    get(&rig.door).await.page();
    assert_eq!(rig.calls(), spent);
}

#[tokio::test]
async fn of_several_accounts_one_must_be_named() {
    let mut profile = exact_profile(250, 4);
    let second = koregate_simulator::Credential { account_id: "second".to_owned(), ..profile.account.clone() };
    profile.more_accounts.push(second);
    let rig = Rig::start(profile, &Settings::default()).await;
    let answer = rig.door.purge("").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("account: it is required"), "{}", answer.text());
    get(&rig.door).await.page();
    assert_eq!(done(&rig.door.purge("account=second").await)["memory_chunks"], 0);
    assert_eq!(done(&rig.door.purge(&format!("accountId={ACCOUNT}")).await)["memory_chunks"], CELLS);
}
