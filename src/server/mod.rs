//! The server: starts the stack on its listeners, and the graceful drain that ends it without breaking a response off.
//!
//! - `listener` accepts connections and serves them; `tls` makes the acceptor of its TLS,
//! - `certificate_validity` says how long a certificate is valid, `peer_certificate` what a request needs to know of a client's,
//! - `connections` limits connections, `open_files` raises the limit of open files that bounds them,
//! - `head_meter` limits the memory of request heads,
//! - `stalled_writes` limits the memory of responses that clients do not read; `metered` counts at the stream for both,
//! - `zero_copy` sends large responses from memory without a copy,
//! - `linger` closes connections whose clients are still sending,
//! - `preflight` says whether a gateway can start with a configuration, `reload` replaces the one in force,
//! - `heap` returns memory to the system after a peak.

mod certificate_validity;
mod connections;
mod head_meter;
mod heap;
mod linger;
mod listener;
mod metered;
mod open_files;
mod peer_certificate;
mod preflight;
mod reload;
mod stalled_writes;
mod tls;
mod zero_copy;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connections::ConnectionLimits;
use self::listener::{Limits, Listener};
use self::stalled_writes::StalledWrites;
use self::tls::TlsListener;
use crate::admin::{Admin, AdminService, MetricsService};
use crate::api::RequestMemory;
use crate::clock::Clock;
use crate::config::{Config, FaultyKey, ServerLimits, ServerTlsConfig};
use crate::live::Live;
use crate::stack::Stack;
use crate::telemetry;

/// The longest that aborted connections may take to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that the end of the process waits for spans, the audit log and chunks: more than each of them waits by itself, which
/// may need a thread that is not free.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum connections of the admin listener.
const MAX_ADMIN_CONNECTIONS: usize = 64;
/// Maximum connections of the admin listener from one address, so that some are left for probes.
const MAX_ADMIN_CONNECTIONS_PER_PEER: usize = 16;
/// Bytes of memory that a connection uses, with the buffers of a request.
const BYTES_PER_CONNECTION: u64 = 12 << 10;
/// Maximum bytes of memory for large heads and bodies of the admin listener.
const ADMIN_REQUEST_MEMORY: u64 = 1 << 20;
/// Maximum bytes of memory for responses of the admin listener that clients do not read.
const ADMIN_SEND_MEMORY: u64 = 16 << 20;

pub use self::certificate_validity::Validity;
pub use self::preflight::preflight;
pub use self::reload::{Reloader, WATCH_INTERVAL};

/// The validity of the gateway's certificate, after everything that the start of the gateway checks of its TLS.
///
/// # Errors
/// If a file cannot be read, the key does not fit the certificate, or the certificate cannot be parsed.
pub fn certificate_validity(config: &ServerTlsConfig) -> anyhow::Result<Validity> {
    validity_at(config, TlsListener::Callers)
}

fn validity_at(config: &ServerTlsConfig, listener: TlsListener) -> anyhow::Result<Validity> {
    tls::acceptor(config, listener)?;
    let [key, ..] = listener.keys();
    Validity::of(&tls::certificate(config)?)
        .context("the certificate cannot be parsed")
        .with_context(|| FaultyKey { key, subject: config.cert.display().to_string() })
}

/// A gateway that runs until it is drained.
pub struct Gateway {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    stack: Stack,
    admin: Admin,
    data: ConnectionGroup,
    operators: ConnectionGroup,
    clock: Clock,
    /// The configuration in force. Held while it is reloaded.
    config: Mutex<Config>,
    /// The TLS of the next handshakes; `None` if callers are served in plain HTTP.
    tls: Option<Live<TlsAcceptor>>,
    /// The same for operators.
    admin_tls: Option<Live<TlsAcceptor>>,
}

/// The connections of one listener, and the tokens that end them.
#[derive(Default)]
struct ConnectionGroup {
    closing: CancellationToken,
    aborting: CancellationToken,
    connections: TaskTracker,
}

