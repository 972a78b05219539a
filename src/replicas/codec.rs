//! The bytes of a message between replicas: from a message to what is published, and back.
//!
//! A payload is the kind (one byte), the sender (16 hexadecimal digits) and a body:
//!
//! | message | kind | body |
//! | --- | --- | --- |
//! | `QuotaMessage` | `q` | the account, percent-encoded, and `:` with words unless it is `LeaseChanged` |
//! | `PurgeMessage` | `p` | `bury N EPOCH ACCOUNT STREAM START END` or `done N`; with ids, `erase N EPOCH ACCOUNT STREAM START END IDS` or `erased N CHUNKS` |
//! | `FetchMessage` | `e` | JSON, sealed under the name `letter NUL SENDER NUL RECEIVER`; `?` for `Unreadable` |
//!
//! The words about a quota are `joined`, `FIRST:COUNT` for a grant, and for permits `borrow:N:CLASS:WEIGHT:CALLER`,
//! `lent:N:NAME`, `spent:N:MILLISECONDS`, `back:N`, `back:N:page`, `back:N:refused:MILLISECONDS` and `unused:N`. All other
//! words are read as `LeaseChanged`. Version 0.1.0 ignores what follows `back:N`.
//!
//! The tests hold literal bytes of version 0.1.0, which a replica of any later version must read and write.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::cipher::Cipher;
use super::fetch_message::{FetchMessage, FetchSettings};
use super::mailbox::Recipient;
use super::message::{Message, MessageKind, PermitMessage, PurgeMessage, QuotaMessage};
use super::replica_id::ReplicaId;
use super::tombstone::{Tombstone, parse_epoch};
use crate::redis_client::key_segment;
use crate::request::{Priority, Requester};

/// The body of [`FetchMessage::Unreadable`].
const UNREADABLE: &[u8] = b"?";
/// The body of [`QuotaMessage::Joined`], behind the account.
const JOINED: &str = "joined";

/// Why a payload is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// The payload is damaged, of an unknown kind, or sealed with an unknown key.
    #[error("a message that cannot be read")]
    Unreadable,
    /// The sender's fetch messages are of another version.
    #[error("a fetch message of version {0}")]
    UnknownVersion(u32),
}

/// Encodes a message. `None` if it cannot be sealed, or is to be sealed for more than one receiver.
pub(super) fn encode(message: &Message, cipher: &Cipher, from: &ReplicaId, to: &Recipient) -> Option<Vec<u8>> {
    let body = match message {
        Message::Quota { account, message } => encode_quota(account, message).into_bytes(),
        Message::Purge(message) => encode_purge(message).into_bytes(),
        Message::Fetch(FetchMessage::Unreadable) => UNREADABLE.to_vec(),
        Message::Fetch(message) => serde_json::to_vec(message).ok()?,
    };
    let body = match (message.is_sealed(), to) {
        (false, _) => body,
        (true, Recipient::One(to)) => cipher.seal(body, &seal_name(from, to))?,
        (true, Recipient::All) => return None,
    };
    Some([&[kind_byte(message.kind())], from.as_str().as_bytes(), &body].concat())
}

/// Splits a payload into kind, sender and body.
pub(super) fn decode_head(payload: &Bytes) -> Option<(MessageKind, ReplicaId, Bytes)> {
    let (byte, rest) = payload.split_first()?;
    let kinds = [MessageKind::Quota, MessageKind::Purge, MessageKind::Fetch];
    let kind = kinds.into_iter().find(|kind| kind_byte(*kind) == *byte)?;
    let from = ReplicaId::parse(rest.get(..ReplicaId::DIGITS)?)?;
    Some((kind, from, payload.slice(1 + ReplicaId::DIGITS..)))
}

/// Decodes the body of a message that `from` sent to `me`, or to all.
pub(super) fn decode_body(
    kind: MessageKind,
    body: Bytes,
    cipher: &Cipher,
    from: &ReplicaId,
    me: &ReplicaId,
) -> Result<Message, DecodeError> {
    match kind {
        MessageKind::Quota => decode_quota(&body),
        MessageKind::Purge => decode_purge(&String::from_utf8_lossy(&body)).map(Message::Purge),
        MessageKind::Fetch => return decode_fetch(body, cipher, &seal_name(from, me)).map(Message::Fetch),
    }
    .ok_or(DecodeError::Unreadable)
}

fn kind_byte(kind: MessageKind) -> u8 {
    match kind {
        MessageKind::Quota => b'q',
        MessageKind::Purge => b'p',
        MessageKind::Fetch => b'e',
    }
}

/// The associated data of a sealed message, so that it opens only for its receiver.
fn seal_name(from: &ReplicaId, to: &ReplicaId) -> Vec<u8> {
    format!("letter\0{from}\0{to}").into_bytes()
}

