//! A call to a collector: OTLP over HTTP/1.1 with protobuf, or over gRPC (HTTP/2). The connection is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::protobuf;
use crate::config::TraceProtocol;
use crate::network::connect;

/// The longest that a call may take, with its connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Ports that a URL without one means.
const PORTS: [(Scheme, u16); 2] = [(Scheme::HTTP, 80), (Scheme::HTTPS, 443)];
/// Statuses after which the call may be repeated (OTLP, "Retryable response codes").
const RETRYABLE_STATUSES: [u16; 4] = [429, 502, 503, 504];
/// Statuses of gRPC after which the call may be repeated: cancelled, deadline exceeded, aborted, out of range,
/// unavailable, data loss.
const RETRYABLE_GRPC: [u32; 6] = [1, 4, 10, 11, 14, 15];

/// Why spans were not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("no connection: {0}")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the connection broke off: {0}")]
    BrokenOff(#[from] hyper::Error),
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the collector answered with the status {0}")]
    Status(u16),
    #[error("the collector answered with the gRPC status {0}")]
    Grpc(u32),
    #[error("the collector's answer is not one of OTLP")]
    NotOtlp,
}

impl ExportError {
    /// Whether the same call may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::BrokenOff(_) | Self::Timeout => true,
            Self::Status(status) => RETRYABLE_STATUSES.contains(status),
            Self::Grpc(status) => RETRYABLE_GRPC.contains(status),
            Self::NotOtlp => false,
        }
    }
}

/// A connection that is open.
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A collector.
pub(super) struct Collector {
    endpoint: Uri,
    protocol: TraceProtocol,
    /// Fields of each request. Never printed.
    headers: HeaderMap,
    tls: Option<TlsConnector>,
    connection: Option<Connection>,
}

impl Collector {
    /// The collector at `endpoint`, which is spoken to by TLS if there is a `tls` configuration.
    pub(super) fn new(
        endpoint: Uri,
        protocol: TraceProtocol,
        headers: HeaderMap,
        tls: Option<rustls::ClientConfig>,
    ) -> Self {
        let tls = tls.map(|mut tls| {
            if protocol == TraceProtocol::Grpc {
                tls.alpn_protocols = vec![b"h2".to_vec()];
            }
            TlsConnector::from(Arc::new(tls))
        });
        Self { endpoint, protocol, headers, tls, connection: None }
    }

    /// Sends an `ExportTraceServiceRequest`. Returns the number of spans that the collector has rejected.
    ///
    /// # Errors
    /// If the collector has not said that it took the request.
    pub(super) async fn send(&mut self, request: Vec<u8>) -> Result<u64, ExportError> {
        let sent = tokio::time::timeout(CALL_TIMEOUT, self.call(request)).await;
        let sent = sent.unwrap_or(Err(ExportError::Timeout));
        if sent.is_err() {
            self.connection = None;
        }
        sent
    }

    async fn call(&mut self, message: Vec<u8>) -> Result<u64, ExportError> {
        let body = match self.protocol {
            TraceProtocol::Http => Bytes::from(message),
            TraceProtocol::Grpc => grpc_frame(&message),
        };
        let request = self.request(body).map_err(|error| ExportError::Connect(error.into()))?;
        let usable = match &mut self.connection {
            Some(Connection::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(self.connect().await.map_err(ExportError::Connect)?);
        }
        let response = match &mut self.connection {
            Some(Connection::Http1(sender)) => sender.send_request(request).await?,
            Some(Connection::Http2(sender)) => sender.send_request(request).await?,
            None => return Err(ExportError::NotOtlp),
        };
        self.read(response).await
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request =
            Request::post(self.target()?).header(header::USER_AGENT, concat!("koregate/", env!("CARGO_PKG_VERSION")));
        match self.protocol {
            TraceProtocol::Http => {
                let authority = self.endpoint.authority().map_or("", |authority| authority.as_str());
                request =
                    request.header(header::HOST, authority).header(header::CONTENT_TYPE, "application/x-protobuf");
            }
            TraceProtocol::Grpc => {
                request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
            }
        }
        let mut request = request.body(Full::new(body))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// The method and the target of a request, for its line or its pseudo-headers.
    fn target(&self) -> Result<Uri, http::Error> {
        match self.protocol {
            TraceProtocol::Http => {
                Uri::builder().path_and_query(self.endpoint.path_and_query().map_or("/", |path| path.as_str())).build()
            }
            TraceProtocol::Grpc => {
                let mut parts = self.endpoint.clone().into_parts();
                let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
                Ok(Uri::from_parts(parts)?)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let host = self.endpoint.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let usual = PORTS.iter().find(|(scheme, _)| self.endpoint.scheme() == Some(scheme)).map(|(_, port)| *port);
        let port = self.endpoint.port_u16().or(usual).unwrap_or_default();
        let stream = connect(host, port).await?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned())?;
                self.handshake(tls.connect(name, stream).await?).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        // A connection ends with an error that the next call learns.
        Ok(match self.protocol {
            TraceProtocol::Http => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(async move { drop(connection.await) });
                Connection::Http1(sender)
            }
            TraceProtocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(async move { drop(connection.await) });
                Connection::Http2(sender)
            }
        })
    }

    async fn read(&self, response: Response<Incoming>) -> Result<u64, ExportError> {
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|_| ExportError::NotOtlp)?;
        if !head.status.is_success() {
            return Err(ExportError::Status(head.status.as_u16()));
        }
        if self.protocol == TraceProtocol::Http {
            return Ok(protobuf::rejected_spans(&collected.to_bytes()));
        }
        // An answer without a message has its status in the head.
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = grpc_status(&trailers).or_else(|| grpc_status(&head.headers)).ok_or(ExportError::NotOtlp)?;
        if status != 0 {
            return Err(ExportError::Grpc(status));
        }
        let message = collected.to_bytes();
        Ok(message.get(GRPC_HEAD..).map_or(0, protobuf::rejected_spans))
    }
}

/// Bytes before a message of gRPC: a flag for compression, and the length.
const GRPC_HEAD: usize = 5;

/// A message of gRPC, uncompressed.
fn grpc_frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(GRPC_HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn grpc_status(headers: &HeaderMap<HeaderValue>) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
