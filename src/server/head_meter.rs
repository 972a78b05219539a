//! Accounting of request heads in a memory budget that all connections share.
//!
//! hyper limits a single head and reads it into its own buffer. The meter therefore counts the bytes that hyper reads
//! between the end of a response and the next request, and reserves memory until that request is answered, because its
//! headers are held for as long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::{RequestMemory, RequestMemoryPermit};

/// Bytes of a head that need no reservation; a larger head reserves `max_head_size`.
const UNRESERVED_HEAD: usize = 4 << 10;
/// Flag in the count while a request is being answered. Bytes that arrive then are its body, which is not counted here.
const ANSWERING: usize = 1 << (usize::BITS - 1);

/// Counts the head bytes of one connection. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct HeadMeter(Arc<Meter>);

#[derive(Debug)]
struct Meter {
    /// Bytes of the last or current head, and the flag [`ANSWERING`].
    head: AtomicUsize,
    memory: RequestMemory,
    /// The reservation of a head larger than [`UNRESERVED_HEAD`].
    permit: Mutex<Option<RequestMemoryPermit>>,
    max_head_size: usize,
}

/// The error of a connection whose head does not fit into the budget.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no memory is left for this request head")]
pub(super) struct OutOfHeadMemory;

impl HeadMeter {
    /// A meter that reserves from `memory`, for heads of at most `max_head_size` bytes.
    pub(super) fn new(memory: &RequestMemory, max_head_size: usize) -> Self {
        let (head, permit) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Meter { head, memory: memory.clone(), permit, max_head_size }))
    }

    /// A head is complete, and its request was passed on.
    pub(super) fn begin_answer(&self) {
        self.0.head.fetch_or(ANSWERING, Ordering::Relaxed);
    }

    /// The response to the request is ready. Further bytes belong to the next head.
    pub(super) fn end_answer(&self) {
        if self.0.head.swap(0, Ordering::Relaxed) & !ANSWERING > UNRESERVED_HEAD {
            *self.permit() = None;
        }
    }

    /// Reserves memory if the head exceeds [`UNRESERVED_HEAD`] and a further read shows that it is not complete. One
    /// read may return the whole head and the beginning of the body, so the check is made before the next read.
    ///
    /// # Errors
    /// If the budget has no room.
    pub(super) fn before_read(&self) -> Result<(), OutOfHeadMemory> {
        let head = self.0.head.load(Ordering::Relaxed);
        if head <= UNRESERVED_HEAD || head & ANSWERING != 0 {
            return Ok(());
        }
        let mut permit = self.permit();
        if permit.is_none() {
            let reserved = self.0.memory.try_reserve(self.0.max_head_size - UNRESERVED_HEAD);
            *permit = Some(reserved.ok_or(OutOfHeadMemory)?);
        }
        Ok(())
    }

    /// `bytes` were read.
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
        assert!(read(&one, UNRESERVED_HEAD) && read(&one, 1) && read(&one, 1));
        assert!(read(&other, UNRESERVED_HEAD) && read(&other, 1) && !read(&other, 1));
        // Bytes of a body are not counted, and the reservation of the head is kept.
        one.begin_answer();
        assert!(read(&one, 1 << 20) && read(&one, 1));
        assert!(memory.try_reserve(20_000).is_none());
        one.end_answer();
        assert!(read(&one, 3 * UNRESERVED_HEAD));
        one.begin_answer();
        assert!(read(&one, 1));
        assert!(memory.try_reserve(40_000).is_some());
    }
}
