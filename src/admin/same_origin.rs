//! Whether a change is asked for by the gateway's own pages: pure checks of a request's headers.
//!
//! A browser may send the cookie of a session with requests of other pages on the same host, such as those of other
//! ports, which count as the same site. So a change needs the same origin, port included, and the CSRF token that only
//! the gateway's own pages can read.

use http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a browser has sent the request, as far as its headers tell.
pub(super) fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Whether a page of this very listener has sent the request. Browsers send `Sec-Fetch-Site` to loopback and over TLS
/// only; else `Origin` must name the host and port of `Host`.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    let host = text(header::HOST);
    origin.zip(host).is_some_and(|((_, authority), host)| authority.eq_ignore_ascii_case(host))
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn page_of_another_origin_is_told_from_the_own() {
        for (fields, expected) in [
            (&[("host", "gate:9090"), ("origin", "http://gate:9090")][..], true),
            (&[("host", "gate:9090"), ("origin", "https://GATE:9090")], true),
            (&[("host", "gate:9090"), ("origin", "http://gate:3000")], false),
            (&[("host", "gate:9090"), ("origin", "http://gate")], false),
            (&[("host", "gate:9090"), ("origin", "null")], false),
            (&[("host", "gate:9090"), ("origin", "http://evil.example")], false),
            (&[("host", "gate:9090")], false),
            (&[("origin", "http://gate:9090")], false),
            // Behind a proxy that sets Host, the browser's own word counts.
            (&[("host", "inner"), ("origin", "https://outer"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "gate"), ("origin", "http://gate"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "gate"), ("origin", "http://gate"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "gate"), ("sec-fetch-site", "none")], false),
        ] {
            assert_eq!(is_same_origin(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn cookie_is_found_among_others() {
        let fields = headers(&[("cookie", "a=1; koregate=two;b=3")]);
        assert_eq!(
            ["koregate", "b", "a", "kore"].map(|name| cookie(&fields, name)),
            [Some("two"), Some("3"), Some("1"), None]
        );
        assert_eq!(cookie(&HeaderMap::new(), "a"), None);
    }
}
