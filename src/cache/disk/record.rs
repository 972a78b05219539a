//! The meta bytes of the records on disk, by which a chunk is known without its bytes, and the text of a series. Pure.
//!
//! All numbers little-endian:
//!
//! ```text
//! kind        u8, 1 for a series, 2 for a chunk and 3 for its filter of ids, which precedes it
//! series      16 bytes, its digest
//! only of a chunk and of its filter:
//! start  end  fetched_at     i64 nanoseconds
//! epoch                      u64
//! rows                       u32
//! may_move                   u8, 0 or 1
//! ```
//!
//! The payload of a series is its JSON, and those of a chunk and its filter are their one format (`chunk/codec`). All are
//! sealed if there is a key, under the digest and the meta bytes as their name. The meta bytes themselves hold no names and no items.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Buf as _, BufMut as _, Bytes};
use serde::{Deserialize, Serialize};

use crate::cache::store::ChunkFacts;
use crate::hex;
use crate::request::{Filter, KnownFilter, Series};
use crate::window::{Interval, Timestamp};

const SERIES_KIND: u8 = 1;
const CHUNK_KIND: u8 = 2;
const IDS_KIND: u8 = 3;
const DIGEST_LEN: usize = 16;
const SERIES_META_LEN: usize = 1 + DIGEST_LEN;
/// Bytes of the meta bytes of a chunk.
const CHUNK_META_LEN: usize = SERIES_META_LEN + 3 * 8 + 8 + 4 + 1;
/// Longest body with an unknown filter whose series is kept on disk.
const MAX_OPAQUE_BYTES: usize = 64 << 10;

/// Digest of a series and of the settings by which it is divided into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SeriesDigest([u8; DIGEST_LEN]);

impl SeriesDigest {
    /// The digest of the text that identifies the series and its settings.
    pub(super) fn of(text: &str) -> Self {
        let hash = digest(&SHA256, text.as_bytes());
        Self(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

/// The meta bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordMeta {
    /// The text of a series, which precedes its chunks in each segment.
    Series(SeriesDigest),
    /// A chunk of a series.
    Chunk(SeriesDigest, ChunkFacts),
    /// The filter of the ids that the chunk holds.
    Ids(SeriesDigest, ChunkFacts),
}

impl RecordMeta {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CHUNK_META_LEN);
        match self {
            Self::Series(SeriesDigest(digest)) => {
                bytes.put_u8(SERIES_KIND);
                bytes.put_slice(&digest);
            }
            Self::Chunk(SeriesDigest(digest), facts) | Self::Ids(SeriesDigest(digest), facts) => {
                let ChunkFacts { interval, fetched_at, epoch, rows, may_move } = facts;
                bytes.put_u8(if let Self::Chunk(..) = self { CHUNK_KIND } else { IDS_KIND });
                bytes.put_slice(&digest);
                for timestamp in [interval.start, interval.end, fetched_at] {
                    bytes.put_i64_le(timestamp.as_nanos());
                }
                bytes.put_u64_le(epoch);
                bytes.put_u32_le(rows);
                bytes.put_u8(u8::from(may_move));
            }
        }
        bytes
    }

    /// Parses meta bytes; `None` for those of another version.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let len = bytes.len();
        let kind = bytes.try_get_u8().ok()?;
        let (digest, mut rest) = bytes.split_first_chunk::<DIGEST_LEN>()?;
        let digest = SeriesDigest(*digest);
        match (kind, len) {
            (SERIES_KIND, SERIES_META_LEN) => Some(Self::Series(digest)),
            (CHUNK_KIND | IDS_KIND, CHUNK_META_LEN) => {
                let mut timestamp = || Timestamp::from_nanos(rest.get_i64_le());
                let (interval, fetched_at) = (Interval::new(timestamp(), timestamp()), timestamp());
                let (epoch, rows) = (rest.get_u64_le(), rest.get_u32_le());
                let may_move = rest.get_u8() == 1;
                let facts = ChunkFacts { interval, fetched_at, epoch, rows, may_move };
                Some(if kind == CHUNK_KIND { Self::Chunk(digest, facts) } else { Self::Ids(digest, facts) })
            }
            _ => None,
        }
    }
}

