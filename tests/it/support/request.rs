//! One request to a gateway.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request};
use http_body_util::Full;

use super::{ACCOUNT, STREAM};

/// A request to the data plane or the admin plane, built step by step.
#[derive(Clone, Debug)]
pub(crate) struct TestRequest {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl TestRequest {
    /// `GET` of a window of [`STREAM`], for [`ACCOUNT`]; `query` is percent-encoded.
    pub(crate) fn get(query: impl Into<String>) -> Self {
        let (method, body) = (Method::GET, Bytes::new());
        let request = Self { method, path: String::new(), query: query.into(), headers: HeaderMap::new(), body };
        request.stream(STREAM).header("accountId", ACCOUNT)
    }

    /// `POST` with filters in its body.
    pub(crate) fn post(query: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, ..Self::get(query) }.body(body)
    }

    /// `QUERY` (RFC 10008) with filters as its content, which is said to be JSON.
    pub(crate) fn query(query: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let method = Method::from_bytes(b"QUERY").unwrap();
        Self::post(query, body).method(method).header("content-type", "application/json")
    }

    /// `GET` of any path, without a query.
    pub(crate) fn path_only(path: impl Into<String>) -> Self {
        Self::get("").path(path)
    }

    /// Replaces the method.
    pub(crate) fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Replaces the path by that of another stream.
    pub(crate) fn stream(self, stream: &str) -> Self {
        self.path(format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions"))
    }

    /// Replaces the path.
    pub(crate) fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Replaces a header; an empty value removes it.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if value.is_empty() {
            self.headers.remove(name);
        } else {
            self.headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        self
    }

    /// Sets the API key of a caller.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// Accepts NDJSON.
    pub(crate) fn ndjson(self) -> Self {
        self.header("accept", "application/x-ndjson")
    }

    /// Accepts gzip.
    pub(crate) fn gzip(self) -> Self {
        self.header("accept-encoding", "gzip")
    }

    /// Asks for the cost alone.
    pub(crate) fn dry_run(self) -> Self {
        self.header("prefer", "dry-run")
    }

    /// Sets the body, whatever the method.
    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Replaces the query by that of another request.
    pub(crate) fn with_query_of(self, other: &Self) -> Self {
        Self { query: other.query.clone(), ..self }
    }

    /// Appends a parameter to the query.
    pub(crate) fn and(mut self, parameter: &str) -> Self {
        self.query.push('&');
        self.query.push_str(parameter);
        self
    }

    /// The method and the path.
    pub(crate) fn endpoint(&self) -> (&str, &str) {
        (self.method.as_str(), &self.path)
    }

    /// The bytes of the request in HTTP/1.1, for a test that writes to the socket itself.
    pub(crate) fn to_bytes(&self, addr: SocketAddr) -> Vec<u8> {
        self.to_bytes_in("HTTP/1.1", addr)
    }

    /// The same in another version of HTTP.
    pub(crate) fn to_bytes_in(&self, version: &str, addr: SocketAddr) -> Vec<u8> {
        let Self { method, path, query, headers, body } = self;
        let mut head = format!("{method} {path}?{query} {version}\r\nhost: {addr}\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
        [head.as_bytes(), body].concat()
    }

    /// The request as the HTTP library's type.
    pub(crate) fn to_http(&self, addr: SocketAddr) -> Request<Full<Bytes>> {
        let separator = if self.query.is_empty() { "" } else { "?" };
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = format!("http://{addr}{}{separator}{}", self.path, self.query).parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
