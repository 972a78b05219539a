//! What attacks on connections take of the gateway's memory, and whether it lives through them: the memory suite.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::support::attack::{CONNECTIONS_BOUND, Target, connect_from, send};
use crate::support::until;

/// Where no upstream is: none is asked.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Opens connections from four peers, and sends `bytes` over each of them as far as the gateway takes them.
async fn open(addr: SocketAddr, connections: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for nth in 0..connections {
        let peer = u8::try_from(nth % 4 + 1).unwrap();
        let Ok(connection) = connect_from(peer, addr).await else { continue };
        send(&connection, bytes).await;
        open.push(connection);
    }
    open
}

#[tokio::test]
async fn idle_connections_take_bounded_memory() {
    let target = Target::start(NOWHERE, &[], Some(4096)).await;
    let before = target.resident();
    let open = open(target.addr, 1000, b"").await;
    until("all are taken in", || target.open_files() > open.len()).await;
    assert!(target.resident() < before + CONNECTIONS_BOUND, "{}", target.printed());
    assert!(target.metric("koregate_cache_bytes", &["tier=\"memory\""]).await < 1.0);
    target.assert_held().await;
}
