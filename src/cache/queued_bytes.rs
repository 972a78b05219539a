//! The bytes of chunks that wait to be written to Redis or to the disk.

use tokio::sync::watch;

/// Bytes of chunks that may wait; further chunks are not written.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// The bytes of chunks that wait to be written to a tier, or are being written. Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub(in crate::cache) struct QueuedBytes(watch::Sender<usize>);

impl QueuedBytes {
    /// Nothing waits.
    pub(in crate::cache) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Adds the bytes of a chunk; `false` if too many wait already.
    pub(in crate::cache) fn try_add(&self, bytes: usize) -> bool {
        self.0.send_if_modified(|queued| {
            let has_room = *queued <= MAX_QUEUED_BYTES;
            *queued += if has_room { bytes } else { 0 };
            has_room
        })
    }

    /// Subtracts the bytes of chunks that were written, or cannot be.
    pub(in crate::cache) fn release(&self, bytes: usize) {
        self.0.send_modify(|queued| *queued -= bytes);
    }

    /// Waits until nothing is queued.
    pub(in crate::cache) async fn until_none(&self) {
        // The sender is here, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|queued| *queued == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn queue_is_bounded_and_empty_when_all_is_released() {
        let queue = QueuedBytes::new();
        assert!(queue.until_none().now_or_never().is_some());
        assert!(queue.try_add(MAX_QUEUED_BYTES) && queue.try_add(7));
        assert!(!queue.try_add(1));
        queue.release(7);
        assert!(queue.until_none().now_or_never().is_none());
        queue.release(MAX_QUEUED_BYTES);
        assert!(queue.until_none().now_or_never().is_some());
    }
}