/// A series as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesText {
    account: String,
    stream: String,
    agentic: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<KnownFilter>,
    /// A body that only the upstream understands, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opaque: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<(String, String)>,
}

/// The JSON of a series; `None` if it is too long to be kept with its chunks.
pub(super) fn series_to_bytes(series: &Series) -> Option<Vec<u8>> {
    // Destructured, so that a new member is a compile error here.
    let Series { account, stream, filter, parameters, agentic } = series;
    let (filter, opaque) = match filter {
        Filter::None => (None, None),
        Filter::Known(filter) => (Some(KnownFilter::clone(filter)), None),
        Filter::Opaque(body) if body.len() > MAX_OPAQUE_BYTES => return None,
        Filter::Opaque(body) => (None, Some(hex::encode(body))),
    };
    let (account, stream) = (account.to_string(), stream.to_string());
    let text = SeriesText { account, stream, agentic: *agentic, filter, opaque, parameters: parameters.clone() };
    serde_json::to_vec(&text).ok()
}

/// Parses the JSON of a series; `None` for other bytes.
pub(super) fn series_from_bytes(bytes: &[u8]) -> Option<Series> {
    let SeriesText { account, stream, agentic, filter, opaque, parameters } = serde_json::from_slice(bytes).ok()?;
    let filter = match (filter, opaque) {
        (None, None) => Filter::None,
        (Some(filter), None) => Filter::Known(Box::new(filter)),
        (None, Some(body)) => Filter::Opaque(Bytes::from(hex::decode_all(&body)?)),
        (Some(_), Some(_)) => return None,
    };
    Some(Series { account: account.into(), stream: stream.into(), filter, parameters, agentic })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Series> {
        let filter = prop_oneof![
            Just(Filter::None),
            prop::collection::btree_set(".{0,8}", 0..3).prop_map(|ids| Filter::Known(Box::new(KnownFilter {
                conversation_ids: ids,
                ..KnownFilter::default()
            }))),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|body| Filter::Opaque(body.into())),
        ];
        let names = (".{1,8}", ".{1,8}", any::<bool>());
        (names, filter, prop::collection::vec((".{0,5}", ".{0,5}"), 0..3)).prop_map(
            |((account, stream, agentic), filter, parameters)| {
                let (account, stream) = (account.into(), stream.into());
                Series { account, stream, filter, parameters, agentic }
            },
        )
    }

    proptest! {
        #[test]
        fn series_text_is_parsed_back(series in series()) {
            prop_assert_eq!(series_from_bytes(&series_to_bytes(&series).unwrap()), Some(series));
        }

        #[test]
        fn meta_bytes_are_parsed_back_and_no_other_length_is(
            text in ".{0,20}", start: i64, end: i64, fetched: i64, epoch: u64, rows: u32, may_move: bool, cut in 0usize..61
        ) {
            let at = Timestamp::from_nanos;
            let interval = Interval::new(at(start), at(end));
            let facts = ChunkFacts { interval, fetched_at: at(fetched), epoch, rows, may_move };
            let digest = SeriesDigest::of(&text);
            for meta in [RecordMeta::Series(digest), RecordMeta::Chunk(digest, facts), RecordMeta::Ids(digest, facts)] {
                let bytes = meta.to_bytes();
                prop_assert_eq!(RecordMeta::parse(&bytes), Some(meta));
                prop_assert_eq!(RecordMeta::parse(&bytes[..cut.min(bytes.len() - 1)]), None);
                prop_assert_eq!(RecordMeta::parse(&[&bytes[..], b"x"].concat()), None);
            }
        }
    }

    #[test]
    fn series_with_a_long_opaque_body_is_not_kept() {
        let filter = Filter::Opaque(vec![7; MAX_OPAQUE_BYTES + 1].into());
        let series = Series { account: "a".into(), stream: "s".into(), filter, parameters: Vec::new(), agentic: false };
        assert_eq!(series_to_bytes(&series), None);
    }
}
