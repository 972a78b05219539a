//! Host and origin checks: a listener answers only requests whose head has exactly one meaning, whose `Host` is one of
//! the listener's names, and which no web page of another site has sent.
//!
//! Without API keys every client that reaches a listener may call, including web pages in a browser on the same
//! machine: a page's host name can be made to resolve to loopback (DNS rebinding), and the browser then takes the
//! gateway for the page's own site. But the browser still sends that name as `Host`. Loopback names and IP addresses
//! cannot be made to resolve to another address, so they are always allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue, Request, Version, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names that `Host` may have at a listener. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct AllowedHosts(Arc<Allowed>);

#[derive(Debug)]
struct Allowed {
    /// `None` allows every name.
    names: Option<Box<[String]>>,
    /// The first `Host` that was allowed. Most requests repeat it, and need no parsing then.
    usual: OnceLock<HeaderValue>,
}

/// Reason to refuse a request by its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head is ambiguous or violates HTTP; the bytes that follow it on the connection cannot be trusted.
    #[error("{0}")]
    Malformed(&'static str),
    /// `Host` is not a name of this listener.
    #[error("Host is no name of this listener; its names are set in server.hosts or admin.hosts")]
    Misdirected,
    /// A web page of another site has sent the request.
    #[error("a web page of another site may not ask here: the request carries {0}")]
    CrossSite(&'static str),
}

impl AllowedHosts {
    /// Allows any host and any origin, for a listener or a path that is protected otherwise.
    pub fn any() -> Self {
        Self::new(None)
    }

    /// Allows loopback names, IP addresses, and `names` (lower case).
    pub fn only(names: &[String]) -> Self {
        Self::new(Some(names.into()))
    }

    fn new(names: Option<Box<[String]>>) -> Self {
        Self(Arc::new(Allowed { names, usual: OnceLock::new() }))
    }

    /// Checks the head of a request.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), HeadError> {
        if self.is_usual(request) {
            return Ok(());
        }
        let headers = request.headers();
        check_transfer_encoding(request)?;
        self.check_host(request)?;
        let Some(names) = &self.0.names else { return Ok(()) };
        // Missing from clients that are not browsers, and from old browsers.
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        if site.is_some_and(|site| !matches!(site, b"none" | b"same-origin")) {
            return Err(HeadError::CrossSite("the Sec-Fetch-Site of another site"));
        }
        if headers.contains_key(header::ORIGIN) {
            // A page may come from an IP address too; that must be this listener's.
            let host = host_of(request)?;
            let is_own = |origin: Host<'_>| origin.is_one_of(names) || host == Some(origin);
            let mut origins = headers.get_all(header::ORIGIN).iter();
            if !origins.all(|origin| host_of_origin(origin).is_some_and(is_own)) {
                return Err(HeadError::CrossSite("the Origin of another site"));
            }
        }
        Ok(())
    }

    /// Whether the head has the `Host` that was allowed before, once, and no other field that is checked. One pass over
    /// the fields costs less than a lookup of each.
    fn is_usual<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = 0;
        for (name, value) in request.headers() {
            if *name == header::HOST {
                hosts += 1;
                if Some(value) != self.0.usual.get() {
                    return false;
                }
            } else if [header::TRANSFER_ENCODING, header::ORIGIN, SEC_FETCH_SITE].contains(name) {
                return false;
            }
        }
        hosts == 1 && request.uri().authority().is_none()
    }

    /// Checks the target and `Host`.
    fn check_host<B>(&self, request: &Request<B>) -> Result<(), HeadError> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let only = hosts.next().filter(|_| hosts.next().is_none() && request.uri().authority().is_none());
        let host = host_of(request)?;
        let is_allowed = |names: &[String]| host.is_none_or(|host| host.is_ip() || host.is_one_of(names));
        if !self.0.names.as_deref().is_none_or(is_allowed) {
            return Err(HeadError::Misdirected);
        }
        if let Some(only) = only {
            self.0.usual.get_or_init(|| only.clone());
        }
        Ok(())
    }
}

/// Whether the transfer coding is `chunked` alone. hyper accepts any list that ends with it, but decodes no other
/// coding.
fn check_transfer_encoding<B>(request: &Request<B>) -> Result<(), HeadError> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadError::Malformed("Transfer-Encoding is not just chunked")),
    }
}

/// The host that a request is for (RFC 9112, 3.2): from an absolute-form target, else from `Host`, which may be missing
/// over HTTP/1.0 only.
fn host_of<B>(request: &Request<B>) -> Result<Option<Host<'_>>, HeadError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(HeadError::Malformed("Host stands twice")),
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => return Err(HeadError::Malformed("Host is missing")),
        (Some(host), None) => {
            let host = host.to_str().ok().and_then(Host::parse);
            Some(host.ok_or(HeadError::Malformed("Host is no name with a port"))?)
        }
    };
    match request.uri().authority() {
        None => Ok(host),
        Some(target) => match Host::parse(target.as_str()) {
            None => Err(HeadError::Malformed("the target names no host with a port")),
            host => Ok(host),
        },
    }
}

/// The host of an `Origin` (RFC 6454, 7); `None` for `null`, which has none.
fn host_of_origin(origin: &HeaderValue) -> Option<Host<'_>> {
    let (_, authority) = origin.to_str().ok()?.split_once("://")?;
    Host::parse(authority)
}

