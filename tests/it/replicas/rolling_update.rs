//! A rolling update between two versions, with real processes of both on one Redis.
//!
//! `KOREGATE_OTHER_BINARY` names the binary of the other version; see CONTRIBUTING.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use futures_util::future::join_all;
use koregate::window::Timestamp;
use koregate_simulator::{Control, Credential, ItemFilter, Profile, RollingLimit, Simulator, StreamProfile};

use crate::support::{RedisServer, at};

const STREAM: &str = "st-rolling";
/// Calls in two seconds.
const LIMIT: (usize, Duration) = (12, Duration::from_secs(2));
/// The first day of windows, long settled.
const FIRST_DAY: &str = "2026-01-02";
/// Windows of one phase: every other hour, so that none is fetched together with another.
const WINDOWS: u32 = 24;
/// How long anything may take on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A gateway of either version. Killed when dropped.
struct Replica {
    child: Child,
    addr: SocketAddr,
    admin_addr: SocketAddr,
}

/// The version that a replica runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Own,
    Other,
}

impl Version {
    fn binary(self) -> PathBuf {
        match self {
            Self::Own => env!("CARGO_BIN_EXE_koregate").into(),
            Self::Other => {
                std::env::var_os("KOREGATE_OTHER_BINARY").expect("KOREGATE_OTHER_BINARY names a binary").into()
            }
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replica {
    /// Stops the process as Kubernetes does, and waits for its end.
    async fn stop(mut self) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        assert_eq!(ended.await.unwrap().code(), Some(0));
    }

    async fn get(&self, window: Window) -> Response {
        let (from, to) = window.spelled();
        let path =
            format!("/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?from={from}&to={to}&limit=100");
        exchange(self.addr, "GET", &path).await
    }

    async fn purge(&self, window: Window) -> Response {
        let (from, to) = window.spelled();
        exchange(self.admin_addr, "POST", &format!("/api/v1/purge?stream={STREAM}&from={from}&to={to}")).await
    }

    /// The lines of a metric.
    async fn metric_lines(&self, name: &str) -> String {
        let metrics = String::from_utf8(exchange(self.admin_addr, "GET", "/metrics").await.body).unwrap();
        metrics.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
    }

    /// Whether the replica found a leader with which it cannot exchange data.
    async fn has_detached(&self) -> bool {
        !self.metric_lines("koregate_fleet_apart_total").await.is_empty()
    }
}

struct Response {
    status: u16,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One request on a connection of its own.
async fn exchange(addr: SocketAddr, method: &'static str, path: &str) -> Response {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let receive = move || {
        let mut connection = TcpStream::connect(addr).unwrap();
        connection.set_read_timeout(Some(TIMEOUT)).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).unwrap();
        received
    };
    let received = tokio::task::spawn_blocking(receive).await.unwrap();
    let head_end = received.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(received[..head_end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = received[head_end + 4..].to_vec();
    let body = if head.contains("transfer-encoding: chunked") { dechunked(&body) } else { body };
    Response { status, body }
}

/// The content of a chunked body.
fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let line_end = body.windows(2).position(|end| end == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..line_end]).unwrap(), 16).unwrap();
        if length == 0 {
            return content;
        }
        content.extend_from_slice(&body[line_end + 2..line_end + 2 + length]);
        body = &body[line_end + length + 4..];
    }
}

/// One hour.
#[derive(Clone, Copy, Debug)]
struct Window(u32);

impl Window {
    fn start(self) -> Timestamp {
        at(FIRST_DAY) + Duration::from_hours(2 * u64::from(self.0))
    }

    /// The last second, since `to` is inclusive.
    fn last(self) -> Timestamp {
        self.start() + Duration::from_secs(3599)
    }

    fn spelled(self) -> (String, String) {
        let spelled = |at: Timestamp| at.to_string().trim_end_matches('Z').to_owned();
        (spelled(self.start()), spelled(self.last()))
    }
}

struct Fleet {
    redis: RedisServer,
    control: Control,
    base_url: String,
    dir: tempfile::TempDir,
    /// Windows that were requested before.
    used: u32,
    _simulator: Simulator,
}

