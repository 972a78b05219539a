//! Reloads of the configuration of a gateway that serves requests.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use http::Method;

use crate::support::{
    ACCOUNT, GatewayProcess, KoregateProcess, RedisServer, SETTLED_DAY, Settings, TestHarness, TestRequest, Window,
    caller_table, environment, exact_profile, settled_day_items, start_dated_simulator, until_async,
};

/// Settled days of which none follows another, so that they are not fetched together.
const DAYS: [&str; 4] = ["2026-02-17", "2026-02-19", "2026-02-21", "2026-02-23"];

fn settings(callers: &[(&str, &str)]) -> Settings {
    let tables = callers.iter().map(|(name, key)| caller_table(name, key, "requests_per_minute = 100000"));
    Settings::default().tables(&tables.collect::<String>())
}

/// Sound settings that differ from one number to the next, each with the caller of the key `kept`.
fn variant(number: usize) -> Settings {
    let other = format!("other-{number}");
    let settings = settings(&[("bi", "kept"), (&other, &other)]);
    settings
        .section("window", &format!("settle_after = '{}h'\nfreshness = []", 24 + number % 3))
        .section("quota", &format!("interactive_reserve = 0.{}", number % 9))
        .limits(&format!("[{{ requests = {}, per = '1m' }}]", 1_000_000 + number))
}

