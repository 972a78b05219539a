//! Fuzz target of the messages between replicas.

use bytes::Bytes;
use secrecy::SecretString;

use super::{DecodeError, decode_body, decode_head, encode};
use crate::fuzz_targets::Input;
use crate::replicas::cipher::Cipher;
use crate::replicas::mailbox::Recipient;
use crate::replicas::message::MessageKind;
use crate::replicas::replica_id::ReplicaId;

/// A message that is decoded is the same after it was encoded and decoded again. The first byte of the input says
/// whether the message is sealed, and whether the sealed bytes are changed; the rest is the payload, with the body of a
/// sealed message in plain text.
///
/// # Panics
/// If a property does not hold.
pub fn replica_message(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let secrets = [SecretString::from("a key")];
    let cipher = Cipher::new(secrets.iter().filter(|_| mode & 1 == 1)).expect("a key");
    let me = ReplicaId::parse(b"fedcba9876543210").expect("an identity");
    let place = input.below(1 << 16);
    let payload = Bytes::copy_from_slice(input.rest());
    let Some((kind, from, body)) = decode_head(&payload) else { return };
    let is_sealed = mode & 1 == 1 && kind == MessageKind::Fetch;
    let body = if is_sealed { sealed(&cipher, &body, &from, &me, (mode & 2 == 2).then_some(place)) } else { body };
    let message = decode_body(kind, body, &cipher, &from, &me);
    if is_sealed && mode & 2 == 2 {
        return assert_eq!(message, Err(DecodeError::Unreadable), "changed at {place}");
    }
    let Ok(message) = message else { return };
    assert_eq!(message.kind(), kind);
    let again: Bytes = encode(&message, &cipher, &from, &Recipient::One(me.clone())).expect("a key").into();
    let (kind_again, from_again, body) = decode_head(&again).expect("its own encoding");
    assert_eq!((kind_again, &from_again), (kind, &from));
    assert_eq!(decode_body(kind, body, &cipher, &from, &me), Ok(message));
}

/// A body, sealed and perhaps changed in one bit.
fn sealed(cipher: &Cipher, body: &Bytes, from: &ReplicaId, me: &ReplicaId, changed: Option<usize>) -> Bytes {
    let mut sealed = cipher.seal(body.to_vec(), &super::seal_name(from, me)).expect("randomness");
    if let Some(place) = changed {
        let len = sealed.len();
        sealed[place / 8 % len] ^= 1 << (place % 8);
    }
    sealed.into()
}
