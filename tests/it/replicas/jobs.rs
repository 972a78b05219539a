//! Jobs that lie in Redis: each replica shows them, and adopts those of a replica that is gone.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::replica_set::ReplicaSet;
use crate::support::{
    GatewayClient, KoregateProcess, RecordingProxy, RedisServer, STREAM, Settings, TestHarness, TestRequest,
    environment, exact_profile, until_polled,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A leader and two followers with a limit of one call in two seconds, which is spent, so that jobs wait.
async fn start_spent() -> ReplicaSet {
    let redis = RedisServer::start();
    let keys = "encryption_key = { env = 'SECRET_0' }";
    let settings = Settings::default().limits("[{ requests = 1, per = '2s' }]").redis_with(&redis.url(), keys);
    let set = ReplicaSet::start_with(redis, exact_profile(50, 20), &vec![settings; 3]).await;
    set.leader().send(&TestRequest::get("from=2026-02-10&to=2026-02-10")).await.page();
    set
}

/// Begins a job for a day; returns its path.
async fn begin(replica: &GatewayClient, day: &str) -> String {
    let request = TestRequest::get(format!("from={day}&to={day}")).header("prefer", "respond-async");
    let accepted = replica.send(&request).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    accepted.header("location").unwrap().to_owned()
}

async fn show(replica: &GatewayClient, location: &str) -> Value {
    replica.send(&TestRequest::path_only(location)).await.json()
}

async fn until_done(replica: &GatewayClient, location: &str) -> Value {
    let mut last = Value::Null;
    until_polled("the end of the job", DEADLINE, async || {
        last = show(replica, location).await;
        last["state"] == json!("done")
    })
    .await;
    last
}

#[tokio::test]
async fn job_of_a_killed_replica_is_adopted() {
    let mut set = start_spent().await;
    let killed = begin(set.follower(0), "2026-02-12").await;
    let drained = begin(set.follower(1), "2026-02-14").await;
    assert!(["queued", "running"].contains(&show(set.leader(), &killed).await["state"].as_str().unwrap()));
    let record = set.redis.command(&["GET", set.redis.query(&["KEYS", "*:job:*"]).split_whitespace().next().unwrap()]);
    assert!(!format!("{record:?}").contains("2026-02"), "a record is sealed");
    set.replicas[1].kill();
    // As its lease ends.
    let owner = set.follower(0).server.stack().handles.mailbox.as_ref().unwrap().me().to_string();
    assert_eq!(set.redis.query(&["DEL", &format!("koregate:f1:job-owner:{owner}")]), "1");
    set.follower(1).server.stack().handles.jobs.leave().await;
    assert_eq!(set.redis.query(&["KEYS", "*:job-owner:*"]).split_whitespace().count(), 0);
    for location in [killed, drained] {
        let done = until_done(set.leader(), &location).await;
        assert_eq!(done["items"], json!(50), "{done}");
        let result = done["result"].as_str().unwrap().split_once('?').unwrap().1.to_owned();
        set.leader().send(&TestRequest::get(result)).await.assert_hit();
    }
    assert_eq!(set.redis.query(&["EXISTS", "koregate:f1:jobs"]), "0", "none is left in the index");
    assert_eq!(set.harness.calls(), 3);
}

#[tokio::test]
async fn job_is_cancelled_by_way_of_any_replica() {
    let set = start_spent().await;
    let location = begin(set.follower(0), "2026-02-12").await;
    let cancelled = set.leader().send(&TestRequest::path_only(&location).method(Method::DELETE)).await;
    assert_eq!(cancelled.json()["state"], json!("cancelled"));
    set.follower(1).send(&TestRequest::path_only(&location)).await.assert_problem(404, "cancelled");
    // The owner finds out with its next pulse.
    until_polled("the owner", DEADLINE, async || {
        set.follower(0).send(&TestRequest::path_only(&location)).await.status == 404
    })
    .await;
    // A full Redis takes no mark, and the replica that runs the job needs none.
    let own = begin(set.leader(), "2026-02-14").await;
    set.redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let cancelled = set.leader().send(&TestRequest::path_only(&own).method(Method::DELETE)).await;
    assert_eq!(cancelled.json()["state"], json!("cancelled"));
}

/// A leader whose upstream calls are held, and a follower.
struct HeldReplicas {
    redis: RedisServer,
    proxy: RecordingProxy,
    owner: GatewayClient,
    other: GatewayClient,
    _harness: TestHarness,
}

impl HeldReplicas {
    async fn start() -> Self {
        let (redis, harness) = (RedisServer::start(), TestHarness::start_exact(50, 20).await);
        let (settings, proxy) = (Settings::default().redis(&redis.url()), harness.start_proxy().await);
        let owner = harness.add_replica_behind(&proxy, &settings).await;
        owner.until_leader().await;
        let other = harness.add_replica(&settings).await;
        proxy.hold_requests();
        Self { redis, proxy, owner, other, _harness: harness }
    }
}

async fn until_status(replica: &GatewayClient, location: &str, status: u16) {
    let is_reached = async || replica.send(&TestRequest::path_only(location)).await.status == status;
    until_polled("the status of the job", DEADLINE, is_reached).await;
}

#[tokio::test]
async fn jobs_outlive_an_emptied_redis_and_can_be_cancelled() {
    let HeldReplicas { redis, proxy, owner, other, _harness } = HeldReplicas::start().await;
    let (kept, cancelled) = (begin(&owner, "2026-02-12").await, begin(&owner, "2026-02-14").await);
    redis.command(&["FLUSHALL"]);
    until_status(&other, &kept, 200).await;
    until_status(&other, &cancelled, 200).await;
    let shown = other.send(&TestRequest::path_only(&cancelled).method(Method::DELETE)).await;
    assert_eq!(shown.json()["state"], json!("cancelled"));
    until_status(&owner, &cancelled, 404).await;
    proxy.release();
    let done = until_done(&other, &kept).await;
    assert_eq!((&done["items"], &done["calls"]), (&json!(50), &json!(1)), "{done}");
    until_status(&owner, &kept, 200).await;
    until_status(&other, &cancelled, 404).await;
    assert_eq!(redis.query(&["KEYS", "koregate:f1:job:*"]).split_whitespace().count(), 1, "one is there");
}

#[tokio::test]
async fn end_that_redis_refused_is_written_by_a_later_pulse() {
    let HeldReplicas { redis, proxy, owner, other, _harness } = HeldReplicas::start().await;
    let location = begin(&owner, "2026-02-12").await;
    proxy.until_calls_exceed(0).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    proxy.release();
    until_done(&owner, &location).await;
    assert_ne!(show(&other, &location).await["state"], json!("done"), "Redis has not taken it");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let done = until_done(&other, &location).await;
    assert_eq!(done["calls"], json!(1), "it is the end of the first run, and of no adopted one: {done}");
    assert_eq!(redis.query(&["EXISTS", "koregate:f1:jobs"]), "0", "none is left in the index");
}

#[tokio::test]
async fn estimate_in_a_process_of_its_own_adopts_no_job() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let mut set = ReplicaSet::start_with(redis, exact_profile(50, 20), &[settings]).await;
    set.harness.control.set_latency(DEADLINE, Duration::ZERO);
    begin(set.leader(), "2026-02-12").await;
    let owner = set.leader().server.stack().handles.mailbox.as_ref().unwrap().me().to_string();
    set.replicas[0].kill();
    assert_eq!(set.redis.query(&["DEL", &format!("koregate:f1:job-owner:{owner}")]), "1");
    let mut environment = environment("http://127.0.0.1:1");
    environment.push(("KOREGATE__CACHE__REDIS__URL", set.redis.url()));
    let span = ["--stream", STREAM, "--from", "2026-02-12", "--to", "2026-02-12"];
    let (code, output) =
        KoregateProcess::start(&[&["warm", "--estimate"][..], &span].concat(), &environment).wait().await;
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(set.redis.query(&["KEYS", "*:job-claim:*"]).trim(), "", "no job was claimed");
}
