//! Names as parts of keys.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A name as a part of a key or of a text with separators: percent-encoded, so that it contains ASCII letters, digits
/// and `%` only, and neither a separator nor a character of a glob-style pattern.
pub fn key_segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}