impl ConnectionGroup {
    /// Binds `addr`, which the configuration sets as `key`. Connections whose peers acknowledge nothing for
    /// `send_timeout` are cut.
    ///
    /// # Errors
    /// If the socket cannot be bound.
    async fn listen(
        &self,
        key: &str,
        addr: SocketAddr,
        limits: Limits,
        send_timeout: Duration,
    ) -> anyhow::Result<Listener> {
        let socket = TcpListener::bind(addr).await.with_context(|| format!("{key}: {addr} cannot be listened on"))?;
        zero_copy::set_send_timeout(&socket, send_timeout).context("server.send_timeout cannot be set")?;
        let (closing, aborting) = (self.closing.clone(), self.aborting.clone());
        Ok(Listener { socket, tls: None, limits, closing, aborting, tracker: self.connections.clone() })
    }
}

impl Gateway {
    /// Builds the stack, binds both listeners, and serves.
    ///
    /// # Errors
    /// If a socket cannot be bound, or certificates cannot be loaded.
    pub async fn start(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        // Before the first event, which would be lost.
        telemetry::init_metrics();
        let (data, operators) = (ConnectionGroup::default(), ConnectionGroup::default());
        let stack = Stack::new(config, &clock.clone().into())?;
        let tls = tls::acceptor_of(config.server.tls.as_ref(), TlsListener::Callers)?.map(Live::new);
        let admin_tls = tls::acceptor_of(config.admin.tls.as_ref(), TlsListener::Operators)?.map(Live::new);
        tls::report_expiries(config.server.tls.as_ref(), config.admin.tls.as_ref());
        let (server, send_timeout) = (&config.server, config.server.limits.send_timeout);
        let limits = limits(config, &stack.handles.request_memory);
        let admin_limits = Limits {
            connections: ConnectionLimits::new(MAX_ADMIN_CONNECTIONS, MAX_ADMIN_CONNECTIONS_PER_PEER),
            request_memory: RequestMemory::new(ADMIN_REQUEST_MEMORY),
            stalled_writes: StalledWrites::new(ADMIN_SEND_MEMORY),
            ..limits
        };
        let metrics_limits = Limits {
            connections: ConnectionLimits::new(MAX_ADMIN_CONNECTIONS, MAX_ADMIN_CONNECTIONS_PER_PEER),
            ..admin_limits.clone()
        };
        let listener =
            Listener { tls: tls.clone(), ..data.listen("server.listen", server.listen, limits, send_timeout).await? };
        let admin_listener =
            operators.listen("server.admin_listen", server.admin_listen, admin_limits, send_timeout).await?;
        let admin_listener = Listener { tls: admin_tls.clone(), ..admin_listener };
        let (addr, admin_addr) = (listener.addr()?, admin_listener.addr()?);
        let admin = Admin::new(&stack.handles, config, clock.clone());
        stack.handles.register_metrics();
        admin.set_data_addr(addr);
        if let Some(metrics_addr) = server.metrics_listen {
            let listener =
                operators.listen("server.metrics_listen", metrics_addr, metrics_limits, send_timeout).await?;
            let (addr, admin) = (listener.addr()?, admin.clone());
            tokio::spawn(listener.serve(move |_| MetricsService(admin.clone())));
            tracing::info!(%addr, "listening for metrics");
        }
        tokio::spawn(admin.clone().observe_until(operators.closing.clone()));
        let (admin_service, service) = (admin.clone(), stack.service.clone());
        tokio::spawn(admin_listener.serve(move |peer| AdminService::new(admin_service.clone(), peer)));
        tokio::spawn(listener.serve(move |peer| service.clone().with_peer(peer)));
        let (connections, memory) = (data.connections.clone(), stack.handles.cache.memory.clone());
        let bytes_in_use = move || connections.len() as u64 * BYTES_PER_CONNECTION + memory.pinned_bytes();
        tokio::spawn(heap::trim_after_peaks(bytes_in_use, data.closing.clone()));
        admin.set_ready();
        tracing::info!(%addr, %admin_addr, "listening");
        let config = Mutex::new(config.clone());
        Ok(Self { addr, admin_addr, stack, admin, data, operators, clock, config, tls, admin_tls })
    }

