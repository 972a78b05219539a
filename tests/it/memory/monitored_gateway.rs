//! A gateway process under attack, with bounds on its memory and continuous probes of its liveness.
//!
//! The product's bounds are on the resident set: 60 MB with `cache.memory = "32MiB"`, and 40 MB for connections. A
//! debug build maps twice the code of a release build, so the bound here excludes mapped files and [`RELEASE_CODE`].

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;

use crate::support::{GatewayProcess, HttpClient, KoregateProcess, TestRequest, TestResponse, environment};

pub(super) const MB: u64 = 1_000_000;
/// Upper bound with `cache.memory = "32MiB"` and few connections, in bytes.
const BASE_BOUND: u64 = 60 * MB;
/// Upper bound of connections beside it, in bytes.
const CONNECTIONS_BOUND: u64 = 40 * MB;
/// Resident code of a release build under load, in bytes.
const RELEASE_CODE: u64 = 10 * MB;
/// Longest time of a probe: a Kubernetes probe may take a second, three times, and the machine is busy.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the effect of an attack, on a busy machine.
const METRIC_DEADLINE: Duration = Duration::from_mins(3);
/// Pause between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// No call waits for the quota.
pub(super) const UNLIMITED: (&str, &str) =
    ("KOREGATE__ACCOUNTS__0__QUOTA", "{ limits = [{ requests = 1000000, per = '1m' }] }");

/// A gateway with `cache.memory = "32MiB"` whose memory and liveness are monitored.
pub(super) struct MonitoredGateway {
    gateway: GatewayProcess,
    probe: LivenessProbe,
}

/// A thread that requests `/livez` until it is stopped.
struct LivenessProbe {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
}

impl MonitoredGateway {
    /// Starts in front of the upstream at `base_url`, with more environment variables.
    pub(super) async fn start(base_url: &str, settings: &[(&'static str, &str)]) -> Self {
        Self::start_limited(base_url, settings, None).await
    }

    /// The same with a limit of open files, if given.
    pub(super) async fn start_limited(
        base_url: &str,
        settings: &[(&'static str, &str)],
        open_files: Option<u64>,
    ) -> Self {
        raise_open_files();
        let mut environment = environment(base_url);
        environment.push(("KOREGATE__CACHE__MEMORY", "32MiB".to_owned()));
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let process = KoregateProcess::start_limited(&["serve"], &environment, open_files);
        let gateway = GatewayProcess::from_process(process).await;
        let probe = LivenessProbe::start(gateway.admin_addr);
        Self { gateway, probe }
    }

    /// The address of the data plane.
    pub(super) fn addr(&self) -> SocketAddr {
        self.gateway.addr
    }

    /// The whole response; the connection must not break.
    pub(super) async fn send(&self, request: &TestRequest) -> TestResponse {
        self.gateway.send(request).await
    }

    /// Both outputs of the process so far.
    pub(super) fn output(&self) -> String {
        self.gateway.process.output()
    }

    /// Resident memory without mapped files, in bytes.
    pub(super) fn resident(&self) -> u64 {
        let process = &self.gateway.process;
        process.memory("VmRSS").saturating_sub(process.memory("RssFile"))
    }

    /// The peak of resident memory without the files that are mapped now, in bytes.
    fn peak_resident(&self) -> u64 {
        let process = &self.gateway.process;
        process.memory("VmHWM").saturating_sub(process.memory("RssFile"))
    }

    /// Waits until the sum of a metric over all series with `label` is at least `wanted`.
    pub(super) async fn until_metric(&self, name: &str, label: &str, wanted: u64) {
        let deadline = Instant::now() + METRIC_DEADLINE;
        loop {
            let sum = self.gateway.metrics().await.count(name, &[label]);
            if sum >= wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{name}{{{label}}} is {sum} instead of {wanted}");
            tokio::task::yield_now().await;
        }
    }

    /// Asserts that all probes were answered, and that memory stayed within the bounds, connections included.
    pub(super) fn assert_alive_within_bounds(self) {
        let peak = self.peak_resident();
        let answered = self.probe.stop();
        assert!(answered > 0, "no probe has ended");
        let bound = BASE_BOUND + CONNECTIONS_BOUND - RELEASE_CODE;
        assert!(peak <= bound, "{} MB were resident, and {} are allowed", peak / MB, bound / MB);
    }
}

impl LivenessProbe {
    fn start(admin_addr: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        // A thread and a runtime of its own, so that the test cannot delay a probe.
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut answered = 0;
            loop {
                runtime.block_on(assert_alive(admin_addr));
                answered += 1;
                if stopped.recv_timeout(PROBE_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return answered;
                }
            }
        });
        Self { stop, thread }
    }

    /// The number of answered probes; panics if one was not answered.
    fn stop(self) -> u64 {
        let _ = self.stop.send(());
        self.thread.join().unwrap()
    }
}

/// Asserts that `/livez` answers over a connection of its own, as a kubelet opens one.
async fn assert_alive(admin_addr: SocketAddr) {
    let client = HttpClient::default();
    let response = tokio::time::timeout(PROBE_TIMEOUT, client.get_path(admin_addr, "/livez")).await;
    assert_eq!(response.expect("/livez takes too long").status, 200);
}

/// A connection to `addr` from 127.0.0.`peer`, so that one test is several peers.
pub(super) async fn connect_from(peer: u8, addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, peer], 0).into())?;
    socket.connect(addr).await
}

/// Sends as much of `bytes` as the gateway accepts before it closes the connection.
pub(super) async fn send(connection: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() && connection.writable().await.is_ok() {
        match connection.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// All bytes until the connection is closed, or the error that ended it.
pub(super) async fn receive_all(connection: &TcpStream) -> std::io::Result<String> {
    let (mut received, mut bytes) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        connection.readable().await?;
        match connection.try_read(&mut bytes) {
            Ok(0) => return Ok(String::from_utf8(received).unwrap()),
            Ok(read) => received.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Raises the limit of open files of this process, which needs a socket for each connection of an attack.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