fn decode_fetch(body: Bytes, cipher: &Cipher, name: &[u8]) -> Result<FetchMessage, DecodeError> {
    if *body == *UNREADABLE {
        return Ok(FetchMessage::Unreadable);
    }
    let json = cipher.open(body, name).map_err(|_| DecodeError::Unreadable)?;
    let message = serde_json::from_slice(&json).map_err(|_| DecodeError::Unreadable)?;
    if let FetchMessage::Requests { settings, .. } = &message {
        match settings.version() {
            Some(FetchSettings::VERSION) => {}
            Some(version) => return Err(DecodeError::UnknownVersion(version)),
            None => return Err(DecodeError::Unreadable),
        }
    }
    Ok(message)
}

fn encode_quota(account: &str, message: &QuotaMessage) -> String {
    let account = key_segment(account);
    match message {
        QuotaMessage::LeaseChanged => account,
        QuotaMessage::Joined => format!("{account}:{JOINED}"),
        QuotaMessage::Granted { first, count } => format!("{account}:{first}:{count}"),
        QuotaMessage::Permit { number, message } => format!("{account}:{}", encode_permit(*number, message)),
    }
}

fn decode_quota(body: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(body).ok()?;
    let (account, words) = text.split_once(':').unwrap_or((text, ""));
    let account = Arc::from(percent_decode_str(account).decode_utf8().ok()?);
    let granted = words.split_once(':').and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
    let message = if words == JOINED {
        QuotaMessage::Joined
    } else if let Some((first, count)) = granted {
        QuotaMessage::Granted { first, count }
    } else if let Some((number, message)) = decode_permit(words) {
        QuotaMessage::Permit { number, message }
    } else {
        // A hint to read Redis, which is never wrong to follow.
        QuotaMessage::LeaseChanged
    };
    Some(Message::Quota { account, message })
}

fn encode_permit(number: u64, message: &PermitMessage) -> String {
    match message {
        PermitMessage::Request(Requester { caller, weight, priority }) => {
            format!("borrow:{number}:{}:{weight}:{}", priority.label(), key_segment(caller))
        }
        PermitMessage::Granted(name) => format!("lent:{number}:{name}"),
        PermitMessage::Exhausted(milliseconds) => format!("spent:{number}:{milliseconds}"),
        PermitMessage::Returned => format!("back:{number}"),
        PermitMessage::Answered => format!("back:{number}:page"),
        PermitMessage::Refused(milliseconds) => format!("back:{number}:refused:{milliseconds}"),
        PermitMessage::Unused => format!("unused:{number}"),
    }
}

fn decode_permit(text: &str) -> Option<(u64, PermitMessage)> {
    let (keyword, rest) = text.split_once(':')?;
    let (number, rest) = rest.split_once(':').unwrap_or((rest, ""));
    let message = match keyword {
        "borrow" => {
            let mut parts = rest.split(':');
            let label = parts.next()?;
            let classes = [Priority::Interactive, Priority::Refresh, Priority::Background];
            let priority = classes.into_iter().find(|priority| priority.label() == label)?;
            let weight = parts.next()?.parse().ok().filter(|weight| *weight > 0)?;
            let caller = percent_decode_str(parts.next()?).decode_utf8().ok()?;
            PermitMessage::Request(Requester { caller: caller.into(), weight, priority })
        }
        "lent" => PermitMessage::Granted(rest.into()),
        "spent" => PermitMessage::Exhausted(rest.parse().ok()?),
        "back" => match rest.split_once(':') {
            _ if rest == "page" => PermitMessage::Answered,
            Some(("refused", milliseconds)) => PermitMessage::Refused(milliseconds.parse().ok()?),
            _ => PermitMessage::Returned,
        },
        "unused" => PermitMessage::Unused,
        _ => return None,
    };
    Some((number.parse().ok()?, message))
}

fn encode_purge(message: &PurgeMessage) -> String {
    match message {
        PurgeMessage::Apply { number, epoch, account, tombstone } => {
            // A replica of an earlier version does not know the second word, and does not confirm the purge.
            let keyword = if tombstone.ids.is_none() { "bury" } else { "erase" };
            format!("{keyword} {number} {epoch} {} {tombstone}", key_segment(account))
        }
        PurgeMessage::Applied { number, chunks: None } => format!("done {number}"),
        PurgeMessage::Applied { number, chunks: Some(chunks) } => format!("erased {number} {chunks}"),
    }
}

fn decode_purge(text: &str) -> Option<PurgeMessage> {
    let mut words = text.splitn(5, ' ');
    let (keyword, number) = (words.next()?, words.next()?.parse().ok()?);
    match (keyword, words.next()) {
        ("done", None) => Some(PurgeMessage::Applied { number, chunks: None }),
        ("erased", Some(chunks)) => {
            let chunks = chunks.parse().ok().filter(|_| words.next().is_none())?;
            Some(PurgeMessage::Applied { number, chunks: Some(chunks) })
        }
        ("bury" | "erase", Some(epoch)) => {
            let epoch = parse_epoch(epoch)?;
            let account = percent_decode_str(words.next()?).decode_utf8().ok()?.into();
            let tombstone = Tombstone::parse(words.next()?);
            Some(PurgeMessage::Apply { number, epoch, account, tombstone })
        }
        _ => None,
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
