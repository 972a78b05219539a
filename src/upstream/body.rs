//! Takes an upstream body in.
//!
//! A page is more than half a mebibyte, and lives for a moment. On the heap, among chunks that live for days, thousands of
//! them would leave holes that nothing else fits, several times as large as the cache itself. So pages are mapped, and
//! unmapped when the last of their items is gone.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use memmap2::MmapMut;

/// Less than this the heap holds as well.
const WORTH_A_MAPPING: usize = 64 << 10;
/// A page has at most 100 items of some 30 KB; ten times that is no page.
const LIMIT: usize = 32 << 20;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is larger than [`LIMIT`].
    TooLarge,
    /// It ended too soon.
    BrokenOff,
}

/// The whole body.
///
/// # Errors
/// [`BodyError`] if there is no whole one.
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

/// What has come: copied at once, so that what it came in is free for what comes next.
#[derive(Default)]
struct Parts {
    /// While it is small.
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

    /// Makes room for `len` bytes at least. Pages of a mapping that nobody writes to cost nothing.
    fn grow(&mut self, len: usize) {
        let before = self.mapped.take();
        let before = before.as_deref().unwrap_or(&self.heap);
        match MmapMut::map_anon((2 * len).max(1 << 20)) {
            Ok(mut larger) => {
                larger[..self.len].copy_from_slice(&before[..self.len]);
                self.mapped = Some(larger);
                self.heap = Vec::new();
            }
            // The system has no room for it, or wants no more mappings; the heap may have.
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
