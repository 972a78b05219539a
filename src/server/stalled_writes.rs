//! Bounds the memory of answers whose peers do not take them: what hyper holds until the system takes it.
//!
//! A write that the system does not take is stalled until some of it is taken. When all stalled writes together are larger
//! than they may be, those that have stalled for longest are cut: a peer that reads, however slowly, is among the last ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The bytes held for a byte that is stalled: a piece of an answer is held whole until its last byte is taken, and on
/// average half of it has been.
const HELD_FOR_STALLED: usize = 2;

/// All stalled writes of a listener. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct StalledWrites(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    queue: Mutex<Queue>,
}

/// Stalled writes by the order in which they stalled.
#[derive(Debug, Default)]
struct Queue {
    stalls: BTreeMap<u64, Stall>,
    /// Of all of them.
    bytes: usize,
    next: u64,
}

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
    /// The number of the stall, while there is one.
    stalled: Option<u64>,
    cut: Arc<AtomicBool>,
}

impl StalledWrites {
    /// None yet, of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self(Arc::new(Inner { limit, queue: Mutex::default() }))
    }

    /// For a connection that begins.
    pub(super) fn connection(&self) -> ConnectionWrites {
        ConnectionWrites { writes: self.clone(), stalled: None, cut: Arc::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionWrites {
    /// Whether this connection is to be cut.
    pub(super) fn is_cut(&self) -> bool {
        self.stalled.is_some() && self.cut.load(Ordering::Relaxed)
    }

    /// A write of so many bytes has stalled, or is stalled still. `waker` is woken when the connection is to be cut.
    pub(super) fn stall(&mut self, bytes: usize, waker: &Waker) {
        let mut queue = self.writes.queue();
        if let Some(stall) = self.stalled.and_then(|number| queue.stalls.get_mut(&number)) {
            stall.waker.clone_from(waker);
            return;
        }
        let (number, bytes) = (queue.next, bytes.saturating_mul(HELD_FOR_STALLED));
        queue.next += 1;
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

    /// Some of it was taken, or the connection has ended.
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
    fn the_longest_stalled_are_cut_when_there_are_too_many_bytes() {
        let writes = StalledWrites::new(200);
        let mut connections: Vec<_> = (0..4).map(|_| writes.connection()).collect();
        let stall = |connection: &mut ConnectionWrites, bytes| connection.stall(bytes, Waker::noop());
        stall(&mut connections[0], 40);
        stall(&mut connections[1], 40);
        // One that has gone on is not among the longest.
        connections[0].resume();
        stall(&mut connections[0], 40);
        stall(&mut connections[2], 60);
        let cut: Vec<bool> = connections.iter().map(ConnectionWrites::is_cut).collect();
        assert_eq!(cut, [false, true, false, false]);
        drop(connections);
        assert_eq!(writes.queue().bytes, 0);
    }
}
