//! How many connections a listener holds: in all, and of each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::edge::Kind;
use crate::problem::MEDIA_TYPE;

/// Bits of an IPv6 address that tell peers apart: one customer has a whole /64.
const PEER_PREFIX: u128 = !0 << 64;

/// The response on a connection beyond the limits, as bytes.
static OVERLOADED_RESPONSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let problem = Kind::Overloaded.problem("too many connections");
    let body = problem.to_json();
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        problem.status(),
        body.len()
    );
    [head.into_bytes(), body].concat()
});

/// The limits of a listener. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    slots: Arc<Semaphore>,
    peers: Arc<Peers>,
}

#[derive(Debug)]
struct Peers {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _slot: OwnedSemaphorePermit,
    peers: Arc<Peers>,
    peer: IpAddr,
}

/// Which limit a connection is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    Connections,
    OfPeer,
}

impl TooMany {
    /// The word for it in metrics: the key that sets the limit.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::OfPeer => "max_connections_per_peer",
        }
    }
}

impl ConnectionLimits {
    /// At most `connections`, and at most `of_peer` from one address.
    pub(super) fn new(connections: usize, of_peer: usize) -> Self {
        let peers = Peers { most: of_peer, open: Mutex::default() };
        Self { slots: Arc::new(Semaphore::new(connections)), peers: Arc::new(peers) }
    }

    /// A place for a connection of `peer`.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<ConnectionPermit, TooMany> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| TooMany::Connections)?;
        let peer = identity(peer.ip());
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = open.entry(peer).or_default();
        // A peer that has none open yet has room, so no entry of none stays behind.
        if *of_peer >= self.peers.most {
            return Err(TooMany::OfPeer);
        }
        *of_peer += 1;
        Ok(ConnectionPermit { _slot: slot, peers: self.peers.clone(), peer })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = open.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// What tells one peer from another.
fn identity(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & PEER_PREFIX)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Says why a connection is closed that is not served, as far as one can without waiting.
pub(super) fn turn_away(stream: &TcpStream) {
    let _ = stream.try_write(&OVERLOADED_RESPONSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn connections_are_limited_in_all_and_by_peer() {
        let limits = ConnectionLimits::new(3, 2);
        let admit = |address| limits.admit(peer(address));
        let (first, _second) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert_eq!(admit("192.0.2.1").unwrap_err(), TooMany::OfPeer);
        let third = admit("192.0.2.2").unwrap();
        assert_eq!(admit("192.0.2.3").unwrap_err(), TooMany::Connections);
        drop((first, third));
        assert_eq!(limits.peers.open.lock().unwrap().len(), 1);
        let _others = (admit("2001:db8::1").unwrap(), admit("2001:db8::ffff:2").unwrap());
        assert_eq!(limits.peers.open.lock().unwrap().len(), 2);
    }

    #[test]
    fn overloaded_response_is_one_http_message() {
        let body = concat!(
            r#"{"type":"urn:koregate:problem:overloaded","title":"Service Unavailable","status":503,"#,
            r#""detail":"too many connections","errors":[{"msg":"too many connections","code":503}]}"#
        );
        let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
                    cache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 170\r\n\r\n";
        assert_eq!(str::from_utf8(&OVERLOADED_RESPONSE).unwrap(), format!("{head}{body}"));
    }
}
