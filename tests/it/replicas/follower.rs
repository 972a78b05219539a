//! Requests at a follower, which forwards them to the leader.

use std::time::Duration;

use super::replica_set::ReplicaSet;
use crate::support::{
    ApiVariant, Fault, FaultPlan, ItemFilter, Profile, RedisServer, RollingLimit, SETTLED_DAY, SelectOn, Settings,
    TestRequest, TestResponse, at, channel_filter, exact_profile,
};

const OPEN_WINDOW: &str = "from=2026-02-25T11:00:00&to=2026-02-25T23:59:59";

#[tokio::test]
async fn follower_cold_window_costs_calls_of_one_gateway() {
    let set = ReplicaSet::start(exact_profile(250, 4), Settings::default(), 3).await;
    let harness = &set.harness;
    let response = set.follower(0).get(SETTLED_DAY).await;
    response.assert_complete(&harness.settled_day(), "cold");
    assert_eq!((harness.calls(), response.reported_calls(), response.cache_outcome()), (3, 3, "fwd=miss"));
    set.follower(0).get(SETTLED_DAY).await.assert_hit();
    let other = set.follower(1).get(SETTLED_DAY).await;
    other.assert_complete(&harness.settled_day(), "from Redis");
    other.assert_hit();
    assert_eq!((harness.calls(), set.handover_keys()), (3, String::new()));
}

#[tokio::test]
async fn follower_uncacheable_window_is_refetched_each_time() {
    let settings = Settings::default().section("window", "freshness = []");
    let set = ReplicaSet::start(exact_profile(250, 4), settings, 2).await;
    let harness = &set.harness;
    let mut calls = 0;
    for _ in 0..2 {
        let response = set.follower(0).get(OPEN_WINDOW).await;
        response.assert_complete(&harness.items(at("2026-02-25T11:00:00Z"), harness.clock.now()), "the open window");
        assert_eq!((response.reported_calls(), response.header("age")), (harness.calls() - calls, None));
        assert!(harness.calls() > calls, "the window is fetched again");
        calls = harness.calls();
        harness.advance(Duration::from_secs(40));
    }
}

