//! A rolling update between two versions, with real processes of both on one Redis.
//!
//! `KOREGATE_OTHER_BINARY` names the binary of the other version; see CONTRIBUTING.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    GatewayProcess, HOUR, ItemFilter, KOREGATE_BINARY, KoregateProcess, Profile, RedisServer, RollingLimit, STREAM,
    Settings, Simulator, StreamProfile, TestRequest, TestResponse, Timestamp, UpperBound, Window, at, exact_stream,
};

/// Calls in two seconds.
const LIMIT: (usize, Duration) = (12, Duration::from_secs(2));
/// The first day of windows, long settled.
const FIRST_DAY: &str = "2026-01-02";
/// Windows of one phase.
const WINDOWS: u32 = 24;

/// The version that a replica runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Own,
    Other,
}

impl Version {
    fn binary(self) -> PathBuf {
        match self {
            Self::Own => KOREGATE_BINARY.into(),
            Self::Other => {
                std::env::var_os("KOREGATE_OTHER_BINARY").expect("KOREGATE_OTHER_BINARY names a binary").into()
            }
        }
    }
}

/// One of the hours of the test: every other hour, so that no two are fetched together.
fn hour(number: u32) -> Window {
    let from = at(FIRST_DAY) + HOUR * 2 * number;
    Window::formatted(from, from + HOUR - Duration::from_secs(1), UpperBound::Inclusive, "%Y-%m-%dT%H:%M:%S")
}

async fn purge(replica: &GatewayProcess, window: &Window) -> TestResponse {
    let query = format!("stream={STREAM}&{}", window.query);
    replica.send_admin(&TestRequest::get(query).method(http::Method::POST).path("/api/v1/purge")).await
}

/// Whether the replica found a leader with which it cannot exchange data.
async fn has_detached(replica: &GatewayProcess) -> bool {
    replica.metrics().await.count("koregate_fleet_apart_total", &[]) > 0
}

/// Stops the process as Kubernetes does, and waits for its end.
async fn stop(replica: GatewayProcess) {
    assert_eq!(replica.stop().await.0, Some(0));
}

/// Replicas of two versions in front of one simulator, on one Redis.
struct Fleet {
    redis: RedisServer,
    simulator: Simulator,
    dir: tempfile::TempDir,
    /// Windows that were requested before.
    requested: u32,
}

impl Fleet {
    async fn new() -> Self {
        let profile = Profile {
            streams: vec![StreamProfile { flat: true, ..exact_stream(STREAM, 480) }],
            days: 40,
            end: Some(at("2026-02-01").to_timestamp()),
            rate_limits: vec![RollingLimit::new(LIMIT.0, LIMIT.1)].into(),
            ..Profile::default()
        };
        let simulator = Simulator::start(profile).await.unwrap();
        Self { redis: RedisServer::start(), simulator, dir: tempfile::tempdir().unwrap(), requested: 0 }
    }

    /// Starts a replica, with an encryption key if its name is given.
    async fn start(&self, version: Version, key: Option<&str>) -> GatewayProcess {
        let key = key.map_or_else(String::new, |name| {
            let file = self.dir.path().join(name);
            std::fs::write(&file, format!("{name}-{}", "0".repeat(64))).unwrap();
            format!("encryption_key = {{ file = '{}' }}", file.display())
        });
        let limits = format!("[{{ requests = {}, per = '2s' }}, {{ requests = 100000, per = '1h' }}]", LIMIT.0);
        let settings = Settings::default().limits(&limits).redis_with(&self.redis.url(), &key);
        let (text, environment) = settings.render(&self.simulator.base_url(), &self.simulator.control().profile());
        let config = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        std::fs::write(&config, text).unwrap();
        let (_, config) = config.keep().unwrap();
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        GatewayProcess::from_process(KoregateProcess::start_binary(&version.binary(), &arguments, &environment)).await
    }

    fn new_windows(&mut self) -> Vec<Window> {
        let first = self.requested;
        self.requested += WINDOWS;
        (first..self.requested).map(hour).collect()
    }

    /// The number of runs that have fetched a part of a window, by the calls for their first pages.
    fn calls_for(&self, window: &Window) -> usize {
        let overlaps = |(from, to): &(Timestamp, Timestamp)| *from < window.end && *to >= window.from;
        // Both formats have the date in front of the time of day.
        let parse = |text: Option<String>| text.map(|text| at(&format!("{}T{}Z", &text[..10], &text[11..19])));
        let is_first_page = |offset: &Option<String>| offset.as_deref().is_none_or(|offset| offset == "0");
        let calls = self.simulator.control().calls().into_iter().filter(|call| is_first_page(&call.query.offset));
        let intervals = calls.filter_map(|call| parse(call.query.from).zip(parse(call.query.to)));
        intervals.filter(overlaps).count()
    }

