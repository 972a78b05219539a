//! A caller: asks as a service would, and keeps what it gets as bytes.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ACCOUNT, STREAM};

/// One request to the data plane.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// `GET` of [`STREAM`], for [`ACCOUNT`]; `query` is escaped already.
    pub(crate) fn get(query: impl Into<String>) -> Self {
        let (method, body) = (Method::GET, Bytes::new());
        let ask = Self { method, path: String::new(), query: query.into(), headers: HeaderMap::new(), body };
        ask.stream(STREAM).header("accountId", ACCOUNT)
    }

    /// `POST`, with a body of filters.
    pub(crate) fn post(query: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, ..Self::get(query) }.body(body)
    }

    /// Another method.
    pub(crate) fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Another stream.
    pub(crate) fn stream(self, stream: &str) -> Self {
        self.path(format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions"))
    }

    /// Another path.
    pub(crate) fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Sets a header, in place of what was there; an empty value takes it out.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if value.is_empty() {
            self.headers.remove(name);
        } else {
            self.headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        self
    }

    /// Sends a body along, whatever the method.
    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Adds to the query.
    pub(crate) fn and(mut self, parameter: &str) -> Self {
        self.query.push('&');
        self.query.push_str(parameter);
        self
    }

    /// The request as it goes over the wire, for a test that holds the socket itself.
    pub(crate) fn wire(&self, addr: SocketAddr) -> Vec<u8> {
        self.wire_as("HTTP/1.1", addr)
    }

    /// The same in another version of HTTP.
    pub(crate) fn wire_as(&self, version: &str, addr: SocketAddr) -> Vec<u8> {
        let Self { method, path, query, headers, body } = self;
        let mut head = format!("{method} {path}?{query} {version}\r\nhost: {addr}\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
        [head.as_bytes(), body].concat()
    }

    fn request(&self, addr: SocketAddr) -> Request<Full<Bytes>> {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = format!("http://{addr}{}{mark}{}", self.path, self.query).parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Keeps connections, as any client does.
#[derive(Clone, Debug)]
pub(crate) struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

impl Default for Client {
    fn default() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Client {
    /// The answer's head, and a body that is still to be read.
    pub(crate) async fn open(&self, addr: SocketAddr, ask: &Ask) -> anyhow::Result<Response<Incoming>> {
        Ok(self.0.request(ask.request(addr)).await?)
    }

    /// The whole answer, or why there is none: a connection that broke, before or in the body.
    pub(crate) async fn send(&self, addr: SocketAddr, ask: &Ask) -> anyhow::Result<Answer> {
        let (parts, body) = self.open(addr, ask).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Sends `request` over a connection of its own, from which nothing is read yet.
pub(crate) fn send_raw(addr: SocketAddr, request: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(addr).unwrap();
    connection.write_all(request).unwrap();
    connection
}

/// Sends `request` over a connection of its own and reads until the connection ends: all that came, and the error by which
/// it ended, if it was not closed in order.
pub(crate) async fn read_to_end(addr: SocketAddr, request: &[u8]) -> (Vec<u8>, Option<std::io::Error>) {
    let mut connection = send_raw(addr, request);
    let reading = move || {
        let mut received = Vec::new();
        let ended = connection.read_to_end(&mut received);
        (received, ended.err())
    };
    tokio::task::spawn_blocking(reading).await.unwrap()
}

/// The head and the body of what came over a connection that one answer was sent on.
#[track_caller]
pub(crate) fn head_and_body(received: &[u8]) -> (String, &[u8]) {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the head has no end") + 4;
    (String::from_utf8(received[..end].to_vec()).unwrap().to_ascii_lowercase(), &received[end..])
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Kore's envelope, its items as the bytes that they are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) num_results: usize,
    pub(crate) has_more: bool,
    data: Vec<Box<RawValue>>,
}

impl Page {
    /// The items, in their order.
    pub(crate) fn items(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.data.iter().map(|item| item.get().as_bytes())
    }
}

impl Answer {
    /// A header's text; `None` if it is not there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `Cache-Status`.
    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as any JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The page of a 200, whose `numResults` is the number of its items.
    #[track_caller]
    pub(crate) fn page(&self) -> Page {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        let page: Page = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(page.num_results, page.data.len());
        page
    }
}