/// The host of an authority without user information (RFC 3986, 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// Parses a host with an optional port.
    fn parse(authority: &'a str) -> Option<Self> {
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            (
                Self::Ip(address.parse::<Ipv6Addr>().ok()?.into()),
                port.strip_prefix(':').or(port.is_empty().then_some(""))?,
            )
        } else {
            let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
            match name.parse::<Ipv4Addr>() {
                Ok(address) => (Self::Ip(address.into()), port),
                Err(_) if name.bytes().all(is_registered_name_byte) => (Self::Name(name), port),
                Err(_) => return None,
            }
        };
        port.bytes().all(|digit| digit.is_ascii_digit()).then_some(host)
    }

    fn is_ip(self) -> bool {
        matches!(self, Self::Ip(_))
    }

    /// Whether the host is loopback, or among `names`.
    fn is_one_of(self, names: &[String]) -> bool {
        match self {
            Self::Ip(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                // `localhost` and names below it are loopback (RFC 6761, 6.3).
                let top = name.rsplit('.').next().unwrap_or_default();
                top.eq_ignore_ascii_case("localhost") || names.iter().any(|known| known.eq_ignore_ascii_case(name))
            }
        }
    }
}

/// Whether a byte is allowed in a registered name (RFC 3986, 3.2.2).
fn is_registered_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn request(target: &str, version: Version, headers: Headers<'_>) -> Request<()> {
        let request = Request::builder().uri(target).version(version);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    fn check_headers(headers: Headers<'_>) -> Result<(), HeadError> {
        let names = ["gate.internal".to_owned()];
        AllowedHosts::only(&names).check(&request("/", Version::HTTP_11, headers))
    }

    fn is_malformed(result: Result<(), HeadError>) -> bool {
        matches!(result, Err(HeadError::Malformed(_)))
    }

    #[test]
    fn remembered_host_allows_no_other() {
        let allowed = AllowedHosts::only(&[]);
        let check = |headers: Headers<'_>| allowed.check(&request("/", Version::HTTP_11, headers));
        for _ in 0..2 {
            assert_eq!(check(&[("host", "localhost:1")]), Ok(()));
            assert_eq!(check(&[("host", "[::1]:2")]), Ok(()));
            assert_eq!(check(&[("host", "evil.example")]), Err(HeadError::Misdirected));
            for other in [("host", "evil.example"), ("host", "localhost:1"), ("transfer-encoding", "gzip")] {
                assert!(is_malformed(check(&[("host", "localhost:1"), other])), "{other:?}");
            }
            let cross_site = [("host", "localhost:1"), ("origin", "http://evil.example")];
            assert!(matches!(check(&cross_site), Err(HeadError::CrossSite(_))));
        }
    }

    #[test]
    fn only_loopback_addresses_and_configured_hosts_are_allowed() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "api.localhost:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "10.1.2.3",
            "gate.internal:80",
            "GATE.internal.",
        ] {
            assert_eq!(check_headers(&[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example:8080", "notlocalhost", "x.gate.internal", "0x7f.1", "127.1"]
        {
            assert_eq!(check_headers(&[("host", host)]), Err(HeadError::Misdirected), "{host}");
        }
    }

    #[test]
    fn missing_repeated_or_invalid_host_is_malformed() {
        for headers in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "me@localhost")],
            &[("host", "local host")],
            &[("host", "localhost:http")],
            &[("host", "::1")],
            &[("host", "[::1")],
            &[("host", "[::1]x")],
            &[("host", "localhost/a")],
        ] {
            assert!(is_malformed(check_headers(headers)), "{headers:?}");
            let of_any = AllowedHosts::any().check(&request("/", Version::HTTP_11, headers));
            assert!(is_malformed(of_any), "{headers:?}");
        }
        assert_eq!(AllowedHosts::only(&[]).check(&request("/", Version::HTTP_10, &[])), Ok(()));
        let twice = &[("host", "a"), ("host", "a")];
        assert!(is_malformed(AllowedHosts::any().check(&request("/", Version::HTTP_10, twice))));
    }

    #[test]
    fn host_of_absolute_uri_overrides_the_header() {
        let local = AllowedHosts::only(&[]);
        let check = |target| local.check(&request(target, Version::HTTP_11, &[("host", "localhost")]));
        assert_eq!(check("http://127.0.0.1:8080/"), Ok(()));
        assert_eq!(check("http://evil.example/"), Err(HeadError::Misdirected));
        assert!(is_malformed(check("http://me@localhost/")));
    }

    #[test]
    fn request_of_another_site_is_refused() {
        for (name, value, allowed) in [
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
            ("origin", "http://localhost:3000", true),
            ("origin", "https://gate.internal", true),
            ("origin", "http://10.1.2.3:9090", true),
            ("origin", "http://10.9.9.9", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
        ] {
            let mut request_head = request("/", Version::HTTP_11, &[("host", "10.1.2.3:9090")]);
            request_head.headers_mut().insert(name, HeaderValue::from_static(value));
            let result = AllowedHosts::only(&["gate.internal".to_owned()]).check(&request_head);
            assert_eq!(result.is_ok(), allowed, "{name}: {value}");
            assert!(allowed || matches!(result, Err(HeadError::CrossSite(_))), "{name}: {value}");
            assert_eq!(AllowedHosts::any().check(&request_head), Ok(()), "{name}: {value}");
        }
    }

    #[test]
    fn transfer_encoding_is_chunked_or_malformed() {
        assert_eq!(check_headers(&[("host", "localhost"), ("transfer-encoding", "Chunked")]), Ok(()));
        for coding in ["gzip, chunked", "chunked, chunked", "identity", ""] {
            let mut request_head = request("/", Version::HTTP_11, &[("host", "localhost")]);
            request_head.headers_mut().insert("transfer-encoding", HeaderValue::from_static(coding));
            assert!(is_malformed(AllowedHosts::any().check(&request_head)), "{coding}");
        }
    }
}
