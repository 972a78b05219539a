//! A simulator with a gateway in front of it, both in this process, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use koregate::quota::{CallScheduler, Role};
use koregate::server::Gateway;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{
    ACCOUNT, Clock, Control, HttpClient, ItemFilter, Metrics, NOW, OpenResponse, Profile, RecordingProxy, STREAM,
    Settings, Simulator, TestRequest, TestResponse, Timestamp, Window, at, exact_profile, settled_day_items,
    within_deadline,
};

/// A gateway, and a client that sends requests to it.
pub(crate) struct GatewayClient {
    pub(crate) server: Gateway,
    client: HttpClient,
}

impl GatewayClient {
    async fn start(base_url: &str, control: &Control, settings: &Settings, clock: &Clock) -> Self {
        let config = settings.load(base_url, &control.profile());
        let server = Gateway::start(&config, clock.clone()).await.unwrap();
        Self { server, client: HttpClient::default() }
    }

    /// The address of the data plane.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The whole response; the connection must not break.
    pub(crate) async fn send(&self, request: &TestRequest) -> TestResponse {
        self.client.send(self.addr(), request).await
    }

    /// `GET` of a window of [`STREAM`].
    pub(crate) async fn get(&self, query: impl Into<String>) -> TestResponse {
        self.send(&TestRequest::get(query)).await
    }

    /// The whole response, or the error that broke its connection.
    pub(crate) async fn try_send(&self, request: &TestRequest) -> anyhow::Result<TestResponse> {
        self.client.try_send(self.addr(), request).await
    }

    /// The head of the response, with a body that is still to be read.
    pub(crate) async fn open(&self, request: &TestRequest) -> OpenResponse {
        self.client.open(self.addr(), request).await.unwrap()
    }

    /// The responses to concurrent requests, in the order of the requests.
    pub(crate) async fn send_all(&self, requests: &[TestRequest]) -> Vec<TestResponse> {
        join_all(requests.iter().map(|request| self.send(request))).await
    }

    /// Fills the connection pool, so that later concurrent requests arrive together.
    pub(crate) async fn open_connections(&self, count: usize) {
        // A window in the future costs no upstream call.
        self.send_all(&vec![TestRequest::get("from=2030-01-01&to=2030-01-01"); count]).await;
    }

    /// Sends a request from a task of its own over a connection of its own; aborting the task disconnects the client.
    pub(crate) fn spawn(&self, request: TestRequest) -> JoinHandle<TestResponse> {
        let addr = self.addr();
        tokio::spawn(async move { HttpClient::default().send(addr, &request).await })
    }

    /// Purges; `query` is percent-encoded.
    pub(crate) async fn purge(&self, query: &str) -> TestResponse {
        self.send_admin(&TestRequest::get(query).method(Method::POST).path("/api/v1/purge")).await
    }

    /// Sends a request to the admin plane.
    pub(crate) async fn send_admin(&self, request: &TestRequest) -> TestResponse {
        self.client.send(self.server.admin_addr(), request).await
    }

    /// `GET` of a path of the admin plane.
    pub(crate) async fn get_admin(&self, path: &str) -> TestResponse {
        self.send_admin(&TestRequest::path_only(path)).await
    }

    /// `ready` or `degraded`, as `/readyz` says.
    pub(crate) async fn readiness(&self) -> String {
        self.get_admin("/readyz").await.json()["status"].as_str().unwrap().to_owned()
    }

    /// The metrics of the whole process.
    pub(crate) async fn metrics(&self) -> Metrics {
        self.client.metrics(self.server.admin_addr()).await
    }

    /// The call scheduler of [`ACCOUNT`].
    pub(crate) fn scheduler(&self) -> Arc<CallScheduler> {
        self.server.stack().handles.quotas.scheduler(ACCOUNT).unwrap()
    }

    /// The role of this replica in the lease of [`ACCOUNT`].
    pub(crate) fn role(&self) -> Role {
        self.scheduler().role().borrow().clone()
    }

    /// Whether this replica is the leader.
    pub(crate) fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// Waits until this replica is the leader; replicas that start later follow it.
    pub(crate) async fn until_leader(&self) {
        let mut role = self.scheduler().role();
        within_deadline("the lease", role.wait_for(|role| *role == Role::Leader)).await.unwrap();
    }

    /// Gives the lease of all accounts up, as a drain does.
    pub(crate) async fn release_lease(&self) {
        self.server.stack().handles.quotas.leave().await;
    }

    /// Calls that were spent on items of windows beyond the requested pages, and not yet deducted from savings.
    pub(crate) fn unsettled_calls(&self) -> u64 {
        self.scheduler().unsettled()
    }

    /// Bytes of the response cache.
    pub(crate) fn response_cache_bytes(&self) -> u64 {
        self.server.stack().handles.response_cache.bytes()
    }
}

/// A simulator and a gateway in front of it, with one clock for both.
pub(crate) struct TestHarness {
    pub(crate) clock: Clock,
    simulator: Option<Simulator>,
    pub(crate) control: Control,
    pub(crate) gateway: GatewayClient,
    base_url: String,
}

