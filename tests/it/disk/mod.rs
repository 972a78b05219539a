//! The disk tier: what was cached before a restart costs no call, whatever has happened to the files, and what was
//! purged does not come back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{
    GatewayClient, RedisServer, SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, at, exact_profile, until_async,
};

/// The chunks of the settled day: one an hour.
const CHUNKS: u64 = 24;

/// A gateway with a runtime of its own, so that it can be killed.
struct Killable {
    runtime: Runtime,
    gateway: GatewayClient,
}

impl Killable {
    async fn start(harness: &TestHarness, settings: &Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let gateway = harness.add_replica_on(runtime.handle(), settings).await;
        Self { runtime, gateway }
    }

    /// Kills the gateway, and waits until it has released its files.
    async fn kill(self) {
        let Self { runtime, gateway } = self;
        drop(gateway);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10))).await.unwrap();
    }

    /// Waits until so many chunks have been written by all gateways of the test.
    async fn until_written(&self, chunks: u64) {
        until_async("chunks on disk", async || self.written().await >= chunks).await;
    }

    async fn written(&self) -> u64 {
        self.gateway.metrics().await.count("koregate_disk_writes_total", &["result=\"ok\""])
    }

    async fn problems(&self) -> String {
        self.gateway.get_admin("/api/v1/status").await.json()["problems"].to_string()
    }
}

fn settings(directory: &Path) -> Settings {
    settings_of_size(directory, "64MiB")
}

fn settings_of_size(directory: &Path, size: &str) -> Settings {
    Settings::default()
        .section("cache", &format!("disk = {{ path = '{}', size = '{size}' }}", directory.join("cache").display()))
        .section("quota", &format!("state_file = '{}'", directory.join("quota").display()))
}

/// A simulator with 250 items a day. Its own gateway is not used.
async fn simulator() -> TestHarness {
    TestHarness::start(exact_profile(250, 4), &Settings::default()).await
}

/// The files of the segments.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("cache")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|name| name == "segment")).collect()
}

/// Caches the settled day on disk, and kills the gateway.
async fn fill(harness: &TestHarness, settings: &Settings) {
    let first = Killable::start(harness, settings).await;
    let before = first.written().await;
    assert!(first.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    first.until_written(before + CHUNKS).await;
    first.kill().await;
    harness.control.reset_counts();
}

#[tokio::test]
async fn restarted_gateway_serves_from_disk_without_a_call() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    fill(&harness, &settings).await;
    let second = Killable::start(&harness, &settings).await;
    let cost = second.gateway.send(&TestRequest::get(SETTLED_DAY).header("prefer", "dry-run")).await.json();
    assert_eq!((&cost["calls"]["expected"], &cost["hits"]), (&0.into(), &CHUNKS.into()), "{cost}");
    // A page from the middle of the day: of all other chunks only the count is used.
    let request = TestRequest::get(format!("{SETTLED_DAY}&offset=100&limit=7"));
    let head = second.gateway.send(&request.clone().method(Method::HEAD)).await;
    let page = second.gateway.send(&request).await;
    for field in ["content-length", "etag", "cache-status"] {
        assert_eq!((head.header(field), head.header(field).is_some()), (page.header(field), true));
    }
    assert!(page.has_items(&harness.settled_day()[100..107]), "{}", page.text());
    assert!(second.gateway.metrics().await.count("koregate_disk_reads_total", &["result=\"hit\""]) <= 2);
    let response = second.gateway.get(SETTLED_DAY).await;
    assert!(response.has_items(&harness.settled_day()));
    assert!(response.header("cache-status").is_some_and(|status| status.contains("hit")), "{:?}", response.headers);
    assert_eq!(harness.calls(), 0);
    second.kill().await;
}

#[tokio::test]
async fn purge_is_not_undone_by_a_restart() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    let first = Killable::start(&harness, &settings).await;
    first.gateway.get(SETTLED_DAY).await;
    first.until_written(CHUNKS).await;
    let backup = directory.path().join("backup");
    copy(&directory.path().join("cache"), &backup);
    let report = first.gateway.purge("from=2026-02-23T06:00:00&to=2026-02-23T07:59:59").await.json();
    assert_eq!((&report["complete"], &report["disk_chunks"]), (&true.into(), &2.into()), "{report}");
    first.kill().await;
    harness.control.reset_counts();
    let second = Killable::start(&harness, &settings).await;
    assert!(second.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    assert_eq!(harness.calls(), 1, "only the purged hours are fetched again");
    second.kill().await;
    // A copy of the directory from before the purge is put back: the anchor beside the state file tells.
    harness.change_settled_day();
    fs::remove_dir_all(directory.path().join("cache")).unwrap();
    copy(&backup, &directory.path().join("cache"));
    let third = Killable::start(&harness, &settings).await;
    assert!(third.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()), "none of the old copy");
    third.kill().await;
}

