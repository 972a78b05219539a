//! Jobs that lie in Redis: each replica shows them, and adopts those of a replica that is gone.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::replica_set::ReplicaSet;
use crate::support::{GatewayClient, RedisServer, Settings, TestRequest, exact_profile, until_polled};

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
}