#[tokio::test]
async fn requests_under_reloads_are_answered_as_without() {
    let harness = TestHarness::start(exact_profile(250, 10), &variant(0)).await;
    let windows = DAYS.map(Window::day);
    let expected = windows.each_ref().map(|window| harness.window_items(window));
    let is_over = AtomicBool::new(false);
    let client = async |first: usize| {
        // Each client begins with another day, so that all are fetched while reloads go on.
        for number in (first..).take_while(|number| number - first < 20 || !is_over.load(Ordering::Relaxed)) {
            let day = number % windows.len();
            let request = TestRequest::get(&*windows[day].query).key("kept");
            harness.send(&request).await.assert_complete(&expected[day], &windows[day].query);
        }
    };
    let reloads = async {
        for number in 1..=100 {
            assert!(harness.reload(&variant(number)).await, "{number}");
            assert!(!harness.reload(&variant(number).section("server", "max_head_size = '1KiB'")).await, "{number}");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(reloads, join_all((0..4).map(client)));
    // Three pages for each day: no more than without reloads, and all of them are still counted.
    assert_eq!(harness.calls(), 12);
    let status = harness.gateway.get_admin("/api/v1/status").await.json();
    let quota = &status["accounts"][0]["quota"][0];
    assert_eq!(quota["requests"].as_u64().unwrap() - quota["remaining"].as_u64().unwrap(), 12);
}

#[tokio::test]
async fn removed_key_is_refused_and_a_new_one_served() {
    let harness = TestHarness::start(exact_profile(250, 4), &settings(&[("bi", "old")])).await;
    let get = async |key: &str| harness.send(&TestRequest::get(SETTLED_DAY).key(key)).await.status;
    assert_eq!([get("old").await, get("new").await], [200, 401]);
    assert!(harness.reload(&settings(&[("bi", "new")])).await);
    assert_eq!([get("old").await, get("new").await], [401, 200]);
    // A repeated request is in the response cache by then.
    for _ in 0..4 {
        assert_eq!(get("new").await, 200);
    }
    let elsewhere = caller_table("bi", "new", "streams = ['st-elsewhere']");
    assert!(harness.reload(&Settings::default().tables(&elsewhere)).await);
    assert_eq!(get("new").await, 403);
    assert_eq!(harness.calls(), 3);
}

#[tokio::test]
async fn faulty_configuration_changes_nothing_and_is_reported() {
    let harness = TestHarness::start(exact_profile(250, 4), &settings(&[("bi", "key")])).await;
    let status = async || harness.gateway.get_admin("/api/v1/status").await.json()["configuration"].clone();
    let before = status().await;
    assert_eq!((&before["failed_reload"], before["hash"].as_str().unwrap().len()), (&serde_json::Value::Null, 12));
    let faulty = settings(&[("bi", "key"), ("bi", "other")]);
    assert!(!harness.reload(&faulty).await);
    assert_eq!(harness.send(&TestRequest::get(SETTLED_DAY).key("other")).await.status, 401);
    let failed = status().await;
    assert_eq!(failed["hash"], before["hash"]);
    let fault = failed["failed_reload"]["faults"][0].as_str().unwrap();
    assert!(fault.contains("callers[1].name: \"bi\" is another caller's too"), "{fault}");
    assert_eq!(harness.gateway.readiness().await, "degraded");

    let restart = settings(&[("bi", "key")]).section("cache", "memory = '1GiB'").section("server", "max_requests = 5");
    assert!(harness.reload(&restart).await);
    let reloaded = status().await;
    assert_eq!(reloaded["failed_reload"], serde_json::Value::Null);
    assert_eq!(reloaded["needs_restart"], serde_json::json!(["server.max_requests", "cache.memory"]));
    assert_eq!(reloaded["hash"], before["hash"], "what needs a restart is not in force");
    let page = harness.gateway.get_admin("/").await.text().to_owned();
    assert!(page.contains("new values need a restart: server.max_requests, cache.memory"), "{page}");
    let metrics = harness.gateway.metrics().await;
    assert!(metrics.text().contains("koregate_config_info{hash=\""), "{}", metrics.text());
}

#[tokio::test]
async fn admin_token_is_that_of_the_last_reload() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let settings = Settings::default().section("admin", &format!("token = {{ file = '{}' }}", token.display()));
    std::fs::write(&token, "one").unwrap();
    let harness = TestHarness::start(exact_profile(1, 4), &settings).await;
    let with = async |token: &str| {
        let request = TestRequest::path_only("/api/v1/status").header("authorization", &format!("Bearer {token}"));
        harness.gateway.send_admin(&request).await.status
    };
    assert_eq!([with("one").await, with("two").await], [200, 401]);
    std::fs::write(&token, "two").unwrap();
    assert!(harness.reload(&settings).await);
    assert_eq!([with("one").await, with("two").await], [401, 200]);
}

/// As `kubelet` does: a folder of the new version, and then a symlink that is replaced.
fn write_as_kubernetes(volume: &std::path::Path, version: usize, name: &str, content: &str) {
    let folder = format!("..{version}");
    std::fs::create_dir(volume.join(&folder)).unwrap();
    std::fs::write(volume.join(&folder).join(name), content).unwrap();
    std::os::unix::fs::symlink(&folder, volume.join("..data_tmp")).unwrap();
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if version == 1 {
        std::os::unix::fs::symlink(format!("..data/{name}"), volume.join(name)).unwrap();
    }
}

#[tokio::test]
async fn process_reloads_on_a_swapped_symlink_and_on_sighup() {
    let (simulator, control) = start_dated_simulator(exact_profile(250, 4)).await;
    let volume = tempfile::tempdir().unwrap();
    let config = |key: &str| {
        let (text, _) = settings(&[("bi", key)]).render(&simulator.base_url(), &control.profile());
        text.replace("SECRET_0", "KORE_CLIENT_SECRET")
    };
    write_as_kubernetes(volume.path(), 1, "koregate.toml", &config("one"));
    let file = volume.path().join("koregate.toml");
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let secret = environment(&simulator.base_url()).into_iter().filter(|(name, _)| *name == "KORE_CLIENT_SECRET");
    let process = KoregateProcess::start(&arguments, &secret.collect::<Vec<_>>());
    let mut gateway = GatewayProcess::from_process(process).await;
    let reloaded = |line: &str| line.contains("the configuration was reloaded").then_some(());

    write_as_kubernetes(volume.path(), 2, "koregate.toml", &config("two"));
    gateway.process.wait_for_line(reloaded).await;
    let answer = gateway.send(&TestRequest::get(SETTLED_DAY).key("two")).await;
    answer.assert_complete(&settled_day_items(&control), "the new key");
    assert_eq!(gateway.send(&TestRequest::get(SETTLED_DAY).key("one")).await.status, 401);

    write_as_kubernetes(volume.path(), 3, "koregate.toml", &config("three").replace("[upstream]", "[upstraem]"));
    gateway.process.hang_up();
    let faults =
        gateway.process.wait_for_line(|line| line.contains("cannot be reloaded").then(|| line.to_owned())).await;
    assert!(faults.contains("koregate.toml:") && faults.contains("did you mean `upstream`?"), "{faults}");
    write_as_kubernetes(volume.path(), 4, "koregate.toml", &config("four"));
    gateway.process.hang_up();
    gateway.process.wait_for_line(reloaded).await;
    assert_eq!(gateway.send(&TestRequest::get(SETTLED_DAY).key("four")).await.status, 200);

    let request = TestRequest::path_only("/api/v1/reload").method(Method::POST);
    for (version, text, status) in [(5, "[server", 422), (6, &config("six"), 200)] {
        write_as_kubernetes(volume.path(), version, "koregate.toml", text);
        assert_eq!(gateway.send_admin(&request).await.status, status, "{text}");
    }
    assert_eq!(gateway.send(&TestRequest::get(SETTLED_DAY).key("six")).await.status, 200);
    assert_eq!(gateway.stop().await.0, Some(0));
}

#[tokio::test]
async fn lowest_limit_holds_until_all_replicas_are_reloaded() {
    let redis = RedisServer::start();
    let with_limit =
        |limit: u32| Settings::default().redis(&redis.url()).limits(&format!("[{{ requests = {limit}, per = '1h' }}]"));
    let harness = TestHarness::start(exact_profile(1, 4), &with_limit(50)).await;
    harness.gateway.until_leader().await;
    let other = harness.add_replica(&with_limit(50)).await;
    let limit = || harness.gateway.scheduler().limit_usage()[0].limit.requests;
    let until_limit = |expected| until_async("the limits agree", async move || limit() == expected);

    assert!(harness.reload_replica(&other, &with_limit(20)).await);
    until_limit(20).await;
    assert!(harness.reload(&with_limit(80)).await);
    assert_eq!(limit(), 20, "{ACCOUNT}: the other replica has the lower limit");
    assert!(harness.reload_replica(&other, &with_limit(80)).await);
    until_limit(80).await;
}
