//! Gateway processes that share a quota, and the measurement of what a fault does to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::load::{Answers, Callers, Load, profile};
use crate::support::{
    CertificateAuthority, Control, GatewayProcess, HttpClient, KOREGATE_BINARY, KoregateProcess, Lan, Metrics,
    Namespace, Network, RecordingProxy, Settings, Simulator, TestRequest, start_dated_simulator, until_polled,
};

/// Calls that the quota allows in [`WINDOW`].
pub(super) const LIMIT: usize = 16;
pub(super) const WINDOW: Duration = Duration::from_secs(2);
/// Replicas of a fleet, unless a test needs more.
pub(super) const REPLICAS: usize = 3;
/// What a replica that alone loses Redis uses beside the quota: its share, if one more replica may have started.
pub(super) const SHARE: usize = LIMIT / (REPLICAS + 1);
/// Concurrent callers of each replica: together more than the quota serves.
const CALLERS: usize = 8;
/// Time of an upstream call, so that calls are in flight when something ends.
const LATENCY: Duration = Duration::from_millis(50);
/// Longest wait for the end of a recovery.
const RECOVERY_LIMIT: Duration = Duration::from_mins(2);

/// The simulator, in a namespace if gateways are, where its calls come over TLS.
struct Upstream {
    simulator: Simulator,
    proxy: Option<(RecordingProxy, CertificateAuthority)>,
}

impl Upstream {
    /// Starts on loopback, or in `namespace`.
    async fn start(namespace: Option<&Arc<Namespace>>) -> Self {
        let (simulator, control) = start_dated_simulator(profile()).await;
        control.set_latency(LATENCY, LATENCY);
        let Some(namespace) = namespace else { return Self { simulator, proxy: None } };
        // A gateway sends its token in plain text to loopback only.
        let (authority, host) = (CertificateAuthority::new(), namespace.address(Lan::Upstream));
        let acceptor = authority.sign(&host).acceptor();
        let proxy = RecordingProxy::start_at(&host, simulator.addr(), Some(acceptor)).await;
        Self { simulator, proxy: Some((proxy, authority)) }
    }

    fn base_url(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.simulator.base_url(), |(proxy, _)| proxy.base_url())
    }

    fn settings(&self) -> Settings {
        let settings = Settings::default()
            .limits(&format!("[{{ requests = {LIMIT}, per = '{}s' }}]", WINDOW.as_secs()))
            .section("quota", "queue_timeout = '5s'")
            .section("upstream", "timeout = '5s'");
        match &self.proxy {
            Some((_, authority)) => {
                settings.section("upstream", &format!("ca_file = '{}'", authority.file().display()))
            }
            None => settings,
        }
    }
}

/// One gateway, which may be killed and started again.
pub(super) struct Replica {
    gateway: Option<GatewayProcess>,
    addr: watch::Sender<Option<SocketAddr>>,
    newest: Arc<AtomicU64>,
    /// Where its process and its callers are.
    runtime: Handle,
    /// In which namespace that is.
    pub(super) namespace: Option<Arc<Namespace>>,
}

impl Replica {
    fn new(namespace: Option<Arc<Namespace>>) -> Self {
        let runtime = namespace.as_ref().map_or_else(Handle::current, |namespace| namespace.handle());
        Self { gateway: None, addr: watch::Sender::new(None), newest: Arc::default(), runtime, namespace }
    }

    async fn start(&mut self, launch: Arc<Launch>) {
        let starting = async move {
            let arguments = ["serve", "--config", launch.config.to_str().unwrap()];
            let process = KoregateProcess::start_binary(Path::new(KOREGATE_BINARY), &arguments, &launch.environment);
            GatewayProcess::from_process(process).await
        };
        let gateway = self.runtime.spawn(starting).await.unwrap();
        self.addr.send_replace(Some(gateway.addr));
        self.gateway = Some(gateway);
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&mut self) {
        self.addr.send_replace(None);
        self.gateway = None;
    }

    /// The text of an admin page; `None` if the process does not run.
    async fn admin_page(&self, path: &'static str) -> Option<String> {
        let addr = self.gateway.as_ref()?.admin_addr;
        let request = async move { HttpClient::default().try_send(addr, &TestRequest::path_only(path)).await };
        self.runtime.spawn(request).await.unwrap().ok().map(|response| response.text().to_owned())
    }

    pub(super) async fn is_leader(&self) -> bool {
        let page = self.admin_page("/metrics").await;
        page.is_some_and(|page| Metrics::new(page).sum("koregate_fleet_role", &["role=\"calls\""]) > 0.5)
    }

    /// The `status` of `/readyz`.
    async fn readiness(&self) -> String {
        let page = self.admin_page("/readyz").await.unwrap_or_default();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        page["status"].as_str().unwrap_or_default().to_owned()
    }
}

/// How a gateway is started.
struct Launch {
    config: PathBuf,
    environment: Vec<(String, String)>,
    _dir: tempfile::TempDir,
}

/// Replicas on one Redis in front of one simulator, with callers that use the quota up.
pub(super) struct Fleet {
    pub(super) replicas: Vec<Replica>,
    pub(super) load: Arc<Load>,
    control: Control,
    callers: Vec<JoinHandle<()>>,
    launch: Arc<Launch>,
    _upstream: Upstream,
    /// The upstream's namespace.
    pub(super) upstream_namespace: Option<Arc<Namespace>>,
}

