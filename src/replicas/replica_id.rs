//! The identity of a process among the replicas.

use std::fmt;
use std::sync::Arc;

/// The identity of one process: 16 hexadecimal digits, drawn at random when it starts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    /// Digits of an identity.
    pub(super) const DIGITS: usize = 16;

    /// Draws a new identity.
    ///
    /// # Panics
    /// If the system has no randomness; without it, TLS does not start either.
    pub fn random() -> Self {
        let mut bytes = [0; Self::DIGITS / 2];
        getrandom::fill(&mut bytes).expect("the system's source of randomness works");
        Self(format!("{:016x}", u64::from_be_bytes(bytes)).into())
    }

    /// Parses an identity; `None` if `text` is not 16 hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_id = text.len() == Self::DIGITS && text.iter().all(u8::is_ascii_hexdigit);
        is_id.then(|| Self(String::from_utf8_lossy(text).into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
