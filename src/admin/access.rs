//! Access control of the admin listener: requests must use one of its names and, if configured, carry the admin token.
//! Health, metrics and the pages of problem types are open to all. A browser exchanges the token for a session.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use secrecy::ExposeSecret as _;

use super::page;
use super::response::html;
use super::same_origin::{cookie, is_from_browser, is_same_origin};
use super::session::{CsrfToken, Nonce, SESSION_LIFETIME, Sessions, sha256};
use crate::config;
use crate::edge::{AllowedHosts, HeadError, PeerCertificate, bearer_token};
use crate::hex;
use crate::live::Live;
use crate::problem::{Problem, ProblemType, is_page_path};
use crate::window::Timestamp;

/// Paths of probes, which are served under any host name and without a client certificate.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/startupz"];
/// Paths that are served without the admin token under the listener's names: what a browser needs to sign in.
const SIGN_IN_PATHS: [&str; 4] = ["/sign-in", page::STYLE_PATH, page::SCRIPT_PATH, page::SIGN_IN_SCRIPT_PATH];
/// The header with the CSRF token of a change that a script asks for.
const CSRF_HEADER: &str = "x-csrf-token";
/// The names of a session's cookie. Browsers accept the first one over TLS only.
const COOKIE_NAMES: [&str; 2] = ["__Host-koregate-admin", "koregate-admin"];

/// Access to the admin listener.
pub(super) struct Access {
    rules: Live<Rules>,
    /// The CSRF token of pages that are served without a session.
    csrf: CsrfToken,
    /// Locked for a lookup only.
    sessions: Arc<Mutex<Sessions>>,
}

/// Access rules, which a reload replaces.
struct Rules {
    hosts: AllowedHosts,
    /// SHA-256 of the token. Digests have one length, so the time of a comparison does not reveal the token's.
    token: Option<[u8; 32]>,
    is_tls: bool,
    /// Whether clients need a certificate, except for probes.
    needs_certificate: bool,
}

/// The sender of an admin request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminRequester {
    /// A client that presented the admin token.
    Token,
    /// A browser that has presented the admin token before, and the CSRF token of its session.
    Session(CsrfToken),
    /// A client at this address, where no token is configured or needed.
    Peer(SocketAddr),
}

impl fmt::Display for AdminRequester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("admin token"),
            Self::Session(_) => f.write_str("admin token, by the status page"),
            Self::Peer(address) => address.fmt(f),
        }
    }
}

/// Reason why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("the admin token is required, as authorization: Bearer")]
    NoToken,
    #[error("a client certificate that has not expired is required here; probes need none")]
    NoCertificate,
    #[error(
        "a change that a browser asks for (with an Origin or a session) needs the origin and the token of the status page"
    )]
    Forged,
}

impl Access {
    pub(super) fn new(config: &config::AdminConfig) -> Self {
        Self { rules: Live::new(Rules::new(config)), csrf: CsrfToken(random()), sessions: Arc::default() }
    }

    /// Replaces the rules for all requests that come from now on. Sessions end if the token is another one.
    pub(super) fn configure(&self, config: &config::AdminConfig) {
        self.rules.replace(Rules::new(config));
    }

    /// Checks a request and identifies its sender.
    ///
    /// # Errors
    /// If the request is refused.
    pub(super) fn admit<B>(
        &self,
        request: &Request<B>,
        peer: SocketAddr,
        now: Timestamp,
    ) -> Result<AdminRequester, AccessError> {
        let rules = self.rules.load();
        let path = request.uri().path();
        let is_probe = PROBES.contains(&path);
        if !is_probe && rules.needs_certificate {
            // The handshake may be long ago, and perhaps only resumed a session.
            let certificate = request.extensions().get::<PeerCertificate>();
            if certificate.is_none_or(|certificate| certificate.has_expired(now)) {
                return Err(AccessError::NoCertificate);
            }
        }
        if is_probe || path == "/metrics" || is_page_path(path) {
            AllowedHosts::any().check(request)?;
            return Ok(AdminRequester::Peer(peer));
        }
        rules.hosts.check(request)?;
        let Some(expected) = &rules.token else { return Ok(AdminRequester::Peer(peer)) };
        if SIGN_IN_PATHS.contains(&path) {
            return Ok(AdminRequester::Peer(peer));
        }
        if let Some(shown) = bearer_token(request.headers()) {
            return if rules.is_token(shown) { Ok(AdminRequester::Token) } else { Err(AccessError::NoToken) };
        }
        let session = session_cookie(request.headers()).and_then(|id| self.sessions().find(now, &id, expected));
        session.map(AdminRequester::Session).ok_or(AccessError::NoToken)
    }

