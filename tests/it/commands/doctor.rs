//! `koregate doctor`.

use std::time::Duration;

use serde_json::Value;

use super::SECRET;
use crate::support::{
    AcceptedScheme, GatewayProcess, Profile, RateLimits, RedisServer, RollingLimit, STREAM, SelectOn, Simulator,
    SortOrder, environment, profile, run_koregate, text, until_async,
};

/// All that the simulator can play: order, upper bound, timestamp and token scheme.
fn personalities() -> Vec<(SortOrder, bool, SelectOn, AcceptedScheme)> {
    let mut all = Vec::new();
    for order in [SortOrder::Ascending, SortOrder::Descending, SortOrder::Shuffled] {
        for exclusive in [false, true] {
            for field in [SelectOn::Start, SelectOn::End] {
                for scheme in [AcceptedScheme::Bare, AcceptedScheme::Bearer] {
                    all.push((order, exclusive, field, scheme));
                }
            }
        }
    }
    all
}

/// Runs the doctor in front of a simulator: its exit code and its object.
async fn diagnose(base_url: String, more: Vec<(&'static str, String)>) -> (Option<i32>, Value) {
    let run = move || {
        let mut environment = environment(&base_url);
        environment.extend(more);
        let output = run_koregate(&["doctor", "--json", "--stream", STREAM], &environment, "");
        assert!(!text(&output.stdout).contains(SECRET) && !text(&output.stderr).contains(SECRET));
        let object = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), object)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The doctor's answer to one personality is right or "unknown", within 12 calls as the simulator counts them.
async fn check_personality((order, exclusive, field, scheme): (SortOrder, bool, SelectOn, AcceptedScheme)) -> usize {
    let mut profile = Profile { rate_limits: RollingLimit::kore_defaults().into(), ..profile(1_700, 3) };
    (profile.api.order, profile.api.exclusive_to, profile.api.select_on) = (order, exclusive, field);
    profile.token.scheme = scheme;
    let simulator = Simulator::start(profile).await.unwrap();
    let (_, object) = diagnose(simulator.base_url(), Vec::new()).await;
    let calls = simulator.control().counts().total;
    assert!(calls <= 12, "{object:#}");
    assert_eq!(object["calls"], calls, "{object:#}");
    let order = match order {
        SortOrder::Ascending => "ascending",
        SortOrder::Descending => "descending",
        _ => "other",
    };
    let scheme = if scheme == AcceptedScheme::Bare { "bare" } else { "bearer" };
    let field = if field == SelectOn::Start { "segmentStartTime" } else { "segmentEndTime" };
    let bound = if exclusive { "exclusive" } else { "inclusive" };
    assert_eq!((&object["credential"], &object["page_limit"]), (&"ok".into(), &100.into()), "{object:#}");
    assert_eq!((&object["scheme"], &object["default_limit"]), (&scheme.into(), &100.into()), "{object:#}");
    assert_eq!((&object["field"], &object["order"]), (&field.into(), &order.into()), "{object:#}");
    // Items that end at a whole second are rare: no such item may have been seen.
    if object["upper_bound"] == "unknown" && field == "segmentEndTime" {
        return 0;
    }
    assert_eq!(object["upper_bound"], bound, "{object:#}");
    let settings: toml::Table = object["settings"].as_str().unwrap().parse().unwrap();
    assert_eq!(settings["window"]["field"].as_str(), Some(field));
    assert_eq!(settings["accounts"][0]["token"]["scheme"].as_str(), Some(scheme));
    1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_every_personality_of_the_simulator() {
    let runs: Vec<_> = personalities().into_iter().map(|one| tokio::spawn(check_personality(one))).collect();
    assert_eq!(runs.len(), 24);
    let mut named = 0;
    for run in runs {
        named += run.await.unwrap();
    }
    assert!(named >= 12, "only {named} of 24 were named in full");
}

#[tokio::test]
async fn doctor_leaves_a_call_of_each_limit_to_others() {
    let limits = RateLimits { retry_after: true, ..vec![RollingLimit::new(8, Duration::from_secs(1))].into() };
    let simulator = Simulator::start(Profile { rate_limits: limits, ..profile(1_700, 3) }).await.unwrap();
    let limit = ("KOREGATE__ACCOUNTS__0__QUOTA__LIMITS", "[{ requests = 8, per = '1s' }]".to_owned());
    let (code, object) = diagnose(simulator.base_url(), vec![limit]).await;
    assert_eq!((code, &object["credential"]), (Some(0), &"ok".into()), "{object:#}");
    assert!(simulator.control().max_in_any_window(Duration::from_secs(1)) <= 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_beside_a_gateway_keeps_one_ledger() {
    let simulator = Simulator::start(profile(1_700, 3)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let state_file = ("KOREGATE__QUOTA__STATE_FILE", dir.path().join("quota").display().to_string());
    let mut in_file = environment(&simulator.base_url());
    in_file.push(state_file);
    let gateway = GatewayProcess::start(&in_file).await;
    let output = run_koregate(&["doctor", "--stream", STREAM], &in_file, "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("another process uses this state file"), "{}", text(&output.stderr));
    assert_eq!(simulator.control().counts().total, 0);
    drop(gateway);

    // With Redis, the leader gives the permits.
    let redis = RedisServer::start();
    let in_redis = ("KOREGATE__CACHE__REDIS", format!("{{ url = '{}', timeout = '1s' }}", redis.url()));
    let mut shared = environment(&simulator.base_url());
    shared.push(in_redis.clone());
    let gateway = GatewayProcess::start(&shared).await;
    let (_, object) = diagnose(simulator.base_url(), vec![in_redis]).await;
    assert_eq!((&object["credential"], &object["stopped"]), (&"ok".into(), &Value::Null), "{object:#}");
    let calls = simulator.control().counts().total;
    assert_eq!(object["calls"], calls);
    // The gateway's own ledger has counted them. As long as the doctor is alive, which leaves a call of each limit to others,
    // its limit is the lowest and holds for all.
    let remaining = async || gateway.metrics().await.count("koregate_quota_remaining", &["window=\"60s\""]);
    until_async("the calls are counted against the whole limit", async || remaining().await == 60 - calls).await;
}

#[test]
fn doctor_offline_checks_disk_and_certificates_without_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let disk = |size: &str| format!("{{ path = '{}', size = '{size}' }}", dir.path().join("cache").display());
    let mut environment = environment("http://127.0.0.1:1");
    environment.push(("KOREGATE__CACHE__DISK", disk("16MiB")));
    let good = run_koregate(&["doctor", "--offline"], &environment, "");
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    assert!(text(&good.stdout).contains("cache.disk"));

    environment.push(("KOREGATE__SERVER__TLS", "{ cert = '/nowhere/cert.pem', key = '/nowhere/key.pem' }".to_owned()));
    environment.push(("KOREGATE__CACHE__REDIS", "{ url = 'redis://127.0.0.1:1' }".to_owned()));
    environment.retain(|(name, _)| *name != "KOREGATE__CACHE__DISK");
    environment.push(("KOREGATE__CACHE__DISK", disk("9000TiB")));
    let bad = run_koregate(&["doctor", "--offline", "--json"], &environment, "");
    assert_eq!(bad.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&bad.stdout).unwrap();
    let failed = |name: &str| {
        let checks = object["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).is_some_and(|check| check["ok"] == false)
    };
    assert!(failed("server.tls") && failed("cache.redis") && failed("cache.disk"), "{object:#}");
    assert_eq!(object["calls"], 0);

    // No stream is named.
    assert_eq!(run_koregate(&["doctor"], &environment, "").status.code(), Some(2));
}
