//! The format of a gzip member (RFC 1952), which is written mostly from text that is deflated already.
//! `body.rs` puts the body together.

use bytes::{BufMut as _, Bytes, BytesMut};
use crc32fast::Hasher;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cache::DeflateSplice;

/// The member's header: no name, no time, unknown operating system.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Headers of a stored block without its length: not the last block, and the last block.
const STORED_BLOCK: u8 = 0;
const LAST_STORED_BLOCK: u8 = 1;

/// A member under construction, with the checksum and the length for its trailer.
#[derive(Debug, Default)]
pub(super) struct GzipMember {
    crc: Hasher,
    len: u64,
}

impl GzipMember {
    /// Begins a member with a first text of at most 65,535 bytes.
    pub(super) fn begin(&mut self, text: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(MEMBER_HEADER.len() + 5 + text.len());
        bytes.put_slice(&MEMBER_HEADER);
        self.store(STORED_BLOCK, text, &mut bytes);
        bytes.freeze()
    }

    /// Adds deflated text; returns the bytes to send.
    pub(super) fn join(&mut self, joint: DeflateSplice) -> Vec<Bytes> {
        self.crc.combine(&Hasher::new_with_initial_len(joint.crc, joint.len));
        self.len += joint.len;
        joint.pieces
    }

    /// Ends the member with a last text of at most 65,535 bytes.
    pub(super) fn end(mut self, text: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(5 + text.len() + 8);
        self.store(LAST_STORED_BLOCK, text, &mut bytes);
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

pub(super) fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}