/// A fault that is being measured.
pub(super) struct Measurement {
    name: String,
    began: Instant,
    answers: Answers,
}

impl Fleet {
    /// Starts `count` replicas on loopback, and waits until they serve.
    pub(super) async fn start(redis_url: &str, count: usize) -> Self {
        Self::start_replicas(redis_url, Upstream::start(None).await, None, vec![None; count]).await
    }

    /// The same with the upstream and each replica in a namespace of its own.
    pub(super) async fn start_in(network: &Arc<Network>, redis_url: &str, count: usize) -> Self {
        let outside = network.attach(&[Lan::Upstream]);
        let namespace = outside.clone();
        let upstream = outside.handle().spawn(async move { Upstream::start(Some(&namespace)).await }).await.unwrap();
        let namespaces = (0..count).map(|_| Some(network.attach(&[Lan::Redis, Lan::Upstream]))).collect();
        Self::start_replicas(redis_url, upstream, Some(outside), namespaces).await
    }

    async fn start_replicas(
        redis_url: &str,
        upstream: Upstream,
        upstream_namespace: Option<Arc<Namespace>>,
        namespaces: Vec<Option<Arc<Namespace>>>,
    ) -> Self {
        let control = upstream.simulator.control();
        let (text, environment) = upstream.settings().redis(redis_url).render(&upstream.base_url(), &control.profile());
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("koregate.toml");
        std::fs::write(&config, text).unwrap();
        let launch = Arc::new(Launch { config, environment, _dir: dir });
        let load = Arc::new(Load::new(control.clone()));
        let replicas = namespaces.into_iter().map(Replica::new).collect();
        let (callers, upstream_namespace) = (Vec::new(), upstream_namespace);
        let mut fleet = Self { replicas, load, control, callers, launch, _upstream: upstream, upstream_namespace };
        for number in 0..fleet.replicas.len() {
            fleet.restart(number).await;
        }
        for replica in &fleet.replicas {
            let callers = Callers { addr: replica.addr.subscribe(), newest: replica.newest.clone() };
            for _ in 0..CALLERS {
                fleet.callers.push(replica.runtime.spawn(fleet.load.clone().call_repeatedly(callers.clone())));
            }
        }
        fleet.until_recovered().await;
        fleet
    }

    /// Starts a replica that was killed.
    pub(super) async fn restart(&mut self, number: usize) {
        self.replicas[number].start(self.launch.clone()).await;
    }

    /// The number of the replica that holds the lease.
    pub(super) async fn leader(&self) -> usize {
        let mut leader = None;
        until_polled("a leader", RECOVERY_LIMIT, async || {
            for (number, replica) in self.replicas.iter().enumerate() {
                if replica.is_leader().await {
                    leader = Some(number);
                }
            }
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// The number of a replica that does not hold the lease.
    pub(super) async fn follower(&self) -> usize {
        (self.leader().await + 1) % self.replicas.len()
    }

    /// Waits until each of `replicas` has served a request that began after this call.
    pub(super) async fn until_serving(&self, replicas: impl Iterator<Item = usize>) {
        let phase = self.load.begin_phase();
        for number in replicas {
            let newest = &self.replicas[number].newest;
            until_polled("a served window", RECOVERY_LIMIT, async || newest.load(Ordering::Relaxed) >= phase).await;
        }
    }

    /// Waits until each replica is ready and has served a request that began after this call; the time that this took.
    pub(super) async fn until_recovered(&self) -> Duration {
        let phase = self.load.begin_phase();
        until_polled("the recovery of all replicas", RECOVERY_LIMIT, async || {
            for replica in &self.replicas {
                if replica.newest.load(Ordering::Relaxed) < phase || replica.readiness().await != "ready" {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// Begins with a quota in full use.
    pub(super) async fn measure(&self, fault: impl Into<String>) -> Measurement {
        let measurement = Measurement { name: fault.into(), began: Instant::now(), answers: self.load.answers() };
        self.load.until_served(LIMIT as u64).await;
        measurement
    }

    /// Prints the row of a fault, and asserts that all answers were correct and that no window had more calls than
    /// `bound` over the limit. Returns the share of the quota that was used.
    #[track_caller]
    pub(super) fn finish(&self, measurement: Measurement, bound: usize, recovery: Duration) -> f64 {
        let Measurement { name, began, answers } = measurement;
        let most = self.control.max_in_any_window_of(WINDOW, |call| call.arrived >= began);
        let calls = self.control.calls().iter().filter(|call| call.arrived >= began).count();
        let over = most.saturating_sub(LIMIT);
        let windows = began.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let used = calls as f64 / (LIMIT as f64 * windows);
        let now = self.load.answers();
        println!(
            "| {name} | {over} of {LIMIT} | {bound} | {:.1} s | {:.0} % | {} | {} | {} |",
            recovery.as_secs_f64(),
            used * 100.0,
            now.served - answers.served,
            now.refused - answers.refused,
            now.broken - answers.broken,
        );
        self.load.assert_correct();
        assert!(over <= bound, "{name}: {most} calls in {WINDOW:?}, of which {LIMIT} and {bound} more are allowed");
        used
    }

    /// Ends the callers, none of which may have failed.
    pub(super) async fn stop(mut self) {
        for caller in std::mem::take(&mut self.callers) {
            if caller.is_finished() {
                caller.await.unwrap();
            } else {
                caller.abort();
            }
        }
        self.load.assert_correct();
    }
}
