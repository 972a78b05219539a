//! Fuzz target of the names and values that the cache reads in Redis.

use bytes::Bytes;

use super::keys::{CellKey, ChunkField};
use crate::cache::chunk::{Chunk, ids_codec};
use crate::redis_client::Reply;
use crate::replicas::Tombstone;

/// Reads a value as each of those that the cache has in Redis. A name that is parsed is the same after it was printed.
pub(crate) fn value(value: &Bytes) {
    if let Some(field) = ChunkField::parse(value) {
        assert_eq!(ChunkField::parse(field.name().as_bytes()), Some(field));
    }
    if let Some(field) = ChunkField::parse_ids(value) {
        assert_eq!(ChunkField::parse_ids(field.ids_name().as_bytes()), Some(field));
    }
    if let Some(key) = CellKey::parse("k", value) {
        assert!(key.interval.start <= key.interval.end && !key.account.contains(':') && !key.stream.contains(':'));
    }
    assert!(Chunk::from_bytes(value, b"").is_none(), "a chunk without a checksum of its name");
    assert!(ids_codec::from_bytes(value, b"").is_none(), "a filter without a checksum of its name");
    let tombstone = Tombstone::parse(&String::from_utf8_lossy(value));
    assert_eq!(Tombstone::parse(&tombstone.to_string()), tombstone);
}

/// All values in a reply.
pub(crate) fn values(reply: &Reply) {
    match reply {
        Reply::Bytes(bytes) => value(bytes),
        Reply::Array(replies) => replies.iter().for_each(values),
        Reply::Nil | Reply::Integer(_) | Reply::Status(_) | Reply::Error(_) => {}
    }
}
