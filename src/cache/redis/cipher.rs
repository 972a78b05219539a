//! Seals what leaves the process: conversations are personal data (AES-256-GCM, by aws-lc).
//!
//! A sealed value is the mark `kgs1`, the name of its key (four bytes), a random nonce, and the sealed bytes with their
//! tag. The name under which it is kept is bound in as associated data, so that a value under another name does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};

const MARK: &[u8; 4] = b"kgs1";
const KEY_NAME: usize = 4;

/// The keys: new values are sealed with the first, and any opens.
#[derive(Debug)]
pub(in crate::cache) struct Cipher {
    keys: Vec<Key>,
}

struct Key {
    /// Tells in a value which key it needs; derived, so that it tells nothing of the key.
    name: [u8; KEY_NAME],
    key: LessSafeKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum DecryptError {
    /// It was sealed with a key that is not here, or not sealed although it should be, or sealed although there is no key.
    WrongKey,
    /// It is not what was sealed, or not under this name.
    Damaged,
}

impl Cipher {
    /// Seals with the first of `secrets`; without any, values stay as they are.
    pub(in crate::cache) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Option<Self> {
        let keys: Option<Vec<Key>> = secrets.into_iter().map(Key::derive).collect();
        Some(Self { keys: keys? })
    }

    /// The value to keep under `name`.
    pub(in crate::cache) fn seal(&self, mut value: Vec<u8>, name: &[u8]) -> Option<Vec<u8>> {
        let Some(Key { name: key_name, key }) = self.keys.first() else { return Some(value) };
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut value).ok()?;
        Some([&MARK[..], key_name, &nonce, &value].concat())
    }

    /// The value that was sealed under `name`.
    pub(in crate::cache) fn open(&self, value: Bytes, name: &[u8]) -> Result<Bytes, DecryptError> {
        let is_sealed = value.starts_with(MARK);
        if self.keys.is_empty() {
            return if is_sealed { Err(DecryptError::WrongKey) } else { Ok(value) };
        }
        let (_, rest) = value.split_at_checked(MARK.len()).filter(|_| is_sealed).ok_or(DecryptError::WrongKey)?;
        let (key_name, rest) = rest.split_at_checked(KEY_NAME).ok_or(DecryptError::Damaged)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(DecryptError::Damaged)?;
        let key = self.keys.iter().find(|key| key.name == key_name).ok_or(DecryptError::WrongKey)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.key.open_in_place(nonce, Aad::from(name), &mut opened).map_err(|_| DecryptError::Damaged)?.len();
        opened.truncate(len);
        Ok(opened.into())
    }
}

impl Key {
    /// Any secret will do; one of 32 random bytes or more is as strong as the cipher.
    fn derive(secret: &SecretString) -> Option<Self> {
        let master = Salt::new(HKDF_SHA256, b"koregate").extract(secret.expose_secret().as_bytes());
        let mut bytes = [0; 32];
        master.expand(&[b"chunks"], &AES_256_GCM).ok()?.fill(&mut bytes).ok()?;
        let mut name = [0; KEY_NAME];
        name.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..KEY_NAME]);
        Some(Self { name, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secrets: &[&str]) -> Cipher {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        Cipher::new(&secrets).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_and_shows_nothing() {
        let seal = seal(&["secret"]);
        let sealed = seal.seal(b"what somebody said".to_vec(), b"name").unwrap();
        assert!(!sealed.windows(8).any(|part| part == b"somebody"));
        assert_eq!(seal.open(sealed.clone().into(), b"name").unwrap(), "what somebody said");
        assert_eq!(seal.open(sealed.clone().into(), b"other"), Err(DecryptError::Damaged));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(seal.open(damaged.into(), b"name").is_err(), "byte {place}");
            assert!(seal.open(sealed[..place].to_vec().into(), b"name").is_err(), "cut at {place}");
        }
    }

    #[test]
    fn keys_can_be_changed_without_losing_what_is_there() {
        let (old, both, new) = (seal(&["old"]), seal(&["new", "old"]), seal(&["new"]));
        let by_old: Bytes = old.seal(b"x".to_vec(), b"n").unwrap().into();
        let by_both: Bytes = both.seal(b"x".to_vec(), b"n").unwrap().into();
        assert_eq!(
            (both.open(by_old.clone(), b"n").unwrap(), new.open(by_both, b"n").unwrap()),
            ("x".into(), "x".into())
        );
        assert_eq!(new.open(by_old, b"n"), Err(DecryptError::WrongKey));
    }

    #[test]
    fn sealed_and_plain_are_not_mixed_up() {
        let (none, some) = (seal(&[]), seal(&["secret"]));
        assert_eq!(none.open(some.seal(b"x".to_vec(), b"n").unwrap().into(), b"n"), Err(DecryptError::WrongKey));
        assert_eq!(some.open(none.seal(b"x".to_vec(), b"n").unwrap().into(), b"n"), Err(DecryptError::WrongKey));
    }
}