    /// Requests windows at all replicas at once; the responses must be complete.
    async fn request(&self, replicas: &[&GatewayProcess], windows: &[Window]) {
        let control = self.simulator.control();
        let requests = windows.iter().flat_map(|window| replicas.iter().map(move |replica| (*replica, window)));
        let sending = requests
            .map(|(replica, window)| async move { (window, replica.get(format!("{}&limit=100", window.query)).await) });
        for (window, response) in join_all(sending).await {
            let items = control.expected_until(STREAM, window.from, window.end, false, &ItemFilter::default());
            let items: Vec<Vec<u8>> = items.into_iter().map(|(_, item)| item).collect();
            assert!(!items.is_empty());
            response.assert_complete(&items, &window.query);
        }
    }

    /// Requests new windows at all replicas at once, each of which must cost one call.
    async fn request_new(&mut self, replicas: &[&GatewayProcess]) -> Vec<Window> {
        let windows = self.new_windows();
        self.request(replicas, &windows).await;
        for window in &windows {
            assert_eq!(self.calls_for(window), 1, "{}", window.query);
        }
        windows
    }

    /// Purges windows at one replica, after which the other one must fetch them again.
    async fn assert_purge_reaches(&self, purging: &GatewayProcess, other: &GatewayProcess, windows: &[Window]) {
        let before: Vec<_> = windows.iter().map(|window| self.calls_for(window)).collect();
        for window in windows {
            let response = purge(purging, window).await;
            let report = response.json();
            assert_eq!(response.status, 200, "{report}");
            assert_eq!((&report["replicas"]["confirmed"], &report["complete"]), (&1.into(), &true.into()), "{report}");
        }
        self.request(&[other], windows).await;
        for (window, before) in windows.iter().zip(before) {
            assert_eq!(self.calls_for(window), before + 1, "{} after its purge", window.query);
        }
    }

    fn assert_limit_kept(&self) {
        let control = self.simulator.control();
        let most = control.max_in_any_window(LIMIT.1);
        assert!(most <= LIMIT.0, "{most} calls in {:?}", LIMIT.1);
        assert_eq!(control.counts().limited, 0, "the upstream refused calls");
    }
}

/// Updates a fleet of one replica of each version, of which `leader` is the version of the leader.
async fn assert_update_keeps_promises(leader: Version) {
    let follower = if leader == Version::Own { Version::Other } else { Version::Own };
    let mut fleet = Fleet::new().await;
    let first = fleet.start(leader, None).await;
    // The first replica is alone, so it becomes the leader.
    fleet.request_new(&[&first]).await;
    let second = fleet.start(follower, None).await;

    let windows = fleet.request_new(&[&first, &second]).await;
    fleet.assert_purge_reaches(&first, &second, &windows[..2]).await;
    fleet.assert_purge_reaches(&second, &first, &windows[2..4]).await;
    assert!(!has_detached(&first).await && !has_detached(&second).await, "the versions do not understand each other");

    // The replica of the other version is replaced by one of this version, while the remaining one is used.
    let (old, remaining) = if leader == Version::Other { (first, second) } else { (second, first) };
    let windows = fleet.new_windows();
    let replace = async {
        stop(old).await;
        fleet.start(Version::Own, None).await
    };
    let used = [&remaining];
    let (new, ()) = tokio::join!(replace, fleet.request(&used, &windows));
    let windows = fleet.request_new(&[&remaining, &new]).await;
    fleet.assert_purge_reaches(&remaining, &new, &windows[..2]).await;
    fleet.assert_purge_reaches(&new, &remaining, &windows[2..4]).await;
    assert!(!has_detached(&remaining).await && !has_detached(&new).await);
    fleet.assert_limit_kept();
}

#[tokio::test]
#[ignore = "needs KOREGATE_OTHER_BINARY"]
async fn update_from_leader_of_other_version_keeps_promises() {
    assert_update_keeps_promises(Version::Other).await;
}

#[tokio::test]
#[ignore = "needs KOREGATE_OTHER_BINARY"]
async fn update_from_follower_of_other_version_keeps_promises() {
    assert_update_keeps_promises(Version::Own).await;
}

#[tokio::test]
#[ignore = "needs KOREGATE_OTHER_BINARY"]
async fn versions_with_different_keys_share_the_quota() {
    for (leader, follower) in [(Version::Own, Version::Other), (Version::Other, Version::Own)] {
        let mut fleet = Fleet::new().await;
        let first = fleet.start(leader, Some("first-key")).await;
        fleet.request_new(&[&first]).await;
        let second = fleet.start(follower, Some("second-key")).await;
        // Each replica fetches for itself, the follower with permits of the leader.
        let windows = fleet.new_windows();
        fleet.request(&[&first, &second], &windows).await;
        assert!(has_detached(&second).await, "{follower:?} must not wait for values that it cannot read");
        for window in &windows {
            assert!(fleet.calls_for(window) <= 2, "{}", window.query);
        }
        fleet.assert_limit_kept();
    }
}