impl Fleet {
    async fn new() -> Self {
        let stream = StreamProfile { exact: true, flat: true, ..StreamProfile::new(STREAM, 480) };
        let profile = Profile {
            streams: vec![stream],
            days: 40,
            end: Some(at("2026-02-01").to_timestamp()),
            rate_limits: vec![RollingLimit::new(LIMIT.0, LIMIT.1)].into(),
            ..Profile::default()
        };
        let simulator = Simulator::start(profile).await.unwrap();
        let (control, base_url, dir) = (simulator.control(), simulator.base_url(), tempfile::tempdir().unwrap());
        Self { redis: RedisServer::start(), control, base_url, dir, used: 0, _simulator: simulator }
    }

    /// Starts a replica, with a key for Redis if one is given, and waits until it listens.
    async fn start(&self, version: Version, key: Option<&str>) -> Replica {
        let Credential { account_id, client_id, client_secret } = Credential::default();
        let key = key.map_or_else(String::new, |key| {
            let path = self.dir.path().join(key);
            std::fs::write(&path, format!("{key}-{}", "0".repeat(64))).unwrap();
            format!(", encryption_key = {{ file = '{}' }}", path.display())
        });
        let text = format!(
            "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n\
             [upstream]\nbase_url = '{}'\n\
             [[accounts]]\naccount_id = '{account_id}'\nclient_id = '{client_id}'\n\
             client_secret = {{ env = 'KORE_CLIENT_SECRET' }}\n\
             quota = {{ limits = [{{ requests = {}, per = '2s' }}, {{ requests = 100000, per = '1h' }}] }}\n\
             [cache]\nredis = {{ url = '{}', timeout = '1s'{key} }}\n",
            self.base_url,
            LIMIT.0,
            self.redis.url(),
        );
        let config = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        std::fs::write(&config, text).unwrap();
        let (_, config) = config.keep().unwrap();
        let mut child = Command::new(version.binary())
            .args(["serve", "--config", config.to_str().unwrap()])
            .env_clear()
            .env("KORE_CLIENT_SECRET", client_secret)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
            });
        }
        drop(sender);
        let listening = tokio::task::spawn_blocking(move || {
            let addrs = |line: String| {
                let line: serde_json::Value = serde_json::from_str(&line).ok()?;
                let addr = |name: &str| line[name].as_str()?.parse().ok();
                (line["message"] == "listening").then(|| addr("addr").zip(addr("admin_addr")))?
            };
            let found = lines.iter().find_map(addrs).expect("a line that says where it listens");
            // The process must not be stopped by a full pipe.
            std::thread::spawn(move || lines.iter().for_each(drop));
            found
        });
        let (addr, admin_addr) = listening.await.unwrap();
        Replica { child, addr, admin_addr }
    }

    fn new_windows(&mut self) -> Vec<Window> {
        let first = self.used;
        self.used += WINDOWS;
        (first..self.used).map(Window).collect()
    }

    /// How many runs have fetched a part of a window: calls for their first pages.
    fn calls_for(&self, window: Window) -> usize {
        let overlaps = |(from, to): (Timestamp, Timestamp)| from <= window.last() && to >= window.start();
        // In whatever format it is written, the date is before the time of day, without a fraction.
        let parse = |text: Option<String>| text.map(|text| at(&format!("{}T{}Z", &text[..10], &text[11..19])));
        let is_first_page = |offset: &Option<String>| offset.as_deref().is_none_or(|offset| offset == "0");
        let calls = self.control.calls().into_iter().filter(|call| is_first_page(&call.query.offset));
        let spans = calls.filter_map(|call| parse(call.query.from).zip(parse(call.query.to)));
        spans.filter(|span| overlaps(*span)).count()
    }

    /// Requests windows at all replicas at once. Answers must be right.
    async fn request(&self, replicas: &[&Replica], windows: &[Window]) {
        let requests = windows.iter().flat_map(|window| replicas.iter().map(|replica| (*replica, *window)));
        let answers = requests.map(|(replica, window)| async move { (window, replica.get(window).await) });
        for (window, response) in join_all(answers).await {
            let text = String::from_utf8_lossy(&response.body).into_owned();
            assert_eq!(response.status, 200, "{window:?}: {text}");
            let end = window.last().next_tick();
            let expected = self.control.expected_until(STREAM, window.start(), end, false, &ItemFilter::default());
            let items: Vec<_> = expected.iter().map(|(_, item)| std::str::from_utf8(item).unwrap()).collect();
            assert!(!items.is_empty());
            let (count, data) = (items.len(), items.join(","));
            assert_eq!(text, format!(r#"{{"numResults":{count},"hasMore":false,"data":[{data}]}}"#), "{window:?}");
        }
    }

    /// Requests windows at all replicas at once, and checks that each was fetched once.
    async fn request_new(&mut self, replicas: &[&Replica]) -> Vec<Window> {
        let windows = self.new_windows();
        self.request(replicas, &windows).await;
        for window in &windows {
            assert_eq!(self.calls_for(*window), 1, "{window:?}");
        }
        windows
    }

    /// Purges windows at one replica, after which the other one must fetch them again.
    async fn check_purge(&self, at: &Replica, other: &Replica, windows: &[Window]) {
        let before: Vec<_> = windows.iter().map(|window| self.calls_for(*window)).collect();
        for window in windows {
            let response = at.purge(*window).await;
            let report = response.json();
            assert_eq!(response.status, 200, "{report}");
            assert_eq!((&report["replicas"]["confirmed"], &report["complete"]), (&1.into(), &true.into()), "{report}");
        }
        self.request(&[other], windows).await;
        for (window, before) in windows.iter().zip(before) {
            assert_eq!(self.calls_for(*window), before + 1, "{window:?} after its purge");
        }
    }

    fn assert_quota_kept(&self) {
        let most = self.control.max_in_any_window(LIMIT.1);
        assert!(most <= LIMIT.0, "{most} calls in {:?}", LIMIT.1);
        assert_eq!(self.control.counts().limited, 0, "the upstream refused calls");
    }
}

/// Updates a fleet of one replica of each version, of which `leader` is the version of the leader.
async fn update_fleet(leader: Version) {
    let follower = if leader == Version::Own { Version::Other } else { Version::Own };
    let mut fleet = Fleet::new().await;
    let first = fleet.start(leader, None).await;
    // With nothing but itself, the first replica takes the lease.
    fleet.request_new(&[&first]).await;
    let second = fleet.start(follower, None).await;

    let windows = fleet.request_new(&[&first, &second]).await;
    fleet.check_purge(&first, &second, &windows[..2]).await;
    fleet.check_purge(&second, &first, &windows[2..4]).await;
    assert!(!first.has_detached().await && !second.has_detached().await, "the versions do not understand each other");

    // The replica of the other version is replaced by one of this version, while the one that stays is used.
    let (old, stays) = if leader == Version::Other { (first, second) } else { (second, first) };
    let windows = fleet.new_windows();
    let remaining = [&stays];
    let new = {
        let (replaced, ()) = tokio::join!(
            async {
                old.stop().await;
                fleet.start(Version::Own, None).await
            },
            fleet.request(&remaining, &windows),
        );
        replaced
    };
    let windows = fleet.request_new(&[&stays, &new]).await;
    fleet.check_purge(&stays, &new, &windows[..2]).await;
    fleet.check_purge(&new, &stays, &windows[2..4]).await;
    assert!(!stays.has_detached().await && !new.has_detached().await);
    fleet.assert_quota_kept();
}

#[tokio::test]
#[ignore = "needs KOREGATE_OTHER_BINARY"]
async fn update_from_leader_of_other_version_keeps_promises() {
    update_fleet(Version::Other).await;
}

#[tokio::test]
#[ignore = "needs KOREGATE_OTHER_BINARY"]
async fn update_from_follower_of_other_version_keeps_promises() {
    update_fleet(Version::Own).await;
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
        // On a machine that stalls, the lease may have changed hands.
        let roles = [first.metric_lines("koregate_fleet_role").await, second.metric_lines("koregate_fleet_role").await];
        assert!(first.has_detached().await || second.has_detached().await, "{leader:?}: {roles:#?}");
        for window in &windows {
            assert!(fleet.calls_for(*window) <= 2, "{window:?}");
        }
        fleet.assert_quota_kept();
    }
}