    /// The address of the listener for callers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the admin listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The stages.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Stops accepting connections, and waits at most `server.drain_timeout` for the responses under way. The rest are
    /// cut, and logged as `drained`. Returns whether all ended in time.
    pub async fn drain(self) -> bool {
        self.admin.set_draining();
        self.data.closing.cancel();
        self.data.connections.close();
        tracing::info!(connections = self.data.connections.len(), "draining");
        let drain_timeout = self.config.lock().await.server.drain_timeout;
        let drained = tokio::time::timeout(drain_timeout, self.data.connections.wait()).await.is_ok();
        if !drained {
            tracing::warn!(connections = self.data.connections.len(), "some answers did not end in time");
            self.stack.handles.ends.drain_timeout.expire();
            self.data.aborting.cancel();
            // Each connection ends, and logs its request, when it is polled. A task that is not polled must not block.
            let _ = tokio::time::timeout(ABORT_TIMEOUT, self.data.connections.wait()).await;
        }
        // Other replicas adopt what is not finished.
        self.stack.handles.jobs.leave().await;
        // This replica makes no more calls, so another one may take over the lease.
        self.stack.handles.quotas.leave().await;
        if tokio::time::timeout(FLUSH_TIMEOUT, self.stack.handles.flush()).await.is_err() {
            tracing::warn!("the last spans and lines of the audit log may be lost, because no thread is free");
        }
        // The admin listener answers until the drain is over.
        self.operators.closing.cancel();
        drained
    }
}

/// Limits of the listener for callers, as configured, but with fewer connections if the limit of open files is low.
fn limits(config: &Config, request_memory: &RequestMemory) -> Limits {
    let ServerLimits { max_connections, max_connections_per_peer, max_head_size, send_memory, .. } =
        config.server.limits;
    let upstream = config.accounts.len().saturating_mul(config.upstream.max_concurrency);
    let open_files = open_files::raise_limit();
    let reserved = upstream.saturating_add(MAX_ADMIN_CONNECTIONS);
    let connections = open_files::connections_within(open_files, max_connections, reserved);
    if connections < max_connections {
        tracing::warn!(
            max_connections,
            lowered_to = connections,
            open_files,
            "server.max_connections does not fit into the limit of open files and is lowered; raise RLIMIT_NOFILE \
             (ulimit -n)"
        );
    }
    Limits {
        connections: ConnectionLimits::new(connections, max_connections_per_peer),
        max_head_size,
        request_memory: request_memory.clone(),
        stalled_writes: StalledWrites::new(send_memory),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::task::{spawn_blocking, yield_now};

    use super::*;

    #[test]
    fn drain_ends_although_no_blocking_thread_is_free() {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).max_blocking_threads(1).build().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let toml = "[[accounts]]\naccount_id = 'a'\nclient_id = 'c'\nclient_secret = { env = 'SECRET' }\n\
                        [server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n";
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, toml).unwrap();
            let config = Config::load(Some(file.path()), [("SECRET".to_owned(), "s".to_owned())]).unwrap();
            let gateway = Gateway::start(&config, Clock::system()).await.unwrap();
            let blocked = spawn_blocking(move || released.recv());
            let drain = tokio::spawn(gateway.drain());
            for _ in 0..60 {
                tokio::time::advance(Duration::from_secs(1)).await;
                yield_now().await;
            }
            assert!(drain.is_finished());
            drop(release);
            blocked.await.unwrap().unwrap_err();
        });
    }
}
