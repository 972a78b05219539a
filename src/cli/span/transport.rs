//! The way of a request to a gateway: over HTTP to a running one, or straight into the stages in this process.

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;
use tower::{BoxError, ServiceExt as _};

use crate::stack::GatewayService;
use crate::upstream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval of probes that find out whether the gateway is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The body of an answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// The way to a gateway.
pub(super) enum Transport {
    /// A running gateway.
    Remote(Box<Remote>),
    /// The stages in this process.
    Local(GatewayService),
}

/// A running gateway.
pub(super) struct Remote {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    /// The API key; marked sensitive.
    key: Option<HeaderValue>,
}

impl Remote {
    /// A gateway at `url`, whose path, if any, is put before that of each request.
    ///
    /// # Errors
    /// If the URL is not http or https, `ca_file` cannot be read, or the key is not visible ASCII.
    pub(super) fn new(url: &Uri, ca_file: Option<&Path>, key: Option<&str>) -> anyhow::Result<Self> {
        let scheme = url.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        anyhow::ensure!(
            scheme.is_some() && url.authority().is_some() && url.query().is_none(),
            "--url: write it like https://koregate.example.com"
        );
        let tls = if url.scheme() == Some(&Scheme::HTTP) {
            upstream::tls::no_tls()?
        } else {
            upstream::tls::client_config(ca_file)?
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(KEEPALIVE));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let key =
            key.map(HeaderValue::from_str).transpose().context("KOREGATE_API_KEY holds more than visible ASCII")?;
        let key = key.map(|mut key| {
            key.set_sensitive(true);
            key
        });
        Ok(Self { http, url: url.clone(), key })
    }

    /// `path_and_query` behind the path of the gateway's URL.
    fn uri(&self, path_and_query: &PathAndQuery) -> Result<Uri, http::Error> {
        let prefix = self.url.path().trim_end_matches('/');
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(format!("{prefix}{path_and_query}").parse()?);
        Ok(Uri::from_parts(parts)?)
    }
}

impl Transport {
    /// Sends a request whose URI is a path and a query.
    ///
    /// # Errors
    /// If the gateway cannot be reached, or the connection ends before the head of the answer.
    pub(super) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<AnswerBody>, BoxError> {
        match self {
            Self::Remote(remote) => {
                let path_and_query = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
                *request.uri_mut() = remote.uri(&path_and_query)?;
                if let Some(key) = &remote.key {
                    request.headers_mut().insert("x-api-key", key.clone());
                }
                let response = remote.http.request(request).await?;
                Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
            }
            Self::Local(service) => {
                request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
                let Ok(response) = service.clone().oneshot(request).await;
                Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> anyhow::Result<Remote> {
        Remote::new(&url.parse().unwrap(), None, None)
    }

    #[tokio::test]
    async fn path_of_the_url_stands_before_that_of_requests() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/a?b=c"),
            ("http://gateway/kore/", "http://gateway/kore/a?b=c"),
        ] {
            assert_eq!(remote(url).unwrap().uri(&"/a?b=c".parse().unwrap()).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn other_urls_are_refused() {
        for url in ["ftp://gateway", "gateway:80", "/path", "http://gateway/?x=1"] {
            assert!(remote(url).is_err(), "{url}");
        }
    }
}
