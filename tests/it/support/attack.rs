//! A gateway as a process of its own, for tests that attack it: what it takes of memory, and whether it lives.
//!
//! The product's bound is on the resident set: 60 MB with `cache.memory = "32MiB"`, and 40 MB more for connections. A debug
//! build maps twice the code of a release build, so the bound here is on what is resident beside mapped files: the bound of
//! the product less [`RELEASE_CODE`], the code that is resident of a release build.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;

use super::{Ask, Client};
use crate::process::{Running, environment};

pub(crate) const MB: u64 = 1_000_000;
/// What the gateway may take with `cache.memory = "32MiB"` and few connections, in bytes.
const BOUND: u64 = 60 * MB;
/// What connections may take beside it, in bytes.
const CONNECTIONS_BOUND: u64 = 40 * MB;
/// Code of a release build that is resident under load, in bytes.
const RELEASE_CODE: u64 = 10 * MB;
/// How long `/livez` may take: the default of a Kubernetes probe is a second, three times, and this machine is busy.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an attack may take to be told of in the metrics, on a busy machine.
const METRIC_TIMEOUT: Duration = Duration::from_mins(3);
/// Pause between two probes of `/livez`.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(20);

/// A gateway with `cache.memory = "32MiB"` that is under attack.
pub(crate) struct Target {
    process: Running,
    /// Where callers come in.
    pub(crate) addr: SocketAddr,
    /// Where operators come in.
    admin_addr: SocketAddr,
    liveness: Liveness,
}

/// Asks for `/livez` until it is told to stop.
struct Liveness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Target {
    /// A gateway before the upstream at `base_url`, with more variables of its environment, such as
    /// `("KOREGATE__SERVER__DRAIN_TIMEOUT", "1s")`, and with at most so many open files if there is a number. From now on it
    /// is probed all the time.
    pub(crate) async fn start(base_url: &str, settings: &[(&'static str, &str)], open_files: Option<u64>) -> Self {
        raise_open_files();
        let mut environment = environment(base_url);
        environment.push(("KOREGATE__CACHE__MEMORY", "32MiB".to_owned()));
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let mut process = Running::start_limited(&["serve"], &environment, open_files);
        let (addr, admin_addr) = process.listening().await;
        Self { process, addr, admin_addr, liveness: Liveness::start(admin_addr) }
    }

    /// All that it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.process.printed()
    }

    /// What is resident now, beside mapped files, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.process.memory("VmRSS").saturating_sub(self.process.memory("RssFile"))
    }

    /// The most that was ever resident, beside the files that are mapped now, in bytes.
    pub(crate) fn peak_resident(&self) -> u64 {
        self.process.memory("VmHWM").saturating_sub(self.process.memory("RssFile"))
    }

    /// Waits until a metric, summed over all series with `label`, such as `outcome="miss"`, is at least `wanted`.
    pub(crate) async fn until_metric(&self, name: &str, label: &str, wanted: u32) {
        let begun = Instant::now();
        loop {
            let metrics = Client::default().send(self.admin_addr, &Ask::get("").path("/metrics")).await.unwrap();
            let series = metrics.text().lines().filter(|line| line.starts_with(name) && line.contains(label));
            let sum: f64 = series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
            if sum >= f64::from(wanted) {
                return;
            }
            assert!(begun.elapsed() < METRIC_TIMEOUT, "{name}{{{label}}} is {sum}, not {wanted}");
            tokio::task::yield_now().await;
        }
    }

    /// Asserts that the gateway has answered each probe so far, and never took more than it may, connections included.
    pub(crate) fn assert_held(self) {
        let peak = self.peak_resident();
        let answers = self.liveness.stop();
        assert!(answers > 0, "no probe has ended");
        let bound = BOUND + CONNECTIONS_BOUND - RELEASE_CODE;
        assert!(peak <= bound, "{} MB were resident, and {} are allowed", peak / MB, bound / MB);
    }
}

impl Liveness {
    fn start(admin_addr: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        // A thread of its own: what the test does must not hold up a probe.
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut answers = 0;
            while !stopped.load(Ordering::Relaxed) {
                runtime.block_on(assert_alive(admin_addr));
                answers += 1;
                std::thread::sleep(LIVENESS_INTERVAL);
            }
            answers
        });
        Self { stop, thread }
    }

    /// How many probes were answered; panics if one was not.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Asserts that `/livez` answers, over a connection of its own, as a kubelet opens one.
async fn assert_alive(admin_addr: SocketAddr) {
    let (client, probe) = (Client::default(), Ask::get("").path("/livez"));
    let answer = tokio::time::timeout(LIVENESS_TIMEOUT, client.send(admin_addr, &probe)).await;
    assert_eq!(answer.expect("/livez takes too long").unwrap().status, 200);
}

/// A connection to `addr` from 127.0.0.`peer`, so that a test can be many peers.
pub(crate) async fn connect_from(peer: u8, addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, peer], 0).into())?;
    socket.connect(addr).await
}

/// Sends as much of `bytes` as the gateway takes before it closes the connection.
pub(crate) async fn send(connection: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() && connection.writable().await.is_ok() {
        match connection.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// All that comes over a connection until it is closed.
///
/// # Errors
/// If it does not end in order.
pub(crate) async fn receive_all(connection: &TcpStream) -> std::io::Result<String> {
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

/// Lets this process have as many open files as it may: an attacker needs a socket for each connection.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
