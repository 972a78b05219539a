//! The sessions of browsers that have shown the admin token, and the tokens against cross-site request forgery (CSRF).
//! Pure: time and random bytes are arguments.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::window::Timestamp;

/// How long a session lasts.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_hours(12);
/// Maximum sessions; a further one ends the oldest.
const MAX_SESSIONS: usize = 64;

/// The bytes of a session's cookie, or of a CSRF token.
pub(super) type Nonce = [u8; 32];

/// The token that a page of the session sends with each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CsrfToken(pub(super) Nonce);

impl CsrfToken {
    /// Whether `text` is the token in hexadecimal digits; in constant time.
    pub(super) fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(self.to_string().as_bytes(), text.as_bytes()).is_ok()
    }
}

impl std::fmt::Display for CsrfToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

/// A browser that has shown the admin token.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// SHA-256 of the cookie, which is kept nowhere.
    cookie: [u8; 32],
    csrf: CsrfToken,
    /// SHA-256 of the admin token that was shown: another one ends the session.
    admin_token: [u8; 32],
    expires_at: Timestamp,
}

/// The sessions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Session>);

impl Sessions {
    /// Opens a session at `now` for a browser that has shown the admin token with this digest. `cookie` and `csrf` are
    /// random.
    pub(super) fn open(&mut self, now: Timestamp, cookie: &Nonce, csrf: Nonce, admin_token: [u8; 32]) {
        self.0.retain(|session| session.expires_at > now);
        if self.0.len() >= MAX_SESSIONS {
            self.0.remove(0);
        }
        let expires_at = now + SESSION_LIFETIME;
        self.0.push(Session { cookie: sha256(cookie), csrf: CsrfToken(csrf), admin_token, expires_at });
    }

    /// The CSRF token of the session with this cookie, if it was opened with the present admin token and has not
    /// expired.
    pub(super) fn find(&self, now: Timestamp, cookie: &Nonce, admin_token: &[u8; 32]) -> Option<CsrfToken> {
        let session = self.position(cookie).map(|place| &self.0[place])?;
        let is_valid = session.expires_at > now && session.admin_token == *admin_token;
        is_valid.then_some(session.csrf)
    }

    /// Ends the session with this cookie.
    pub(super) fn close(&mut self, cookie: &Nonce) {
        if let Some(place) = self.position(cookie) {
            self.0.remove(place);
        }
    }

    fn position(&self, cookie: &Nonce) -> Option<usize> {
        let digest = sha256(cookie);
        self.0.iter().position(|session| verify_slices_are_equal(&session.cookie, &digest).is_ok())
    }
}

/// The SHA-256 digest of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 32] = [7; 32];

    fn at(second: u64) -> Timestamp {
        Timestamp::from_seconds(0) + Duration::from_secs(second)
    }

    #[test]
    fn session_is_found_by_its_cookie_until_it_expires() {
        let mut sessions = Sessions::default();
        sessions.open(at(0), &[1; 32], [2; 32], TOKEN);
        let lifetime = SESSION_LIFETIME.as_secs();
        assert_eq!(sessions.find(at(lifetime - 1), &[1; 32], &TOKEN), Some(CsrfToken([2; 32])));
        assert_eq!(sessions.find(at(lifetime), &[1; 32], &TOKEN), None);
        assert_eq!(sessions.find(at(1), &[3; 32], &TOKEN), None, "another cookie");
        assert_eq!(sessions.find(at(1), &[1; 32], &[8; 32]), None, "the admin token was changed");
        sessions.close(&[1; 32]);
        assert_eq!(sessions.find(at(1), &[1; 32], &TOKEN), None);
    }

    #[test]
    fn further_session_ends_the_oldest() {
        let mut sessions = Sessions::default();
        for nth in 0..=MAX_SESSIONS {
            let cookie = [u8::try_from(nth).unwrap(); 32];
            sessions.open(at(nth as u64), &cookie, [0; 32], TOKEN);
        }
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
        let is_open = |cookie| sessions.find(at(100), &[cookie; 32], &TOKEN).is_some();
        assert_eq!([0, 1, 64].map(is_open), [false, true, true]);
    }

    #[test]
    fn csrf_token_is_compared_as_text() {
        let token = CsrfToken([0xab; 32]);
        assert!(token.is(&"ab".repeat(32)));
        for wrong in ["", "ab", &"ab".repeat(33), &"ac".repeat(32), &"AB".repeat(32)] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
