//! Writes a gzip member (RFC 1952) whose text is for the most part deflated already.

use bytes::{BufMut as _, Bytes, BytesMut};
use crc32fast::Hasher;

use crate::cache::DeflateSplice;

/// No name, no time, nobody's system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// What a stored block says before its text, but for its length: that it is not the last, or that it is.
const STORED: u8 = 0;
const STORED_LAST: u8 = 1;

/// A member under way: what it has to say of its text at its end.
#[derive(Debug, Default)]
pub(super) struct GzipMember {
    crc: Hasher,
    len: u64,
}

impl GzipMember {
    /// The beginning of the member, with a first text of at most 65,535 bytes.
    pub(super) fn begin(&mut self, text: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD.len() + 5 + text.len());
        bytes.put_slice(&HEAD);
        self.store(STORED, text, &mut bytes);
        bytes.freeze()
    }

    /// Text that is deflated already: gives what is to be sent.
    pub(super) fn join(&mut self, joint: DeflateSplice) -> Vec<Bytes> {
        self.crc.combine(&Hasher::new_with_initial_len(joint.crc, joint.len));
        self.len += joint.len;
        joint.pieces
    }

    /// The end of the member, with a last text of at most 65,535 bytes.
    pub(super) fn end(mut self, text: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(5 + text.len() + 8);
        self.store(STORED_LAST, text, &mut bytes);
        bytes.put_u32_le(self.crc.finalize());
        #[expect(clippy::cast_possible_truncation, reason = "RFC 1952: modulo 2^32")]
        bytes.put_u32_le(self.len as u32);
        bytes.freeze()
    }

    fn store(&mut self, kind: u8, text: &[u8], to: &mut BytesMut) {
        let len = u16::try_from(text.len()).unwrap_or_default();
        debug_assert_eq!(usize::from(len), text.len());
        to.put_u8(kind);
        to.put_u16_le(len);
        to.put_u16_le(!len);
        to.put_slice(text);
        self.crc.update(text);
        self.len += u64::from(len);
    }
}
