//! Replicas on one Redis, of which one is elected leader and makes all upstream calls.

use std::time::Duration;

use futures_util::future::join_all;
use koregate::quota::Role;
use tokio::runtime::{Builder, Runtime};

use crate::support::{
    GatewayClient, Profile, RedisServer, Settings, TestHarness, TestRequest, TestResponse, UpperBound, Window, at,
    pages_of, until,
};

/// A gateway on a runtime of its own.
pub(super) struct Replica {
    pub(super) gateway: GatewayClient,
    runtime: Option<Runtime>,
}

impl Replica {
    async fn start(harness: &TestHarness, settings: &Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let gateway = harness.add_replica_on(runtime.handle(), settings).await;
        Self { gateway, runtime: Some(runtime) }
    }

    /// Whether no leader is known yet.
    pub(super) fn is_undecided(&self) -> bool {
        self.gateway.role() == Role::Unknown
    }

    fn follows(&self, leader: &Self) -> bool {
        let leader = leader.gateway.server.stack().handles.mailbox.as_ref().unwrap().me();
        matches!(self.gateway.role(), Role::Follower(id) if id == *leader)
    }

    /// Ends the replica as a killed process ends.
    pub(super) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Replicas on one Redis. The gateway of the harness is not one of them.
pub(super) struct ReplicaSet {
    pub(super) redis: RedisServer,
    pub(super) harness: TestHarness,
    /// The leader, and behind it the followers.
    pub(super) replicas: Vec<Replica>,
}

impl ReplicaSet {
    /// Starts `count` replicas, the first of which becomes the leader.
    pub(super) async fn start(profile: Profile, settings: Settings, count: usize) -> Self {
        let redis = RedisServer::start();
        let settings = settings.redis(&redis.url());
        Self::start_with(redis, profile, &vec![settings; count]).await
    }

    /// Starts a replica with each of `settings`, the first of which becomes the leader.
    pub(super) async fn start_with(redis: RedisServer, profile: Profile, settings: &[Settings]) -> Self {
        let harness = TestHarness::start(profile, &Settings::default()).await;
        let mut set = Self { redis, harness, replicas: Vec::new() };
        for settings in settings {
            let replica = Replica::start(&set.harness, settings).await;
            set.replicas.push(replica);
            if set.replicas.len() == 1 {
                set.until_settled().await;
            }
        }
        set.until_settled().await;
        set
    }

    /// Starts all replicas at once, so that any of them may be elected.
    pub(super) async fn start_together(profile: Profile, settings: Settings, count: usize) -> Self {
        let mut set = Self::start_undecided(profile, settings, count).await;
        set.until_settled().await;
        set
    }

    /// The same without waiting for an election.
    pub(super) async fn start_undecided(profile: Profile, settings: Settings, count: usize) -> Self {
        let redis = RedisServer::start();
        let settings = settings.redis(&redis.url());
        let harness = TestHarness::start(profile, &Settings::default()).await;
        let replicas = join_all((0..count).map(|_| Replica::start(&harness, &settings))).await;
        Self { redis, harness, replicas }
    }

    /// Waits until one replica is the leader, all others follow it, and all listen; moves the leader to the front.
    async fn until_settled(&mut self) {
        let mut leader = 0;
        until("an elected leader", || {
            let Some(elected) = self.replicas.iter().position(|replica| replica.gateway.is_leader()) else {
                return false;
            };
            leader = elected;
            let others = self.replicas.iter().enumerate().filter(|(number, _)| *number != elected);
            let listening = self.redis.query(&["PUBSUB", "CHANNELS", "*:to:*"]).split_whitespace().count();
            others.map(|(_, other)| other).all(|other| other.follows(&self.replicas[elected]))
                && listening >= self.replicas.len()
        })
        .await;
        self.replicas.swap(0, leader);
    }

    /// The replica that makes the calls.
    pub(super) fn leader(&self) -> &GatewayClient {
        &self.replicas[0].gateway
    }

    /// One of the followers, counted from 0.
    pub(super) fn follower(&self, number: usize) -> &GatewayClient {
        &self.replicas[1 + number].gateway
    }

    /// Waits until exactly `calls` calls wait for the quota at the leader.
    pub(super) async fn until_waiting(&self, calls: usize) {
        until("waiting calls", || self.leader().scheduler().queue_length() == calls).await;
    }

    /// Sends requests concurrently, each to the next replica in turn.
    pub(super) async fn send_all(&self, requests: &[TestRequest]) -> Vec<TestResponse> {
        let gateway = |number: usize| &self.replicas[number % self.replicas.len()].gateway;
        join_all(requests.iter().enumerate().map(|(number, request)| gateway(number).send(request))).await
    }

    /// The same for windows; asserts that all responses are complete.
    pub(super) async fn get_all(&self, windows: &[Window]) -> Vec<TestResponse> {
        let responses = self.send_all(&window_requests(windows)).await;
        for (window, response) in windows.iter().zip(&responses) {
            response.assert_complete(&self.harness.window_items(window), &window.query);
        }
        responses
    }

    /// Fills the connection pools, so that later concurrent requests arrive together.
    pub(super) async fn open_connections(&self, count: usize) {
        // A window in the future costs no upstream call.
        self.send_all(&vec![TestRequest::get("from=2030-01-01&to=2030-01-01"); count]).await;
    }

    /// The fewest calls that fetch all from the first of these windows to the end of the last.
    pub(super) fn fewest_calls(&self, windows: &[Window]) -> u64 {
        let (first, last) = (windows.first().unwrap(), windows.last().unwrap());
        pages_of(self.harness.items(first.from, last.end).len())
    }

    /// The keys of values that the leader hands over to a follower.
    pub(super) fn handover_keys(&self) -> String {
        self.redis.query(&["KEYS", "*passing*"])
    }

    /// Runs `lua` for each `key` with chunks, those of handovers included; the number of keys, unless `lua` returns
    /// something else.
    pub(super) fn for_each_key(&self, lua: &str) -> String {
        let script = format!(
            "local n = 0 for _, pattern in ipairs({{'koregate:c*', '*:passing:*'}}) do \
             for _, key in ipairs(redis.call('keys', pattern)) do n = n + 1 {lua} end end return n"
        );
        self.redis.query(&["EVAL", &script, "0"])
    }
}

/// A request for each window.
pub(super) fn window_requests(windows: &[Window]) -> Vec<TestRequest> {
    windows.iter().map(|window| TestRequest::get(&window.query)).collect()
}

/// Windows of five hours, each seventeen minutes after the one before.
pub(super) fn overlapping_windows(count: u32) -> Vec<Window> {
    let window = |number: u32| {
        let from = at("2026-02-23") + Duration::from_mins(17) * number;
        Window::seconds(from, from + Duration::from_hours(5), UpperBound::Inclusive)
    };
    (0..count).map(window).collect()
}
