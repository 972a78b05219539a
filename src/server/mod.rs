//! The listeners: brings the stack up on its sockets, and down again without breaking an answer.

mod head_timer;
mod linger;
mod listener;
mod passing;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::listener::Listener;
use crate::admin::{Admin, AdminService};
use crate::clock::Clock;
use crate::config::Config;
use crate::stack::Stack;

/// The longest that connections may take to end when they are aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

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
    async fn listen(&self, key: &str, addr: SocketAddr) -> anyhow::Result<Listener> {
        let socket = TcpListener::bind(addr).await.with_context(|| format!("{key}: {addr} cannot be listened on"))?;
        let (closing, aborting) = (self.closing.clone(), self.aborting.clone());
        Ok(Listener { socket, tls: None, closing, aborting, tracker: self.connections.clone() })
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
        let listener = Listener { tls, ..data.listen("server.listen", config.server.listen).await? };
        let admin_listener = operators.listen("server.admin_listen", config.server.admin_listen).await?;
        let (addr, admin_addr) = (listener.addr()?, admin_listener.addr()?);
        let admin = Admin::new(&stack, config, clock);
        let (operators_side, service) = (admin.clone(), stack.service.clone());
        tokio::spawn(admin_listener.serve(move |peer| AdminService::new(operators_side.clone(), peer)));
        tokio::spawn(listener.serve(move |_| service.clone()));
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
