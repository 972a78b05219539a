//! Limits on the connections of a listener: of all peers together, and of each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{MEDIA_TYPE, Problem, ProblemType};

/// Mask of the bits of an IPv6 address that identify a peer. Providers assign a whole /64 to one customer.
const PEER_MASK: u128 = !0 << 64;

/// The response on a connection beyond the limits, as bytes.
static OVERLOADED_RESPONSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let problem = Problem::new(ProblemType::Overloaded, "too many connections").with_kore_code();
    let body = problem.to_json();
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        problem.status(),
        body.len()
    );
    [head.into_bytes(), body].concat()
});

/// The connection limits of a listener. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    slots: Arc<Semaphore>,
    peers: Arc<Peers>,
}

/// Open connections of each peer.
#[derive(Debug)]
struct Peers {
    max_connections: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The slot of one connection, which is released when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _slot: OwnedSemaphorePermit,
    peers: Arc<Peers>,
    peer: IpAddr,
}

/// The limit that a connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionLimit {
    Total,
    PerPeer,
}

impl ConnectionLimit {
    /// The label in metrics: the key of `[server]` that sets the limit.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Total => "max_connections",
            Self::PerPeer => "max_connections_per_peer",
        }
    }
}

impl ConnectionLimits {
    /// At most `total` connections, and at most `per_peer` from one address or IPv6 /64.
    pub(super) fn new(total: usize, per_peer: usize) -> Self {
        let peers = Peers { max_connections: per_peer, open: Mutex::default() };
        Self { slots: Arc::new(Semaphore::new(total)), peers: Arc::new(peers) }
    }

    /// Acquires a slot for a connection of `peer`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<ConnectionPermit, ConnectionLimit> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| ConnectionLimit::Total)?;
        let peer = peer_key(peer.ip());
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        // A new entry is below the limit, which is at least 1, so no entry with a count of 0 stays.
        if *count >= self.peers.max_connections {
            return Err(ConnectionLimit::PerPeer);
        }
        *count += 1;
        Ok(ConnectionPermit { _slot: slot, peers: self.peers.clone(), peer })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// The address that identifies a peer: an IPv4 address, or an IPv6 /64.
fn peer_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & PEER_MASK)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Writes a 503 to a connection that is not served, if the socket takes it without waiting.
pub(super) fn send_overloaded(stream: &TcpStream) {
    let _ = stream.try_write(&OVERLOADED_RESPONSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn connections_are_limited_in_total_and_per_peer() {
        let limits = ConnectionLimits::new(3, 2);
        let admit = |address| limits.admit(peer(address));
        let (first, _second) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert_eq!(admit("192.0.2.1").unwrap_err(), ConnectionLimit::PerPeer);
        let third = admit("192.0.2.2").unwrap();
        assert_eq!(admit("192.0.2.3").unwrap_err(), ConnectionLimit::Total);
        drop((first, third));
        assert_eq!(limits.peers.open.lock().unwrap().len(), 1);
        let _others = (admit("2001:db8::1").unwrap(), admit("2001:db8::ffff:2").unwrap());
        assert_eq!(limits.peers.open.lock().unwrap().len(), 2);
    }

    #[test]
    fn overloaded_response_is_one_http_message() {
        let body = concat!(
            r#"{"type":"/koregate/v1/problems/overloaded","title":"koregate is overloaded","status":503,"#,
            r#""detail":"too many connections","errors":[{"msg":"too many connections","code":503}]}"#
        );
        let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
                    cache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 174\r\n\r\n";
        assert_eq!(str::from_utf8(&OVERLOADED_RESPONSE).unwrap(), format!("{head}{body}"));
    }
}
