//! Connections to Redis and to the upstream: TCP, or those of a simulated network.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A network that is not the machine's.
pub trait SimulatedNetwork: Send + Sync {
    /// Connects to a port of a host. There is no timeout.
    ///
    /// # Errors
    /// If the connection is refused.
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;
}

/// The network that connections are made in. Clones are the same network.
#[derive(Clone, Default)]
pub enum Network {
    /// TCP on this machine.
    #[default]
    Tcp,
    /// A network that a simulation plays.
    Simulated(Arc<dyn SimulatedNetwork>),
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "Tcp",
            Self::Simulated(_) => "Simulated",
        })
    }
}
