//! The proxy through which calls to the upstream go, by HTTP CONNECT: TLS is between koregate and the upstream, so the
//! proxy sees no token and no item.

use anyhow::Context as _;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;

use crate::config::ProxyConfig;

/// A proxy, and the credentials that it is shown.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    /// Scheme, host and port.
    pub(super) uri: Uri,
    /// `Proxy-Authorization`; marked sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    /// The proxy for calls to `base_url`; `None` if they go directly.
    ///
    /// # Errors
    /// If the proxy of the environment cannot be parsed.
    pub(super) fn of(config: Option<&ProxyConfig>, base_url: &Uri) -> anyhow::Result<Option<Self>> {
        let matcher = match config {
            None => return Ok(None),
            Some(ProxyConfig::Fixed { url, credentials }) => {
                let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
                let user = credentials.as_ref().map(|credentials| {
                    let (user, password) = credentials.expose_secret().split_once(':').unwrap_or_default();
                    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
                    format!("{}:{}@", encoded(user), encoded(password))
                });
                Matcher::builder().all(format!("http://{}{authority}", user.unwrap_or_default())).build()
            }
            Some(ProxyConfig::Environment { https_proxy, no_proxy }) => {
                let Some(https_proxy) = https_proxy else { return Ok(None) };
                let builder = Matcher::builder().https(https_proxy.expose_secret()).no(no_proxy.as_str());
                builder.build()
            }
        };
        let Some(intercept) = matcher.intercept(base_url) else { return Ok(None) };
        let authorization = intercept.basic_auth().cloned().map(|mut authorization| {
            authorization.set_sensitive(true);
            authorization
        });
        let uri = intercept.uri().clone();
        uri.host().context("upstream.proxy: a host is needed")?;
        Ok(Some(Self { uri, authorization }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KORE: &str = "https://platform.kore.ai";

    /// The address and the header of the proxy for calls to `base_url`.
    fn proxy(config: &ProxyConfig, base_url: &str) -> Option<(String, Option<String>)> {
        let proxy = Proxy::of(Some(config), &base_url.parse().unwrap()).unwrap()?;
        let authorization = proxy.authorization.map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        Some((proxy.uri.authority().unwrap().to_string(), authorization))
    }

    #[test]
    fn fixed_proxy_is_used_for_all_calls() {
        let fixed = |credentials: Option<&str>| ProxyConfig::Fixed {
            url: "http://proxy.internal:3128".parse().unwrap(),
            credentials: credentials.map(Into::into),
        };
        let address = "proxy.internal:3128".to_owned();
        assert_eq!(proxy(&fixed(None), KORE), Some((address.clone(), None)));
        assert_eq!(proxy(&fixed(None), "http://127.0.0.1:9400"), Some((address.clone(), None)));
        // `me:p@ss:w%rd/` in base64.
        let expected = Some("Basic bWU6cEBzczp3JXJkLw==".to_owned());
        assert_eq!(proxy(&fixed(Some("me:p@ss:w%rd/")), KORE), Some((address, expected)));
        assert!(Proxy::of(None, &KORE.parse().unwrap()).unwrap().is_none());
    }

    #[test]
    fn environment_is_read_as_curl_reads_it() {
        let environment = |https_proxy: Option<&str>, no_proxy: &str| ProxyConfig::Environment {
            https_proxy: https_proxy.map(Into::into),
            no_proxy: no_proxy.to_owned(),
        };
        let used = |config: &ProxyConfig| proxy(config, KORE);
        let address = |authorization: Option<&str>| Some(("p:3128".to_owned(), authorization.map(str::to_owned)));
        assert_eq!(used(&environment(None, "")), None);
        assert_eq!(used(&environment(Some("http://p:3128"), "")), address(None));
        assert_eq!(used(&environment(Some("p:3128"), "other.example,10.0.0.0/8")), address(None));
        assert_eq!(used(&environment(Some("http://me:pw@p:3128/"), "")), address(Some("Basic bWU6cHc=")));
        for no_proxy in ["platform.kore.ai", ".kore.ai", "kore.ai", "*", "a, kore.ai"] {
            assert_eq!(used(&environment(Some("http://p:3128"), no_proxy)), None, "{no_proxy}");
        }
        let loopback = proxy(&environment(Some("http://p:3128"), ""), "http://127.0.0.1:9400");
        assert_eq!(loopback, None, "plain HTTP is for loopback only");
    }
}
