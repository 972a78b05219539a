//! Access control of the admin listener: requests must use one of its names and, if configured, carry the admin token.
//! Health, metrics and the pages of problem types are open to all.

use std::fmt;
use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use secrecy::ExposeSecret as _;

use super::response::text;
use crate::config;
use crate::edge::{AllowedHosts, HeadError, bearer_token};
use crate::live::Live;
use crate::problem::{Problem, ProblemType, is_page_path};

/// Paths of probes and of Prometheus, which are served under any host name, as the pages of problem types are.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// The sign-in page, for a browser without the admin token: asks for it, stores it in the tab's `sessionStorage`, and
/// shows the status page.
const SIGN_IN: &str = include_str!("sign_in.html");

/// Access rules of the admin listener, which a reload replaces.
pub(super) struct Access(Live<Rules>);

struct Rules {
    hosts: AllowedHosts,
    /// SHA-256 of the token. Digests have one length, so the time of a comparison does not reveal the token's.
    token: Option<[u8; 32]>,
}

/// The sender of an admin request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminRequester {
    /// A client that presented the admin token.
    Token,
    /// A client at this address, where no token is configured or needed.
    Peer(SocketAddr),
}

impl fmt::Display for AdminRequester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("admin token"),
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
}

impl Access {
    pub(super) fn new(config: &config::AdminConfig) -> Self {
        Self(Live::new(Rules::new(config)))
    }

    /// Replaces the rules for all requests that come from now on.
    pub(super) fn configure(&self, config: &config::AdminConfig) {
        self.0.replace(Rules::new(config));
    }

    /// Checks a request and identifies its sender.
    ///
    /// # Errors
    /// If the request is refused.
    pub(super) fn admit<B>(&self, request: &Request<B>, peer: SocketAddr) -> Result<AdminRequester, AccessError> {
        let path = request.uri().path();
        if PUBLIC.contains(&path) || is_page_path(path) {
            AllowedHosts::any().check(request)?;
            return Ok(AdminRequester::Peer(peer));
        }
        let Rules { hosts, token } = &*self.0.load();
        hosts.check(request)?;
        let Some(expected) = token else { return Ok(AdminRequester::Peer(peer)) };
        let shown = sha256(bearer_token(request.headers()).ok_or(AccessError::NoToken)?);
        verify_slices_are_equal(&shown, expected).map_err(|_| AccessError::NoToken)?;
        Ok(AdminRequester::Token)
    }
}

impl Rules {
    fn new(config: &config::AdminConfig) -> Self {
        let token = config.token.as_ref().map(|token| sha256(token.expose_secret().as_bytes()));
        Self { hosts: AllowedHosts::only(&config.hosts), token }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
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
        AccessError::Head(HeadError::CrossSite(_)) => problem(ProblemType::Forbidden),
        AccessError::NoToken => {
            let mut response = if path == "/" && takes_html(headers) {
                text(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", SIGN_IN)
            } else {
                problem(ProblemType::Unauthorized)
            };
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"koregate\""));
            response
        }
    }
}

fn takes_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|accepted| accepted.to_str().ok()).any(|accepted| accepted.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;

    const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 50_000);

    fn admit(token: Option<&str>, path: &str, headers: &[(&str, &str)]) -> Result<AdminRequester, AccessError> {
        let config = config::AdminConfig {
            token: token.map(Into::into),
            hosts: vec!["ops.example".into()],
            metric_streams: 0,
            log: LevelFilter::INFO,
        };
        let request =
            headers.iter().fold(Request::builder().uri(path), |request, (name, value)| request.header(*name, *value));
        Access::new(&config).admit(&request.body(()).unwrap(), PEER.into())
    }

    #[test]
    fn token_is_needed_for_all_but_health_and_metrics() {
        let peer = Ok(AdminRequester::Peer(PEER.into()));
        for path in PUBLIC.into_iter().chain(["/koregate/v1/problems/", "/koregate/v1/problems/forbidden"]) {
            assert_eq!(admit(Some("right"), path, &[("host", "pod.example")]), peer, "{path}");
        }
        for path in ["/", "/api/v1/status", "/api/v1/callers", "/api/v1/purge", "/nothing", "/livez/"] {
            let admit_with = |value| admit(Some("right"), path, &[("host", "localhost"), ("authorization", value)]);
            assert_eq!(admit(Some("right"), path, &[("host", "localhost")]), Err(AccessError::NoToken), "{path}");
            for wrong in ["Bearer wrong", "Bearer righ", "Bearer rightt", "Bearer ", "Basic right", "right"] {
                assert_eq!(admit_with(wrong), Err(AccessError::NoToken), "{path}: {wrong}");
            }
            assert_eq!(admit_with("Bearer right"), Ok(AdminRequester::Token), "{path}");
            assert_eq!(admit(None, path, &[("host", "localhost")]), peer, "{path}");
        }
    }

    #[test]
    fn host_of_another_listener_is_refused_with_the_token_too() {
        let admit_with = |host| admit(Some("right"), "/", &[("host", host), ("authorization", "Bearer right")]);
        assert_eq!(admit_with("evil.example"), Err(AccessError::Head(HeadError::Misdirected)));
        assert_eq!(admit_with("ops.example:9090"), Ok(AdminRequester::Token));
    }
}
