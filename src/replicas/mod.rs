//! Everything that replicas say to each other: one [`Message`] type, one codec, one seal.
//!
//! A replica publishes messages through Redis and takes them in at a [`Mailbox`]. Delivery is fast and not guaranteed,
//! so each sender repeats what must arrive, or leaves it in Redis as well.
//!
//! | file | contents |
//! | --- | --- |
//! | `replica_id.rs` | the identity of a process |
//! | `mailbox.rs` | publishes messages and hands out those that come in |
//! | `message.rs` | the messages, and which of them are sealed and versioned |
//! | `fetch_message.rs` | the messages about windows that the leader fetches for a follower |
//! | `tombstone.rs` | the time of a stream that a purge removes |
//! | `codec.rs` | from a message to bytes and back |
//! | `cipher.rs` | AES-256-GCM for messages and for values in Redis |
//!
//! The formats, and how a fleet of two versions works, are decided in `docs/adr/0045-message-versions.md`.

mod cipher;
mod codec;
mod fetch_message;
mod mailbox;
mod message;
mod replica_id;
mod tombstone;

pub use self::cipher::{Cipher, DecryptError};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::codec::fuzz;
pub use self::fetch_message::{
    ChunkRef, FetchMessage, FetchReply, FetchSettings, FetchTerms, RemoteFetch, RemoteResult, RequesterJson,
    SeriesJson, WireError,
};
pub use self::mailbox::{Inbox, Incoming, Mailbox, Recipient};
pub use self::message::{Message, MessageKind, PermitMessage, PurgeMessage, QuotaMessage};
pub use self::replica_id::ReplicaId;
pub use self::tombstone::{Tombstone, parse_epoch};
