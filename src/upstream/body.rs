//! Reads an upstream body into memory.
//!
//! A page has more than half a mebibyte and lives only for a moment. On the heap, among chunks that live for days,
//! thousands of pages would leave holes that nothing else fits, several times as large as the cache itself. So large
//! bodies are read into anonymous mappings, which are unmapped with the last of their items.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use memmap2::MmapMut;

/// Size below which a body stays on the heap, in bytes.
const WORTH_A_MAPPING: usize = 64 << 10;
/// Largest body that can be a page, in bytes: a page has at most 100 items of some 30 KB, and this is ten times that.
const LIMIT: usize = 32 << 20;

/// Failure to read a complete body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The body is larger than [`LIMIT`].
    TooLarge,
    /// The connection ended before the body did.
    BrokenOff,
}

/// Reads the whole body.
///
/// # Errors
/// [`BodyError`] if it is not complete.
pub(super) async fn take(body: impl Body<Data = Bytes, Error = hyper::Error>) -> Result<Bytes, BodyError> {
    let mut parts = Parts::default();
    let mut body = std::pin::pin!(Limited::new(body, LIMIT));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => parts.add(&frame.into_data().unwrap_or_default()),
            Err(error) if error.is::<LengthLimitError>() => return Err(BodyError::TooLarge),
            Err(_) => return Err(BodyError::BrokenOff),
        }
    }
    Ok(parts.whole())
}

/// The bytes read so far. Each frame is copied at once, so that the receive buffer can be reused.
#[derive(Default)]
struct Parts {
    /// A small body.
    heap: Vec<u8>,
    mapped: Option<MmapMut>,
    len: usize,
}

impl Parts {
    fn add(&mut self, part: &[u8]) {
        let len = self.len + part.len();
        if self.mapped.as_ref().map_or(len > WORTH_A_MAPPING, |mapped| len > mapped.len()) {
            self.grow(len);
        }
        match &mut self.mapped {
            Some(mapped) => mapped[self.len..len].copy_from_slice(part),
            None => self.heap.extend_from_slice(part),
        }
        self.len = len;
    }

    /// Makes room for at least `len` bytes. Pages of a mapping that are never written cost nothing.
    fn grow(&mut self, len: usize) {
        let before = self.mapped.take();
        let before = before.as_deref().unwrap_or(&self.heap);
        match MmapMut::map_anon((2 * len).max(1 << 20)) {
            Ok(mut larger) => {
                larger[..self.len].copy_from_slice(&before[..self.len]);
                self.mapped = Some(larger);
                self.heap = Vec::new();
            }
            // No memory or no more mappings; the heap may still have room.
            Err(_) => self.heap = before[..self.len].to_vec(),
        }
    }

    fn whole(self) -> Bytes {
        match self.mapped {
            Some(mapped) => Bytes::from_owner(mapped).slice(..self.len),
            None => self.heap.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_came_in_parts_is_whole(sizes in prop::collection::vec(prop_oneof![0usize..50, 10_000usize..900_000], 0..12)) {
            let mut parts = Parts::default();
            let mut whole = Vec::new();
            for (nth, size) in sizes.into_iter().enumerate() {
                let part: Vec<u8> = (0..size).map(|byte| u8::try_from((byte * 7 + nth) % 251).unwrap()).collect();
                whole.extend_from_slice(&part);
                parts.add(&part);
            }
            prop_assert_eq!(parts.whole(), whole);
        }
    }
}
