//! The messages, and what holds for each kind.
//!
//! | kind | receivers | sealed | version |
//! | --- | --- | --- | --- |
//! | [`QuotaMessage`] | all, or one | no, since replicas with different keys share the quota | never changes |
//! | [`PurgeMessage`] | all, or one | no, since a purge must reach replicas with other keys | never changes |
//! | [`FetchMessage`] | one | yes, bound to sender and receiver | [`super::FetchSettings::VERSION`] |
//! | [`FetchMessage::Unreadable`] | one | no, since the receiver may have another key | never changes |
//!
//! Fetch messages are sealed because they name callers and filters.
//! No message contains an item: a fetched chunk goes through Redis, and the message says where it is.

use std::sync::Arc;

use super::fetch_message::FetchMessage;
use super::tombstone::Tombstone;
use crate::request::Requester;

/// A message from one replica to others.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// About the quota of an account.
    Quota {
        /// The account.
        account: Arc<str>,
        /// The message about its quota.
        message: QuotaMessage,
    },
    /// About a purge.
    Purge(PurgeMessage),
    /// About windows that the leader fetches for a follower.
    Fetch(FetchMessage),
}

/// The kinds of [`Message`], each with one receiver in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// [`Message::Quota`].
    Quota,
    /// [`Message::Purge`].
    Purge,
    /// [`Message::Fetch`].
    Fetch,
}

/// A message about the quota of one account.
#[derive(Clone, Debug, PartialEq)]
pub enum QuotaMessage {
    /// The sender has started, or has other limits of calls now.
    Joined,
    /// The lease was taken or returned; Redis says which. Published by `quota/lease/sync.lua` too.
    LeaseChanged,
    /// Redis has granted calls to the sender. Published by `quota/lease/sync.lua` only.
    Granted {
        /// The number of the first call.
        first: u64,
        /// How many calls were granted.
        count: u32,
    },
    /// About a permit that the leader lends.
    Permit {
        /// The number of the permit, unique among those that one borrower requests.
        number: u64,
        /// The message about the permit.
        message: PermitMessage,
    },
}

/// A message about one permit that the leader lends to a replica with other settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermitMessage {
    /// The sender requests a permit.
    Request(Requester),
    /// The permit is granted under this name in the leader's ledger.
    Granted(Arc<str>),
    /// The quota is spent; a request is worthwhile after this number of milliseconds.
    Exhausted(u64),
    /// The call has ended, in another way than the next two; of earlier versions, in any way.
    Returned,
    /// The call was answered with a page.
    Answered,
    /// The upstream refused the call for its quota, and asked for a pause of this number of milliseconds.
    Refused(u64),
    /// The permit is not needed, and no call was made.
    Unused,
}

/// A message about a purge.
#[derive(Clone, Debug, PartialEq)]
pub enum PurgeMessage {
    /// A purge to apply and to confirm.
    Apply {
        /// The number of this request to confirm, unique for its sender.
        number: u64,
        /// The epoch of the purge.
        epoch: u64,
        /// The account whose data is purged.
        account: Arc<str>,
        /// The data that is purged.
        tombstone: Tombstone,
    },
    /// The purge that the receiver has sent under this number is applied.
    Applied {
        /// The number of [`PurgeMessage::Apply`].
        number: u64,
        /// How many chunks the sender has removed from its memory, if the purge has ids.
        chunks: Option<u64>,
    },
}

impl Message {
    /// The kind, which decides who receives the message in a process.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Quota { .. } => MessageKind::Quota,
            Self::Purge(_) => MessageKind::Purge,
            Self::Fetch(_) => MessageKind::Fetch,
        }
    }

    /// Whether the message is sealed where `cache.redis.encryption_key` is set; see the table above.
    pub(super) fn is_sealed(&self) -> bool {
        match self {
            Self::Quota { .. } | Self::Purge(_) | Self::Fetch(FetchMessage::Unreadable) => false,
            Self::Fetch(_) => true,
        }
    }
}
