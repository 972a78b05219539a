//! `koregate export` and `koregate warm`, against a gateway in this process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{
    ACCOUNT, KoregateProcess, RedisServer, STREAM, Settings, TestHarness, at, caller_table, environment, exact_profile,
    run_koregate, start_dated_simulator, text, to_ndjson, until,
};

/// Sixty settled days with eight items each.
const SPAN: [&str; 4] = ["--from", "2025-12-25", "--to", "2026-02-22"];

/// A command for [`STREAM`] behind the gateway of `harness`.
fn start(harness: &TestHarness, command: &str, more: &[&str]) -> KoregateProcess {
    start_at(harness.gateway.addr(), command, more)
}

/// The same behind the gateway at `addr`.
fn start_at(addr: SocketAddr, command: &str, more: &[&str]) -> KoregateProcess {
    let url = format!("http://{addr}");
    let arguments = [&[command, "--url", &url, "--stream", STREAM][..], more].concat();
    KoregateProcess::start(&arguments, &[])
}

async fn finish(harness: &TestHarness, command: &str, more: &[&str]) -> (Option<i32>, String) {
    start(harness, command, more).wait().await
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn export_that_is_killed_goes_on_to_the_same_file_and_manifest() {
    let harness = TestHarness::start_exact(8, 64).await;
    let directory = Directory::new();
    for ending in ["ndjson", "parquet"] {
        let whole = directory.path(&format!("whole.{ending}"));
        let export = |file: &str| [&SPAN[..], &["-o", file]].concat().into_iter().map(ToOwned::to_owned).collect();
        let arguments: Vec<String> = export(&whole);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, output) = finish(&harness, "export", &arguments).await;
        assert_eq!(code, Some(0), "{output}");
        let calls = harness.calls();

        let killed = directory.path(&format!("killed.{ending}"));
        let arguments: Vec<String> = export(&killed);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (journal, file) = (PathBuf::from(format!("{killed}.progress")), PathBuf::from(&killed));
        for parts in [1, 9, 30] {
            let process = start(&harness, "export", &arguments);
            until("parts of the export", || lines(&journal) > parts || file.exists()).await;
            // Dropped, it is killed.
            drop(process);
        }
        let (code, output) = finish(&harness, "export", &arguments).await;
        assert_eq!(code, Some(0), "{output}");
        assert!(fs::read(&whole).unwrap() == fs::read(&killed).unwrap(), "{ending}: other bytes");
        let manifest = |file: &str| fs::read_to_string(format!("{file}.manifest.json")).unwrap();
        assert_eq!(manifest(&whole), manifest(&killed));
        assert_eq!(harness.calls(), calls, "what is cached costs nothing");
        let again = finish(&harness, "export", &arguments).await;
        assert!(again.0 == Some(0) && again.1.contains("done already"), "{again:?}");
    }
    let items = harness.items(at("2025-12-25"), at("2026-02-23"));
    assert!(items.len() == 60 * 8 && to_ndjson(&items) == fs::read(directory.path("whole.ndjson")).unwrap());
}

#[tokio::test]
async fn export_into_open_time_needs_a_flag() {
    let harness = TestHarness::start_exact(8, 4).await;
    let directory = Directory::new();
    let file = directory.path("a.ndjson");
    let span = ["--from", "2026-02-23", "--to", "2026-02-25", "-o", &file];
    let (code, output) = finish(&harness, "export", &span).await;
    assert_eq!(code, Some(2));
    assert!(output.contains("2026-02-24-12:34:55 at most"), "{output}");
    assert!(!Path::new(&format!("{file}.partial")).exists(), "nothing is left");
    let (code, output) = finish(&harness, "export", &[&span[..], &["--open"]].concat()).await;
    assert_eq!(code, Some(0), "{output}");
    let items = harness.items(at("2026-02-23"), harness.clock.now());
    assert!(to_ndjson(&items) == fs::read(&file).unwrap(), "up to the present");
    let manifest = fs::read_to_string(format!("{file}.manifest.json")).unwrap();
    assert!(manifest.contains(ACCOUNT) && manifest.contains("segmentStartTime"), "{manifest}");
}

#[tokio::test]
async fn export_that_is_refused_midway_goes_on_once_it_is_allowed() {
    let (harness, settings) = (TestHarness::start_exact(8, 64).await, Settings::default());
    let proxy = harness.start_proxy().await;
    let gateway = harness.add_replica_behind(&proxy, &settings).await;
    let reload = async |settings: &Settings| {
        let config = settings.try_load(&proxy.base_url(), &harness.control.profile());
        assert!(gateway.server.reload(config).await);
    };
    // What follows the first 31 days is held at the upstream.
    gateway.get("from=2025-12-25&to=2026-01-24").await.page();
    proxy.hold_requests();
    let calls = proxy.calls();
    let directory = Directory::new();
    let (file, journal) = (directory.path("a.ndjson"), PathBuf::from(directory.path("a.ndjson.progress")));
    let export = [&SPAN[..], &["-o", &file]].concat();
    let process = start_at(gateway.addr(), "export", &export);
    proxy.until_calls_exceed(calls).await;
    reload(&settings.clone().tables(&caller_table("bi", "key", ""))).await;
    proxy.release();
    let (code, output) = process.wait().await;
    assert!(code == Some(2) && output.contains("once that is put right, the same command goes on"), "{output}");
    assert_eq!(lines(&journal), 1 + 31, "the days before are there");
    // A refusal before anything of a new export is there takes nothing of the old one.
    let forced = [&SPAN[..2], &["--to", "2026-02-25", "-o", &file, "--force"]].concat();
    let (code, output) = start_at(gateway.addr(), "export", &forced).wait().await;
    assert!(code == Some(2) && !output.contains("goes on"), "{output}");
    assert_eq!(lines(&journal), 1 + 31);
    reload(&settings).await;
    let (code, output) = start_at(gateway.addr(), "export", &export).wait().await;
    assert!(code == Some(0) && output.contains("going on: 31 of 60 days are there"), "{output}");
    assert!(to_ndjson(&harness.items(at("2025-12-25"), at("2026-02-23"))) == fs::read(&file).unwrap());
}

