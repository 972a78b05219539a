//! Heads that are not answered yet take room of a budget that all connections share.
//!
//! hyper bounds a single head, and reads it into a buffer of its own. So what is counted here is what it reads between the
//! end of an answer and the next request, and the room is held until that request is answered: what its head brought is
//! held for as long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::{RequestMemory, RequestMemoryPermit};

/// A head that is not whole after so many bytes takes room of the budget.
const UNCOUNTED_HEAD: usize = 4 << 10;
/// Set in the count while a request is being answered: then what comes is its body, which is counted elsewhere.
const ANSWERING: usize = 1 << (usize::BITS - 1);

/// Counts the heads of one connection. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct HeadMeter(Arc<Meter>);

#[derive(Debug)]
struct Meter {
    /// Bytes of the head that has come last or is coming; and whether it is being answered.
    head: AtomicUsize,
    memory: RequestMemory,
    /// Of a head that is larger than [`UNCOUNTED_HEAD`], the room for as much as a head may have.
    permit: Mutex<Option<RequestMemoryPermit>>,
    max_head_size: usize,
}

/// There is no room for a head. The error that a connection ends with then.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the heads of other requests leave no room for this one")]
pub(super) struct NoRoomForHead;

impl HeadMeter {
    pub(super) fn new(memory: &RequestMemory, max_head_size: usize) -> Self {
        let (head, permit) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Meter { head, memory: memory.clone(), permit, max_head_size }))
    }

    /// A head has come whole, and its request is handed over.
    pub(super) fn begin_answer(&self) {
        self.0.head.fetch_or(ANSWERING, Ordering::Relaxed);
    }

    /// The request is answered, or its answer has begun: what comes now is the next head.
    pub(super) fn end_answer(&self) {
        if self.0.head.swap(0, Ordering::Relaxed) & !ANSWERING > UNCOUNTED_HEAD {
            *self.permit() = None;
        }
    }

    /// Makes sure of the room for what is going to be read. What came with one read may be the whole head and the beginning
    /// of its body; to read on means that it was not.
    pub(super) fn before_read(&self) -> Result<(), NoRoomForHead> {
        let head = self.0.head.load(Ordering::Relaxed);
        if head <= UNCOUNTED_HEAD || head & ANSWERING != 0 {
            return Ok(());
        }
        let mut permit = self.permit();
        if permit.is_none() {
            let room = self.0.memory.try_reserve(self.0.max_head_size - UNCOUNTED_HEAD);
            *permit = Some(room.ok_or(NoRoomForHead)?);
        }
        Ok(())
    }

    /// So many bytes were read.
    pub(super) fn after_read(&self, bytes: usize) {
        if self.0.head.load(Ordering::Relaxed) & ANSWERING == 0 {
            self.0.head.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn permit(&self) -> std::sync::MutexGuard<'_, Option<RequestMemoryPermit>> {
        self.0.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_a_budget_until_they_are_answered() {
        let memory = RequestMemory::new(40_000);
        let (one, other) = (HeadMeter::new(&memory, 32 << 10), HeadMeter::new(&memory, 32 << 10));
        let read = |meter: &HeadMeter, bytes| meter.before_read().map(|()| meter.after_read(bytes)).is_ok();
        assert!(read(&one, UNCOUNTED_HEAD) && read(&one, 1) && read(&one, 1));
        assert!(read(&other, UNCOUNTED_HEAD) && read(&other, 1) && !read(&other, 1));
        // Of a body nothing is counted, and the head's room is held.
        one.begin_answer();
        assert!(read(&one, 1 << 20) && read(&one, 1));
        assert!(memory.try_reserve(20_000).is_none());
        one.end_answer();
        assert!(read(&one, 3 * UNCOUNTED_HEAD));
        one.begin_answer();
        assert!(read(&one, 1));
        assert!(memory.try_reserve(40_000).is_some());
    }
}