    /// Checks a request that changes something: of a browser, it needs the origin of the status page and its CSRF token,
    /// which is in a header or, as `form_token`, in the form.
    ///
    /// # Errors
    /// If another page may have sent the request.
    pub(super) fn check_change(
        &self,
        requester: AdminRequester,
        headers: &HeaderMap,
        form_token: Option<&str>,
    ) -> Result<(), AccessError> {
        if !matches!(requester, AdminRequester::Session(_)) && !is_from_browser(headers) {
            return Ok(());
        }
        let token = form_token.or_else(|| headers.get(CSRF_HEADER)?.to_str().ok());
        let is_own = is_same_origin(headers) && token.is_some_and(|token| self.csrf_of(requester).is(token));
        is_own.then_some(()).ok_or(AccessError::Forged)
    }

    /// The CSRF token of the pages that this client is sent.
    pub(super) fn csrf_of(&self, requester: AdminRequester) -> CsrfToken {
        match requester {
            AdminRequester::Session(csrf) => csrf,
            AdminRequester::Token | AdminRequester::Peer(_) => self.csrf,
        }
    }

    /// Whether there is a token that browsers exchange for a session.
    pub(super) fn has_token(&self) -> bool {
        self.rules.load().token.is_some()
    }

    /// Opens a session for a browser that shows the admin token. The value of `Set-Cookie`; `None` if the token is wrong.
    pub(super) fn sign_in(&self, shown: &[u8], now: Timestamp) -> Option<HeaderValue> {
        let rules = self.rules.load();
        let expected = rules.token.filter(|_| rules.is_token(shown))?;
        let cookie: Nonce = random();
        self.sessions().open(now, &cookie, random(), expected);
        Some(self.set_cookie(&hex::encode(&cookie), SESSION_LIFETIME.as_secs()))
    }

    /// Ends the session of a browser. The value of `Set-Cookie`.
    pub(super) fn sign_out(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(cookie) = session_cookie(headers) {
            self.sessions().close(&cookie);
        }
        self.set_cookie("", 0)
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        let (name, secure) =
            if self.rules.load().is_tls { (COOKIE_NAMES[0], "; Secure") } else { (COOKIE_NAMES[1], "") };
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    fn new(config: &config::AdminConfig) -> Self {
        let token = config.token.as_ref().map(|token| sha256(token.expose_secret().as_bytes()));
        let tls = config.tls.as_ref();
        let needs_certificate = tls.is_some_and(|tls| tls.client_ca.is_some());
        Self { hosts: AllowedHosts::only(&config.hosts), token, is_tls: tls.is_some(), needs_certificate }
    }

    fn is_token(&self, shown: &[u8]) -> bool {
        self.token.is_some_and(|expected| verify_slices_are_equal(&sha256(shown), &expected).is_ok())
    }
}

/// The cookie of a session, if the request has one.
fn session_cookie(headers: &HeaderMap) -> Option<Nonce> {
    COOKIE_NAMES.iter().find_map(|name| hex::decode(cookie(headers, name)?))
}

fn random() -> Nonce {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system's source of randomness works");
    bytes
}

/// The answer to a refused request for `path`. A browser that asks for the status page gets a sign-in page.
pub(super) fn refuse(error: &AccessError, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let detail = error.to_string();
    let problem = |kind| Problem::new(kind, &detail).response();
    match error {
        AccessError::Head(HeadError::Malformed(_)) => {
            let mut response = problem(ProblemType::BadRequest);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        AccessError::Head(HeadError::Misdirected) => problem(ProblemType::Misdirected),
        AccessError::NoToken => {
            let mut response = if path == "/" && takes_html(headers) {
                html(StatusCode::UNAUTHORIZED, page::sign_in(false))
            } else {
                problem(ProblemType::Unauthorized)
            };
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"koregate\""));
            response
        }
        AccessError::Head(HeadError::CrossSite(_)) | AccessError::NoCertificate | AccessError::Forged => {
            problem(ProblemType::Forbidden)
        }
    }
}

fn takes_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|accepted| accepted.to_str().ok()).any(|accepted| accepted.contains("text/html"))
}

#[cfg(test)]
mod tests;