#[tokio::test]
async fn export_from_a_day_that_is_not_wholly_retained_is_refused() {
    // At noon, half of the day before ten days is too old.
    let settings = Settings::default().account("retention = '10d'");
    let harness = TestHarness::start(exact_profile(8, 16), &settings).await;
    let directory = Directory::new();
    let file = directory.path("a.ndjson");
    let export = |from| ["--from", from, "--to", "2026-02-22", "-o", &file];
    let (code, output) = finish(&harness, "export", &export("2026-02-15")).await;
    assert!(code == Some(2) && output.contains("data is kept for 10d"), "{output}");
    assert_eq!(fs::read_dir(directory.0.path()).unwrap().count(), 0, "nothing is left");
    let (code, output) = finish(&harness, "export", &export("2026-02-16")).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(to_ndjson(&harness.items(at("2026-02-16"), at("2026-02-23"))) == fs::read(&file).unwrap());
}

#[tokio::test]
async fn warmed_span_is_a_hit() {
    let harness = TestHarness::start_exact(50, 8).await;
    let span = ["--from", "2026-02-19", "--to", "2026-02-22"];
    let (code, output) = finish(&harness, "warm", &[&span[..], &["--estimate"]].concat()).await;
    assert_eq!((code, harness.calls()), (Some(0), 0), "{output}");
    assert!(output.contains("at least 1"), "{output}");
    let (code, output) = finish(&harness, "warm", &span).await;
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(harness.calls(), 3, "one for the first day, two for the others together");
    assert_eq!(harness.get("from=2026-02-19&to=2026-02-22").await.page().items().len(), 200);
    assert_eq!(harness.calls(), 3);
}

#[tokio::test]
async fn span_warmed_by_a_process_is_cached_after_its_end() {
    let (simulator, control) = start_dated_simulator(exact_profile(1000, 4)).await;
    let (directory, redis) = (Directory::new(), RedisServer::start());
    let own = [
        ("KOREGATE__QUOTA__STATE_FILE", directory.path("state")),
        ("KOREGATE__CACHE__DISK__PATH", directory.path("disk")),
        ("KOREGATE__CACHE__DISK__SIZE", "1GiB".to_owned()),
    ];
    let shared = [("KOREGATE__CACHE__REDIS__URL", redis.url())];
    for more in [&own[..], &shared] {
        control.reset_counts();
        let environment = [&environment(&simulator.base_url())[..], more].concat();
        let warm = ["warm", "--stream", STREAM, "--from", "2026-02-23", "--to", "2026-02-24"];
        let mut calls = Vec::new();
        for _ in 0..2 {
            let (code, output) = KoregateProcess::start(&warm, &environment).wait().await;
            assert_eq!(code, Some(0), "{output}");
            calls.push(control.counts().total);
        }
        assert!(calls[0] >= 20 && calls[1] == calls[0], "{calls:?} {more:?}");
    }
}

#[test]
fn commands_without_a_gateway_need_a_common_ledger() {
    let directory = Directory::new();
    let state = directory.path("state");
    let mut environment = environment("http://127.0.0.1:1");
    let run = |environment: &[_], command: &[&str]| {
        let span = [command, &["--stream", STREAM, "--from", "2026-02-19", "--to", "2026-02-22"]].concat();
        let output = run_koregate(&span, environment, "");
        (output.status.code(), text(&output.stderr).to_owned())
    };
    for command in [&["export", "-o", &directory.path("a.csv")][..], &["warm"]] {
        let (code, errors) = run(&environment, command);
        assert!(code == Some(2) && errors.contains("--url"), "{errors}");
    }
    environment.push(("KOREGATE__QUOTA__STATE_FILE", state.clone()));
    let file = fs::File::create(&state).unwrap();
    file.lock().unwrap();
    let (code, errors) = run(&environment, &["warm"]);
    assert!(code == Some(2) && errors.contains("--url") && errors.contains("state file"), "{errors}");
    drop(file);
    let (code, errors) = run(&environment, &["warm"]);
    assert!(code == Some(2) && errors.contains("without cache.redis and without cache.disk"), "{errors}");
    assert_eq!(run(&environment, &["warm", "--estimate"]).0, Some(0));
}
