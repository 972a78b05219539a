//! Connections to Redis and to the upstream: TCP, or those of a simulated network. And the lookup of names for them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

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

/// Looks up the addresses of names with the system's resolver, one name at a time.
///
/// The resolver blocks a thread for as long as it takes, also when nobody waits for the result any more. There are few
/// threads for blocking work: without a limit, a name server that does not answer would take all of them, and with them
/// the disk and the reload.
#[derive(Debug)]
pub(crate) struct Resolver {
    permits: Semaphore,
}

impl Resolver {
    /// A resolver that is not busy.
    pub(crate) const fn new() -> Self {
        Self { permits: Semaphore::const_new(1) }
    }

    /// The addresses of `host`, which may be an address itself, with this port.
    ///
    /// # Errors
    /// If the name has no address, or the system cannot say.
    pub(crate) async fn look_up(&'static self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let lookup = spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), port).to_socket_addrs().map(Vec::from_iter)
        });
        let addresses = lookup.await.map_err(io::Error::other)??;
        if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn name_waits_for_the_lookup_before_it_and_an_address_for_none() {
        static RESOLVER: Resolver = Resolver::new();
        let busy = RESOLVER.permits.acquire().await.unwrap();
        let waiting = timeout(Duration::from_hours(1), RESOLVER.look_up("localhost", 80)).await;
        assert!(waiting.is_err(), "{waiting:?}");
        for (address, expected) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
            assert_eq!(RESOLVER.look_up(address, 80).await.unwrap(), [expected.parse().unwrap()]);
        }
        drop(busy);
        let found = RESOLVER.look_up("localhost", 80).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
