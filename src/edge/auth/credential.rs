//! How a caller has proved who it is, for the audit log. Never the key itself.

use std::fmt;
use std::sync::Arc;

use crate::hex;

/// How a caller has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::edge) enum CallerCredential {
    /// An API key, by the first bytes of its SHA-256.
    Key([u8; 4]),
    /// The name in its certificate.
    Certificate(Arc<str>),
}

impl fmt::Display for CallerCredential {
    /// A key as `koregate check` prints its digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(digest) => write!(f, "sha256:{}", hex::encode(digest)),
            Self::Certificate(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_named_by_the_beginning_of_its_digest() {
        assert_eq!(CallerCredential::Key([0x0a, 0x1b, 0x2c, 0x3d]).to_string(), "sha256:0a1b2c3d");
        assert_eq!(CallerCredential::Certificate("spiffe://a/bi".into()).to_string(), "spiffe://a/bi");
    }
}
