//! Limit on the memory of responses that clients do not read, which hyper buffers until the socket takes them.
//!
//! A write is stalled from when the socket takes nothing of it until the socket takes some of it. When all stalled
//! writes together exceed the limit, the connections that have been stalled for longest are cut; a client that reads
//! slowly stalls anew with each read and is therefore cut last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Bytes of memory for each stalled byte. A buffer is released only when its last byte is taken, and on average half of
/// it has been taken.
const MEMORY_PER_STALLED_BYTE: usize = 2;

/// All stalled writes of a listener. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct StalledWrites(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    queue: Mutex<Queue>,
}

/// Stalled writes, keyed by a sequence number in the order in which they stalled.
#[derive(Debug, Default)]
struct Queue {
    stalls: BTreeMap<u64, Stall>,
    /// Sum of the bytes of all stalls.
    bytes: usize,
    next_number: u64,
}

/// A stalled write.
#[derive(Debug)]
struct Stall {
    bytes: usize,
    cut: Arc<AtomicBool>,
    waker: Waker,
}

/// The writes of one connection.
#[derive(Debug)]
pub(super) struct ConnectionWrites {
    writes: StalledWrites,
    /// The sequence number of the stall; `None` while no write is stalled.
    stalled: Option<u64>,
    cut: Arc<AtomicBool>,
}

impl StalledWrites {
    /// An empty set of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self(Arc::new(Inner { limit, queue: Mutex::default() }))
    }

    /// The writes of a new connection.
    pub(super) fn connection(&self) -> ConnectionWrites {
        ConnectionWrites { writes: self.clone(), stalled: None, cut: Arc::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionWrites {
    /// Whether the connection is to be cut.
    pub(super) fn is_cut(&self) -> bool {
        self.stalled.is_some() && self.cut.load(Ordering::Relaxed)
    }

    /// A write of `bytes` has stalled, or is still stalled. `waker` is woken when the connection is to be cut.
    pub(super) fn stall(&mut self, bytes: usize, waker: &Waker) {
        let mut queue = self.writes.queue();
        if let Some(stall) = self.stalled.and_then(|number| queue.stalls.get_mut(&number)) {
            stall.waker.clone_from(waker);
            return;
        }
        let (number, bytes) = (queue.next_number, bytes.saturating_mul(MEMORY_PER_STALLED_BYTE));
        queue.next_number += 1;
        queue.bytes += bytes;
        queue.stalls.insert(number, Stall { bytes, cut: self.cut.clone(), waker: waker.clone() });
        self.stalled = Some(number);
        while queue.bytes > self.writes.0.limit
            && let Some((_, longest)) = queue.stalls.pop_first()
        {
            queue.bytes -= longest.bytes;
            longest.cut.store(true, Ordering::Relaxed);
            longest.waker.wake();
        }
    }

    /// The socket took bytes, or the connection has ended.
    pub(super) fn resume(&mut self) {
        if let Some(number) = self.stalled.take() {
            let mut queue = self.writes.queue();
            if let Some(stall) = queue.stalls.remove(&number) {
                queue.bytes -= stall.bytes;
            }
        }
    }
}

impl Drop for ConnectionWrites {
    fn drop(&mut self) {
        self.resume();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_stalled_connections_are_cut_beyond_the_limit() {
        let writes = StalledWrites::new(200);
        let mut connections: Vec<_> = (0..4).map(|_| writes.connection()).collect();
        let stall = |connection: &mut ConnectionWrites, bytes| connection.stall(bytes, Waker::noop());
        stall(&mut connections[0], 40);
        stall(&mut connections[1], 40);
        // A connection that has resumed is stalled anew.
        connections[0].resume();
        stall(&mut connections[0], 40);
        stall(&mut connections[2], 60);
        let cut: Vec<bool> = connections.iter().map(ConnectionWrites::is_cut).collect();
        assert_eq!(cut, [false, true, false, false]);
        drop(connections);
        assert_eq!(writes.queue().bytes, 0);
    }
}
