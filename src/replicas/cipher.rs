//! Encryption of messages between replicas and of values in Redis, because conversations are personal data
//! (AES-256-GCM, by aws-lc).
//!
//! A sealed value is the mark `kgs1`, the id of its key (four bytes), a random nonce, and the ciphertext with its tag.
//! The name of the value is bound in as associated data, so that a value does not open under another name.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};

/// The first bytes of a sealed value.
const SEALED_MARK: &[u8; 4] = b"kgs1";
/// Bytes of the id of a key.
const KEY_ID_LEN: usize = 4;

/// The keys of `cache.redis`: new values are sealed with the first, and any of them opens.
#[derive(Debug)]
pub struct Cipher {
    keys: Vec<Key>,
}

struct Key {
    /// The part of a sealed value that says which key opens it: a digest, which does not reveal the key.
    id: [u8; KEY_ID_LEN],
    key: LessSafeKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecryptError {
    /// The value was sealed with an unknown key, is not sealed although there are keys, or is sealed although there are
    /// none.
    WrongKey,
    /// The value was changed, or was sealed under another name.
    Damaged,
}

impl Cipher {
    /// A cipher with a key for each of `secrets`, the current one first; without any, values stay plain. `None` if a
    /// key cannot be derived.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Option<Self> {
        let keys: Option<Vec<Key>> = secrets.into_iter().map(Key::derive).collect();
        Some(Self { keys: keys? })
    }

    /// Seals a value under `name`. `None` if there is no randomness.
    pub fn seal(&self, mut value: Vec<u8>, name: &[u8]) -> Option<Vec<u8>> {
        let Some(Key { id, key }) = self.keys.first() else { return Some(value) };
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut value).ok()?;
        Some([&SEALED_MARK[..], id, &nonce, &value].concat())
    }

    /// Opens a value that was sealed under `name`.
    ///
    /// # Errors
    /// If it was sealed with another key, was changed, or was sealed under another name.
    pub fn open(&self, value: Bytes, name: &[u8]) -> Result<Bytes, DecryptError> {
        let is_sealed = value.starts_with(SEALED_MARK);
        if self.keys.is_empty() {
            return if is_sealed { Err(DecryptError::WrongKey) } else { Ok(value) };
        }
        let (_, rest) =
            value.split_at_checked(SEALED_MARK.len()).filter(|_| is_sealed).ok_or(DecryptError::WrongKey)?;
        let (id, rest) = rest.split_at_checked(KEY_ID_LEN).ok_or(DecryptError::Damaged)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(DecryptError::Damaged)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or(DecryptError::WrongKey)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.key.open_in_place(nonce, Aad::from(name), &mut opened).map_err(|_| DecryptError::Damaged)?.len();
        opened.truncate(len);
        Ok(opened.into())
    }
}

impl Key {
    /// Derives a key from any secret; one of at least 32 random bytes is as strong as the cipher.
    fn derive(secret: &SecretString) -> Option<Self> {
        let master = Salt::new(HKDF_SHA256, b"koregate").extract(secret.expose_secret().as_bytes());
        let mut bytes = [0; 32];
        master.expand(&[b"chunks"], &AES_256_GCM).ok()?.fill(&mut bytes).ok()?;
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..KEY_ID_LEN]);
        Some(Self { id, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(secrets: &[&str]) -> Cipher {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        Cipher::new(&secrets).unwrap()
    }

    #[test]
    fn sealed_value_opens_only_unchanged_under_its_name() {
        let cipher = cipher(&["secret"]);
        let sealed = cipher.seal(b"what somebody said".to_vec(), b"name").unwrap();
        assert!(!sealed.windows(8).any(|part| part == b"somebody"));
        assert_eq!(cipher.open(sealed.clone().into(), b"name").unwrap(), "what somebody said");
        assert_eq!(cipher.open(sealed.clone().into(), b"other"), Err(DecryptError::Damaged));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(cipher.open(damaged.into(), b"name").is_err(), "byte {place}");
            assert!(cipher.open(sealed[..place].to_vec().into(), b"name").is_err(), "cut at {place}");
        }
    }

    #[test]
    fn rotated_keys_open_earlier_values() {
        let (old, both, new) = (cipher(&["old"]), cipher(&["new", "old"]), cipher(&["new"]));
        let by_old: Bytes = old.seal(b"x".to_vec(), b"n").unwrap().into();
        let by_both: Bytes = both.seal(b"x".to_vec(), b"n").unwrap().into();
        assert_eq!(
            (both.open(by_old.clone(), b"n").unwrap(), new.open(by_both, b"n").unwrap()),
            ("x".into(), "x".into())
        );
        assert_eq!(new.open(by_old, b"n"), Err(DecryptError::WrongKey));
    }

    #[test]
    fn sealed_and_plain_values_are_told_apart() {
        let (none, some) = (cipher(&[]), cipher(&["secret"]));
        assert_eq!(none.open(some.seal(b"x".to_vec(), b"n").unwrap().into(), b"n"), Err(DecryptError::WrongKey));
        assert_eq!(some.open(none.seal(b"x".to_vec(), b"n").unwrap().into(), b"n"), Err(DecryptError::WrongKey));
    }
}
