//! Connections to Redis and to the upstream: TCP, or those of a simulated network. And the lookup of names for them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use futures_util::future::{BoxFuture, select_ok};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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

/// Connects to the first address of a host that answers.
///
/// # Errors
/// If no address answers.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = resolver().look_up(host, port).await?;
    let (stream, _) = select_ok(addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Lookups of all names at a time.
const MAX_LOOKUPS: usize = 8;
/// Lookups of one name at a time. The second one is for a first one that waits for a packet which was lost.
const MAX_LOOKUPS_PER_NAME: usize = 2;

/// Looks up the addresses of names with the system's resolver.
///
/// The resolver blocks a thread for as long as it takes, also when nobody waits for the result any more. So lookups have
/// threads of their own, not those of the runtime, on which disk reads and reloads wait; and there are limits, so that a
/// name server that does not answer takes few of them, and a name without an answer does not hold up other names.
#[derive(Debug)]
pub(crate) struct Resolver {
    all: Arc<Semaphore>,
    by_name: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The resolver of this process.
pub(crate) fn resolver() -> &'static Resolver {
    static RESOLVER: LazyLock<Resolver> = LazyLock::new(Resolver::new);
    &RESOLVER
}

impl Resolver {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_LOOKUPS)), by_name: Mutex::default() }
    }

    /// The addresses of `host`, which may be an address itself, with this port.
    ///
    /// # Errors
    /// If the name has no address, or the system cannot say.
    pub(crate) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let permits = self.acquire(host).await?;
        let (host, (found, lookup)) = (host.to_owned(), oneshot::channel());
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            drop(permits);
            let _ = found.send(addresses);
        })?;
        let addresses = lookup.await.map_err(io::Error::other)??;
        if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
    }

    /// Waits until one more lookup of a name may run.
    async fn acquire(&self, host: &str) -> io::Result<[OwnedSemaphorePermit; 2]> {
        let own = {
            let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
            // A permit refers to its semaphore, so what nobody else refers to is not in use.
            by_name.retain(|_, permits| Arc::strong_count(permits) > 1);
            by_name.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(MAX_LOOKUPS_PER_NAME))).clone()
        };
        let own = own.acquire_owned().await.map_err(io::Error::other)?;
        Ok([own, self.all.clone().acquire_owned().await.map_err(io::Error::other)?])
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, timeout};

    use super::*;

    /// Whether a lookup of `host` is under way at once.
    async fn starts(resolver: &Resolver, host: &str) -> bool {
        timeout(Duration::from_hours(1), resolver.acquire(host)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn name_that_is_not_answered_holds_up_no_other() {
        let resolver = Resolver::new();
        let hanging = [resolver.acquire("a").await.unwrap(), resolver.acquire("a").await.unwrap()];
        assert!(!starts(&resolver, "a").await && starts(&resolver, "b").await);
        assert_eq!(resolver.look_up("::1", 80).await.unwrap(), ["[::1]:80".parse().unwrap()]);
        drop(hanging);
        assert!(starts(&resolver, "a").await);
        let mut all = Vec::new();
        for nth in 0..MAX_LOOKUPS {
            all.push(resolver.acquire(&nth.to_string()).await.unwrap());
        }
        assert!(!starts(&resolver, "c").await);
        drop(all);
        assert!(starts(&resolver, "c").await && resolver.by_name.lock().unwrap().len() == 1);
    }

    #[tokio::test]
    async fn name_is_looked_up_by_the_system() {
        let found = resolver().look_up("localhost", 80).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