/// The text of a member of an item.
fn member(item: &[u8], name: &str) -> String {
    serde_json::from_slice::<Value>(item).unwrap()[name].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn erased_conversation_is_found_on_disk_without_other_chunks() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    fill(&harness, &settings).await;
    let day = harness.settled_day();
    let conversation = member(&day[120], "conversationID");
    let held: Vec<_> = day.iter().filter(|item| member(item, "conversationID") == conversation).collect();
    let hours: BTreeSet<_> = held.iter().map(|item| member(item, "segmentStartTime")[11..13].to_owned()).collect();
    for item in &held {
        assert!(harness.control.remove(STREAM, &member(item, "segmentID")));
    }
    // Nothing of the day is in memory. An erasure at the moment of the start is counted for the start.
    let second = Killable::start(&harness, &settings).await;
    second.gateway.send(&TestRequest::get(SETTLED_DAY).header("prefer", "dry-run")).await;
    let body = json!({ "conversationIds": [conversation] }).to_string();
    let request = TestRequest::get("").method(Method::POST).path("/api/v1/purge").body(body);
    let report = second.gateway.send_admin(&request).await.json();
    let account = &report["accounts"][0];
    let expected = (&true.into(), &hours.len().into(), &0.into());
    assert_eq!((&report["complete"], &account["disk_chunks"], &account["memory_chunks"]), expected, "{report}");
    assert!(second.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    assert!((1..=hours.len() as u64).contains(&harness.calls()), "{} calls for {hours:?}", harness.calls());
    second.kill().await;
    // A restart finds it neither.
    harness.control.reset_counts();
    let third = Killable::start(&harness, &settings).await;
    assert!(third.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    assert!(harness.calls() <= hours.len() as u64);
    third.kill().await;
}

#[tokio::test]
async fn filter_that_names_an_erased_conversation_is_erased_with_it() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let gateway = Killable::start(&harness, &settings(directory.path())).await;
    let [erased, kept] = [10, 120].map(|index: usize| member(&harness.settled_day()[index], "conversationID"));
    let on_disk = |conversation: &str| {
        let names = |path: &PathBuf| {
            fs::read(path).unwrap().windows(conversation.len()).any(|part| part == conversation.as_bytes())
        };
        segments(directory.path()).iter().any(names)
    };
    for conversation in [&erased, &kept] {
        let filter = json!({ "conversationIds": [conversation] }).to_string();
        let request = TestRequest::get(SETTLED_DAY).method(Method::POST).body(filter);
        assert_eq!(gateway.gateway.send(&request).await.status, 200);
        until_async("a chunk of the filter on disk", async || on_disk(conversation)).await;
    }
    assert!(on_disk(&erased) && on_disk(&kept));
    let body = json!({ "conversationIds": [erased] }).to_string();
    let request = TestRequest::get("").method(Method::POST).path("/api/v1/purge").body(body);
    assert_eq!(gateway.gateway.send_admin(&request).await.json()["complete"], true);
    assert!(!on_disk(&erased) && on_disk(&kept));
    gateway.kill().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn purge_while_a_replica_is_down_holds_for_its_disk() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let redis = RedisServer::start();
    let settings = settings(directory.path()).redis(&redis.url());
    fill(&harness, &settings).await;
    let other = harness.add_replica(&Settings::default().redis(&redis.url())).await;
    harness.change_settled_day();
    assert_eq!(other.purge("").await.status, 200);
    drop(other);
    let second = Killable::start(&harness, &settings).await;
    assert!(second.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    second.kill().await;
}

#[tokio::test]
async fn request_that_spans_a_purge_is_not_answered_from_disk() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    fill(&harness, &settings).await;
    let proxy = harness.start_proxy().await;
    let gateway = harness.add_replica_behind(&proxy, &settings).await;
    proxy.hold_requests();
    // The settled day is read from disk, and then the day after it is waited for.
    let request = TestRequest::get("from=2026-02-23&to=2026-02-24");
    let (answer, ()) = tokio::join!(gateway.send(&request), async {
        proxy.until_calls_exceed(0).await;
        harness.change_settled_day();
        assert_eq!(gateway.purge("").await.status, 200);
        proxy.release();
    });
    answer.assert_complete(&harness.items(at("2026-02-23"), at("2026-02-25")), "both days");
}

#[tokio::test]
async fn only_cached_window_that_is_not_whole_is_refused_before_it_is_read() {
    let (harness, directory) = (TestHarness::start_exact(250, 16).await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    let first = Killable::start(&harness, &settings).await;
    first.gateway.get("from=2026-02-10&to=2026-02-10").await.page();
    first.until_written(CHUNKS).await;
    first.kill().await;
    harness.control.reset_counts();
    let second = Killable::start(&harness, &settings).await;
    // What is missing is long enough for the answer to be streamed.
    for (to, status) in [("2026-02-10", 200), ("2026-02-23", 504)] {
        let request = TestRequest::get(format!("from=2026-02-10&to={to}")).header("cache-control", "only-if-cached");
        assert_eq!(second.gateway.send(&request).await.status, status, "{to}");
    }
    assert_eq!(harness.calls(), 0);
    second.kill().await;
}

#[tokio::test]
async fn damaged_files_cost_calls_and_no_wrong_answer() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let settings = settings(directory.path());
    for damage in [
        |bytes: &mut Vec<u8>| bytes.iter_mut().skip(1000).step_by(5000).for_each(|byte| *byte ^= 0x40),
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| bytes.fill(0),
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        fill(&harness, &settings).await;
        for path in segments(directory.path()) {
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
        let second = Killable::start(&harness, &settings).await;
        assert!(second.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
        assert!(harness.calls() > 0);
        second.kill().await;
        fs::remove_dir_all(directory.path().join("cache")).unwrap();
    }
}

#[tokio::test]
async fn chunks_of_a_mostly_purged_segment_outlive_full_ones() {
    let (harness, directory) = (TestHarness::start_exact(2_500, 9).await, tempfile::tempdir().unwrap());
    let settings = settings_of_size(directory.path(), "16MiB");
    let first = Killable::start(&harness, &settings).await;
    let day = |day: u32| format!("from=2026-02-{day}&to=2026-02-{day}");
    first.gateway.get(day(18)).await;
    first.until_written(CHUNKS).await;
    // What is left of the day is a small part of the segments that were used least recently.
    assert_eq!(first.gateway.purge("from=2026-02-18T04:00:00&to=2026-02-18T23:59:59").await.status, 200);
    for (count, later) in (2..).zip(19..=24) {
        first.gateway.get(day(later)).await;
        first.until_written(count * CHUNKS).await;
    }
    first.kill().await;
    harness.control.reset_counts();
    let second = Killable::start(&harness, &settings).await;
    second.gateway.get("from=2026-02-18T00:00:00&to=2026-02-18T03:59:59").await;
    assert_eq!(harness.calls(), 0, "it was written anew before full segments were evicted");
    second.gateway.get(day(19)).await;
    assert!(harness.calls() > 0, "full segments were evicted");
    second.kill().await;
}

#[tokio::test]
async fn second_process_of_a_directory_goes_on_without_it() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let first = Killable::start(&harness, &settings(directory.path())).await;
    first.gateway.get(SETTLED_DAY).await;
    first.until_written(CHUNKS).await;
    let without_state = Settings::default().section(
        "cache",
        &format!("disk = {{ path = '{}', size = '64MiB' }}", directory.path().join("cache").display()),
    );
    let second = Killable::start(&harness, &without_state).await;
    until_async("the reason", async || second.problems().await.contains("another process uses")).await;
    assert!(second.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    assert!(second.gateway.readiness().await.contains("degraded"));
    // When the first one ends, the second one takes over.
    first.kill().await;
    until_async("the directory", async || second.problems().await == "[]").await;
    second.kill().await;
}

#[tokio::test]
async fn bytes_on_disk_are_sealed_with_a_key_and_unreadable_with_another() {
    let (harness, directory) = (simulator().await, tempfile::tempdir().unwrap());
    let key = |name: &str| {
        let file = directory.path().join(name);
        fs::write(&file, format!("{name} with at least thirty-two bytes of secret")).unwrap();
        settings(directory.path()).section("cache", &format!("encryption_key = {{ file = '{}' }}", file.display()))
    };
    fill(&harness, &key("one")).await;
    let stream = STREAM.as_bytes();
    for path in segments(directory.path()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(stream.len()).any(|window| window == stream), "the name of the stream is not sealed");
    }
    let other = Killable::start(&harness, &key("two")).await;
    assert!(other.gateway.get(SETTLED_DAY).await.has_items(&harness.settled_day()));
    assert!(harness.calls() > 0);
    other.kill().await;
}