#[tokio::test]
async fn follower_filters_and_agentic_data_are_forwarded() {
    let set = ReplicaSet::start(exact_profile(250, 4), Settings::default(), 2).await;
    let (harness, follower) = (&set.harness, set.follower(0));
    let (from, end) = (at("2026-02-23"), at("2026-02-24"));
    let filtered = follower.send(&TestRequest::post(SETTLED_DAY, r#"{"channels":["voice"]}"#)).await;
    filtered.assert_complete(&harness.items_of(from, end, false, &channel_filter("voice")), "filtered");
    let agentic = follower.send(&TestRequest::get(SETTLED_DAY).and("includeAgenticData=true")).await;
    agentic.assert_complete(&harness.items_of(from, end, true, &ItemFilter::default()), "agentic");
    let calls = harness.calls();
    follower.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "plain");
    assert_eq!(harness.calls(), calls, "agentic chunks serve plain requests");

    // Requested together, the plain response is made of the agentic fetch.
    let other = "from=2026-02-22&to=2026-02-22";
    let requests = [TestRequest::get(other).and("includeAgenticData=true"), TestRequest::get(other)];
    let responses = follower.send_all(&requests).await;
    let (from, end) = (at("2026-02-22"), at("2026-02-23"));
    responses[0].assert_complete(&harness.items_of(from, end, true, &ItemFilter::default()), "concurrent agentic");
    responses[1].assert_complete(&harness.items(from, end), "concurrent plain");
    assert_eq!(harness.calls(), calls + 3);

    let empty_filter = TestRequest::post(SETTLED_DAY, r#"{"channels":["voice"],"sessionIds":[]}"#);
    assert_eq!(follower.send(&empty_filter).await.status, set.leader().send(&empty_filter).await.status);
}

#[tokio::test]
async fn follower_uncut_window_is_complete_and_degrades_all() {
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(250, 4) };
    let set = ReplicaSet::start(profile, Settings::default(), 2).await;
    let (harness, follower) = (&set.harness, set.follower(0));
    let response = follower.get(SETTLED_DAY).await;
    let mut expected = harness.settled_day();
    expected.sort_unstable();
    assert!(response.page().sorted_items() == expected, "the uncut window has the upstream's items");
    assert_eq!(response.cache_outcome(), "fwd=bypass");
    // By the next window, an item has been searched for at the place of its timestamp.
    follower.get("from=2026-02-22&to=2026-02-22").await.page();
    for replica in &set.replicas {
        assert_eq!(replica.gateway.readiness().await, "degraded");
    }
    let calls = harness.calls();
    let repeated = follower.get(SETTLED_DAY).await;
    assert!(repeated.page().sorted_items() == expected, "the settled window is cached");
    assert_eq!(harness.calls(), calls, "{}", repeated.cache_status());
}

#[tokio::test]
async fn follower_reports_leader_errors_unchanged() {
    let settings = Settings::one_second_limit().section("quota", "queue_timeout = '4s'");
    let set = ReplicaSet::start(exact_profile(50, 4), settings, 2).await;
    let problem = |response: &TestResponse| {
        let mut problem = response.json();
        problem.as_object_mut().unwrap().remove("request_id");
        (response.status, response.header("retry-after").is_some(), problem)
    };
    // The last fault closes the account.
    for fault in [Fault::Status500, Fault::Unauthorized, Fault::Html200, Fault::WrongCount, Fault::TooMany] {
        set.harness.control.set_faults(FaultPlan::always(fault));
        let of_follower = problem(&set.follower(0).get(SETTLED_DAY).await);
        let mut of_leader = problem(&set.leader().get("from=2026-02-22&to=2026-02-22").await);
        if fault == Fault::TooMany {
            // The detail has the time until the account opens, which grows with each refusal.
            of_leader.2 = of_follower.2.clone();
        }
        assert_eq!(of_follower, of_leader, "{fault:?}");
    }
}

#[tokio::test]
async fn follower_keeps_waiting_while_leader_receives_pages() {
    let profile =
        Profile { rate_limits: vec![RollingLimit::new(1, Duration::from_millis(700))].into(), ..exact_profile(950, 4) };
    let settings = Settings::default().limits("[{ requests = 1, per = '700ms' }]");
    let set = ReplicaSet::start(profile, settings.section("quota", "queue_timeout = '2s'"), 2).await;
    set.follower(0).get(SETTLED_DAY).await.assert_complete(&set.harness.settled_day(), "ten pages in seven seconds");
    assert_eq!(set.harness.calls(), 10);
}

#[tokio::test]
async fn replica_with_other_chunk_size_uses_leader_permits() {
    let redis = RedisServer::start();
    let hours = Settings::default().redis(&redis.url());
    let half_hours = hours.clone().section("window", "chunk = '30m'");
    let set = ReplicaSet::start_with(redis, exact_profile(50, 4), &[hours, half_hours]).await;
    set.follower(0).get(SETTLED_DAY).await.assert_complete(&set.harness.settled_day(), "other chunks");
    assert_eq!(set.harness.calls(), 1);
}

#[tokio::test]
async fn messages_and_handovers_are_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "a secret of 32 random bytes or more").unwrap();
    let redis = RedisServer::start();
    let key = format!("encryption_key = {{ file = '{}' }}", file.display());
    let settings = Settings::default().section("window", "freshness = []").redis_with(&redis.url(), &key);
    let set = ReplicaSet::start_with(redis, exact_profile(250, 4), &[settings.clone(), settings]).await;
    let response = set.follower(0).get(OPEN_WINDOW).await;
    let expected = set.harness.items(at("2026-02-25T11:00:00Z"), set.harness.clock.now());
    response.assert_complete(&expected, "the open window");
    let keys = set.for_each_key(
        "for _, value in ipairs(redis.call('hvals', key)) do if value:sub(1, 4) ~= 'kgs1' then return 'plain' end end",
    );
    assert!(keys.parse::<u32>().is_ok_and(|keys| keys > 0), "{keys}");
}

#[tokio::test]
async fn follower_without_the_key_of_replies_fetches_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("{name}: a secret of 32 random bytes or more")).unwrap();
        format!("{{ file = '{}' }}", file.display())
    };
    let redis = RedisServer::start();
    // The leader reads requests with the old key, and seals its replies with the new one.
    let rotated = format!("encryption_key = {}, previous_encryption_key = {}", key("new"), key("old"));
    let leader = Settings::default().redis_with(&redis.url(), &rotated);
    let follower = Settings::default().redis_with(&redis.url(), &format!("encryption_key = {}", key("old")));
    let set = ReplicaSet::start_with(redis, exact_profile(50, 4), &[leader, follower]).await;
    set.follower(0).get(SETTLED_DAY).await.assert_complete(&set.harness.settled_day(), "with the old key");
}
