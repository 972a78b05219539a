//! The listeners: brings the stack up on its sockets, and down again without breaking an answer.

mod connections;
mod head_meter;
mod head_timer;
mod heap;
mod linger;
mod listener;
mod metered;
mod open_files;
mod stalled_writes;
mod tls;
mod zero_copy;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connections::ConnectionLimits;
use self::listener::{Limits, Listener};
use self::stalled_writes::StalledWrites;
use crate::admin::{Admin, AdminService};
use crate::api::RequestMemory;
use crate::clock::Clock;
use crate::config::{Config, ServerLimits};
use crate::stack::Stack;

/// The longest that connections may take to end when they are aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most connections of operators: probes, scrapes, people.
const ADMIN_CONNECTIONS: usize = 64;
/// What a connection takes of memory, with the buffers of a request.
const CONNECTION_BYTES: u64 = 12 << 10;
/// Bytes of memory for large heads and bodies of operators.
const ADMIN_REQUEST_MEMORY: u64 = 1 << 20;
/// Bytes of memory for answers that operators do not take.
const ADMIN_SEND_MEMORY: u64 = 16 << 20;

/// A gateway that runs until it is drained.
pub struct Gateway {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    stack: Stack,
    admin: Admin,
    drain_timeout: Duration,
    data: Side,
    operators: Side,
}

/// One listener's connections, and what ends them.
#[derive(Default)]
struct Side {
    closing: CancellationToken,
    aborting: CancellationToken,
    connections: TaskTracker,
}

impl Side {
    /// Listens on `addr`; connections whose peers take nothing for `send_timeout` are cut.
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
        let (data, operators) = (Side::default(), Side::default());
        let stack = Stack::new(config, &clock)?;
        let tls = config.server.tls.as_ref().map(tls::acceptor).transpose()?;
        let (server, send_timeout) = (&config.server, config.server.limits.send_timeout);
        let limits = limits(config, &stack.request_memory);
        let admin_limits = Limits {
            connections: ConnectionLimits::new(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS),
            request_memory: RequestMemory::new(ADMIN_REQUEST_MEMORY),
            stalled_writes: StalledWrites::new(ADMIN_SEND_MEMORY),
            ..limits
        };
        let listener = Listener { tls, ..data.listen("server.listen", server.listen, limits, send_timeout).await? };
        let admin_listener =
            operators.listen("server.admin_listen", server.admin_listen, admin_limits, send_timeout).await?;
        let (addr, admin_addr) = (listener.addr()?, admin_listener.addr()?);
        let admin = Admin::new(&stack, config, clock);
        let (operators_side, service) = (admin.clone(), stack.service.clone());
        tokio::spawn(admin_listener.serve(move |peer| AdminService::new(operators_side.clone(), peer)));
        tokio::spawn(listener.serve(move |_| service.clone()));
        let (connections, memory) = (data.connections.clone(), stack.memory.clone());
        let bytes_in_use = move || connections.len() as u64 * CONNECTION_BYTES + memory.pinned_bytes();
        tokio::spawn(heap::trim_after_peaks(bytes_in_use, data.closing.clone()));
        admin.set_ready();
        tracing::info!(%addr, %admin_addr, "listening");
        Ok(Self { addr, admin_addr, stack, admin, drain_timeout: config.server.drain_timeout, data, operators })
    }

    /// Where callers come in.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where operators come in.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The stages, to look at what they count.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Takes no more connections in, and waits for the answers under way, at most `server.drain_timeout`; those that have not
    /// ended then are cut, and reported as `drained`. True if all of them ended.
    pub async fn drain(self) -> bool {
        self.admin.set_draining();
        self.data.closing.cancel();
        self.data.connections.close();
        tracing::info!(connections = self.data.connections.len(), "draining");
        let drained = tokio::time::timeout(self.drain_timeout, self.data.connections.wait()).await.is_ok();
        if !drained {
            tracing::warn!(connections = self.data.connections.len(), "some answers did not end in time");
            self.stack.drain_timeout.expire();
            self.data.aborting.cancel();
            // Each one ends as soon as it is polled, and what it cuts is reported. One that does not must not hold up the end.
            let _ = tokio::time::timeout(ABORT_TIMEOUT, self.data.connections.wait()).await;
        }
        // Nobody here asks for anything any more, so another replica may make the calls.
        self.stack.quotas.leave().await;
        // Operators can look until the end.
        self.operators.closing.cancel();
        drained
    }
}

/// What callers' connections may take: as many as are configured, or fewer where the limit of open files is low.
fn limits(config: &Config, request_memory: &RequestMemory) -> Limits {
    let ServerLimits { max_connections, max_connections_per_peer, max_head_size, send_memory, .. } =
        config.server.limits;
    let upstream = config.accounts.len().saturating_mul(config.upstream.max_concurrency);
    let open_files = open_files::raise_limit();
    let kept = upstream.saturating_add(ADMIN_CONNECTIONS);
    let connections = open_files::connections_within(open_files, max_connections, kept);
    if connections < max_connections {
        tracing::warn!(
            max_connections,
            lowered_to = connections,
            open_files,
            "server.max_connections does not fit into the limit of open files and is lowered; raise RLIMIT_NOFILE (ulimit -n)"
        );
    }
    Limits {
        connections: ConnectionLimits::new(connections, max_connections_per_peer),
        max_head_size,
        request_memory: request_memory.clone(),
        stalled_writes: StalledWrites::new(send_memory),
    }
}
