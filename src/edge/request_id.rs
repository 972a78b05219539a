//! The identifier of a request, shared by its log lines, its problem document and its answer.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Builder, Uuid};

use crate::window::Timestamp;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Placeholder for a missing identifier.
const MISSING: HeaderValue = HeaderValue::from_static("-");
/// Longest `X-Request-Id` that is taken over from a caller, in bytes.
const MAX_CALLER_ID_LENGTH: usize = 128;

/// Letters, digits, `-`, `_` and `.` only, so that an identifier cannot forge a log line.
#[derive(Clone, Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's own identifier if it is valid, or a new one.
    pub(super) fn of(own: Option<&HeaderValue>, now: impl FnOnce() -> Timestamp) -> Self {
        let own = own.filter(|id| is_harmless(id.as_bytes()));
        own.map_or_else(|| Self::new(now()), |id| Self(id.clone()))
    }

    /// A UUID of version 7. Guessing it gains nothing, so its random bits need no system call.
    fn new(now: Timestamp) -> Self {
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let millis = u64::try_from(now.as_nanos() / 1_000_000).unwrap_or_default();
        let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let mut text = Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut text);
        Self(HeaderValue::from_str(text).unwrap_or(MISSING))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    /// Puts the identifier into the head of the answer.
    pub(super) fn set_header(&mut self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, std::mem::replace(&mut self.0, MISSING));
    }
}

fn is_harmless(id: &[u8]) -> bool {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_CALLER_ID_LENGTH).contains(&id.len()) && id.iter().all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(id: &str) -> String {
        let own = HeaderValue::from_bytes(id.as_bytes()).ok();
        RequestId::of(own.as_ref(), Timestamp::default).as_str().to_owned()
    }

    #[test]
    fn request_id_that_could_forge_a_log_line_is_replaced() {
        for id in ["a b", "", "x\u{7f}", "\u{e9}", &"x".repeat(129)] {
            assert_ne!(accepted(id), id);
        }
        for id in ["mine-1", "A_b.c", &"x".repeat(128)] {
            assert_eq!(accepted(id), id);
        }
    }

    #[test]
    fn new_request_id_is_a_uuid_with_its_time() {
        let id = Uuid::parse_str(&accepted("")).unwrap();
        assert_eq!((id.get_version_num(), id.get_timestamp().unwrap().to_unix()), (7, (0, 0)));
        assert_ne!(accepted(""), accepted(""));
    }
}