impl TestHarness {
    /// Starts both with a manual clock that stands at [`NOW`].
    pub(crate) async fn start(profile: Profile, settings: &Settings) -> Self {
        let clock = Clock::manual(at(NOW));
        let simulator_clock = clock.clone();
        let simulator = Simulator::start_with_clock(profile, move || simulator_clock.now().into()).await.unwrap();
        let (control, base_url) = (simulator.control(), simulator.base_url());
        let gateway = GatewayClient::start(&base_url, &control, settings, &clock).await;
        Self { clock, simulator: Some(simulator), control, gateway, base_url }
    }

    /// The same with default settings and exactly `items_per_day` items on each of `days` days.
    pub(crate) async fn start_exact(items_per_day: u32, days: u32) -> Self {
        Self::start(exact_profile(items_per_day, days), &Settings::default()).await
    }

    /// Reloads the gateway with `settings`. Returns whether they are in force.
    pub(crate) async fn reload(&self, settings: &Settings) -> bool {
        self.reload_replica(&self.gateway, settings).await
    }

    /// Reloads a gateway in front of the same simulator.
    pub(crate) async fn reload_replica(&self, gateway: &GatewayClient, settings: &Settings) -> bool {
        gateway.server.reload(settings.try_load(&self.base_url, &self.control.profile())).await
    }

    /// Starts one more gateway in front of the same simulator.
    pub(crate) async fn add_replica(&self, settings: &Settings) -> GatewayClient {
        self.add_replica_with_clock(settings, &self.clock).await
    }

    /// The same with a clock of its own.
    pub(crate) async fn add_replica_with_clock(&self, settings: &Settings, clock: &Clock) -> GatewayClient {
        GatewayClient::start(&self.base_url, &self.control, settings, clock).await
    }

    /// The same with its upstream calls passing through `proxy`.
    pub(crate) async fn add_replica_behind(&self, proxy: &RecordingProxy, settings: &Settings) -> GatewayClient {
        GatewayClient::start(&proxy.base_url(), &self.control, settings, &self.clock).await
    }

    /// The same on a runtime of its own: shutting that down kills the replica as if it were a process of its own.
    pub(crate) async fn add_replica_on(&self, runtime: &Handle, settings: &Settings) -> GatewayClient {
        let (base_url, control, clock, settings) =
            (self.base_url.clone(), self.control.clone(), self.clock.clone(), settings.clone());
        let starting = async move { GatewayClient::start(&base_url, &control, &settings, &clock).await };
        runtime.spawn(starting).await.unwrap()
    }

    /// A plain-text proxy in front of the simulator.
    pub(crate) async fn start_proxy(&self) -> RecordingProxy {
        RecordingProxy::start(self.upstream_addr(), None).await
    }

    /// The address of the simulator.
    pub(crate) fn upstream_addr(&self) -> SocketAddr {
        self.simulator.as_ref().unwrap().addr()
    }

    /// Stops the simulator: its port refuses connections from now on.
    pub(crate) async fn stop_upstream(&mut self) {
        if let Some(simulator) = self.simulator.take() {
            simulator.shutdown().await;
        }
    }

    /// Advances the clock.
    pub(crate) fn advance(&self, duration: Duration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// See [`GatewayClient::send`].
    pub(crate) async fn send(&self, request: &TestRequest) -> TestResponse {
        self.gateway.send(request).await
    }

    /// `GET` of a window of [`STREAM`].
    pub(crate) async fn get(&self, query: impl Into<String>) -> TestResponse {
        self.gateway.get(query).await
    }

    /// Upstream calls since the start or the last [`Control::reset_counts`].
    pub(crate) fn calls(&self) -> u64 {
        self.control.counts().total
    }

    /// Waits until so many upstream calls have arrived.
    pub(crate) async fn until_calls(&self, calls: u64) {
        super::until("upstream calls", || self.calls() >= calls).await;
    }

    /// The items of [`STREAM`] from `from` to `end` (exclusive): byte for byte, in the order of the contract.
    pub(crate) fn items(&self, from: Timestamp, end: Timestamp) -> Vec<Vec<u8>> {
        self.items_of(from, end, false, &ItemFilter::default())
    }

    /// The same with `agenticActivities`, or filtered.
    pub(crate) fn items_of(&self, from: Timestamp, end: Timestamp, agentic: bool, filter: &ItemFilter) -> Vec<Vec<u8>> {
        let items = self.control.expected_until(STREAM, from, end, agentic, filter);
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// The items of a window as of now.
    pub(crate) fn window_items(&self, window: &Window) -> Vec<Vec<u8>> {
        self.items(window.from, window.end.min(self.clock.now()))
    }

    /// The items of [`SETTLED_DAY`](super::SETTLED_DAY).
    pub(crate) fn settled_day(&self) -> Vec<Vec<u8>> {
        settled_day_items(&self.control)
    }

    /// Changes an item of the settled day upstream, so that responses from older copies differ.
    pub(crate) fn change_settled_day(&self) {
        let day =
            self.control.expected_until(STREAM, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
        assert!(self.control.touch(STREAM, &day[7].0));
    }
}
