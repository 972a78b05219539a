//! Parser of Kore's URL, and of those of Redis (`redis`) and of proxies (`proxy`). Errors do not quote the URL, because it may contain a password.

pub(super) mod proxy;
pub(super) mod redis;

use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};

/// Whether `host` is a loopback name or address: 127.0.0.0/8, ::1 or localhost.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the host of `uri` is a loopback name or address.
pub(super) fn is_loopback_url(uri: &Uri) -> bool {
    uri.host().is_some_and(is_loopback)
}

/// Checks that an authority has a host, and a valid port if it has any.
pub(super) fn check_authority(authority: &Authority) -> Result<(), String> {
    let after_host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    let after_host = after_host.strip_prefix(authority.host()).unwrap_or_default();
    if authority.host().is_empty() {
        return Err("names no host".to_owned());
    }
    if !after_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("has a port that is none".to_owned());
    }
    Ok(())
}

/// Kore's base URL: `https://`, a host and optionally a port; `http://` only for loopback. The path of the result is
/// `/`.
pub(super) fn base_url(text: &str) -> Result<Uri, String> {
    const EXPECTED: &str = "write it like \"https://platform.kore.ai\"";
    let uri: Uri = text.parse().map_err(|_| format!("is not a URL; {EXPECTED}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(format!("has no scheme or no host; {EXPECTED}"));
    };
    if authority.as_str().contains('@') {
        return Err(format!("holds a user or a password; {EXPECTED}"));
    }
    check_authority(authority).map_err(|message| format!("{message}; {EXPECTED}"))?;
    // `Uri` drops a fragment silently, so the text is searched for one.
    if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
        return Err(format!("holds more than a host; {EXPECTED}, without a path or a query"));
    }
    match scheme.as_str() {
        "https" => {}
        "http" if is_loopback(authority.host()) => {}
        "http" => {
            return Err("is http, which would show the token to the network; write https (http is only for loopback)"
                .to_owned());
        }
        _ => return Err(format!("has a scheme that is not https; {EXPECTED}")),
    }
    Ok(uri)
}

/// The URL of a proxy: `http://`, a host and a port, without a path, a user or a password.
pub(super) fn proxy_url(text: &str) -> Result<Uri, String> {
    const EXPECTED: &str = "write it like \"http://proxy:3128\"";
    let uri: Uri = text.parse().map_err(|_| format!("is not a URL; {EXPECTED}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(format!("has no scheme or no host; {EXPECTED}"));
    };
    if authority.as_str().contains('@') {
        return Err("holds a user or a password; they belong into `credentials`".to_owned());
    }
    check_authority(authority).map_err(|message| format!("{message}; {EXPECTED}"))?;
    if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
        return Err(format!("holds more than a host and a port; {EXPECTED}"));
    }
    if *scheme != Scheme::HTTP {
        return Err(format!("has a scheme that is not http, the only one that proxies are spoken to by; {EXPECTED}"));
    }
    if authority.port_u16().is_none() {
        return Err(format!("has no port; {EXPECTED}"));
    }
    Ok(uri)
}

/// Checks the value of `HTTPS_PROXY`: a proxy's URL, in which the scheme may be missing, and which may have a user and a
/// password. The error does not quote it.
pub(super) fn check_environment_proxy(text: &str) -> Result<(), String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let is_http = with_scheme.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if !is_http {
        return Err("is no http:// URL, and other proxies cannot be spoken to".to_owned());
    }
    let uri: Uri = with_scheme.parse().map_err(|_| "is not a URL".to_owned())?;
    uri.authority().ok_or("names no host".to_owned()).and_then(check_authority)
}

/// The base URL for the value of `KORE_HOST`: a URL, or a bare host, which means https unless it is loopback.
pub(super) fn from_host(host: &str) -> String {
    if host.contains("://") {
        return host.to_owned();
    }
    let loopback = host.parse::<Authority>().is_ok_and(|authority| is_loopback(authority.host()));
    let scheme = if loopback { Scheme::HTTP } else { Scheme::HTTPS };
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_accepted_for_loopback_only() {
        for good in [
            "https://platform.kore.ai",
            "https://platform.kore.ai/",
            "https://kore.example:8443",
            "http://127.0.0.1:9000",
            "http://127.8.9.10",
            "http://[::1]:9000",
            "http://LocalHost:9000/",
        ] {
            let uri = base_url(good).unwrap();
            assert_eq!((uri.path(), uri.to_string().trim_end_matches('/')), ("/", good.trim_end_matches('/')));
        }
        for (bad, says) in [
            ("platform.kore.ai", "no scheme"),
            ("", "not a URL"),
            ("ftp://platform.kore.ai", "not https"),
            ("http://platform.kore.ai", "show the token"),
            ("http://10.0.0.1", "show the token"),
            ("http://localhost.example.com", "show the token"),
            ("http://127.0.0.1.example.com", "show the token"),
            ("http://[::2]", "show the token"),
            ("https://kore.example/api", "more than a host"),
            ("https://kore.example/?a=b", "more than a host"),
            ("https://kore.example#a", "more than a host"),
            ("https://kore.example:99999", "port"),
            ("https://kore.example:0", "port"),
            ("https://kore.example:", "port"),
            ("https://me:hunter2@kore.example", "user or a password"),
            ("https://me:hunter2@kore.example:99999", "user or a password"),
            ("https://me:hun ter2@kore.example", "not a URL"),
        ] {
            let error = base_url(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
            assert!(!error.contains("ter2"), "{error}");
        }
    }

    #[test]
    fn proxy_has_a_host_and_a_port_and_no_password() {
        for good in ["http://proxy:3128", "http://10.0.0.1:8080/", "http://[::1]:3128"] {
            assert!(proxy_url(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("proxy:3128", "no scheme"),
            ("https://proxy:3128", "not http"),
            ("socks5://proxy:1080", "not http"),
            ("http://proxy", "no port"),
            ("http://me:hunter2@proxy:3128", "credentials"),
            ("http://proxy:3128/path", "more than a host"),
            ("http://proxy:0", "port"),
            ("http://pro xy:3128", "not a URL"),
        ] {
            let error = proxy_url(bad).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{bad}: {error}");
        }
        for good in ["http://proxy:3128", "proxy:3128", "http://me:pw@proxy:3128/", "http://proxy"] {
            assert!(check_environment_proxy(good).is_ok(), "{good}");
        }
        for bad in ["https://proxy:3128", "socks5://proxy:1080", "http://", "http://pro xy", "proxy:0"] {
            assert!(check_environment_proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bare_host_means_https_unless_it_is_loopback() {
        for (host, url) in [
            ("platform.kore.ai", "https://platform.kore.ai"),
            ("kore.example:8443", "https://kore.example:8443"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("[::1]:9000", "http://[::1]:9000"),
            ("localhost", "http://localhost"),
            ("https://localhost:9000", "https://localhost:9000"),
            ("http://kore.example", "http://kore.example"),
        ] {
            assert_eq!(from_host(host), url);
        }
    }
}
