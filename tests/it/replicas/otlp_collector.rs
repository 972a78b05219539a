//! A collector of spans that is strict: it takes only what the specification of OTLP allows, over HTTP and over gRPC.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Collected, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A running collector.
#[derive(Debug)]
pub(super) struct OtlpCollector {
    addr: SocketAddr,
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

/// What a collector has received.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<ExportedSpan>,
    /// The bytes of all messages.
    bytes: Vec<u8>,
    /// Violations of the specification.
    violations: Vec<String>,
}

/// A span, and the service that it comes from.
#[derive(Clone, Debug)]
pub(super) struct ExportedSpan {
    pub(super) service: String,
    pub(super) span: Span,
}

impl ExportedSpan {
    /// The value of an attribute as text.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        text_of(&self.span.attributes, name)
    }

    pub(super) fn is_child_of(&self, parent: &Self) -> bool {
        self.span.parent_span_id == parent.span.span_id && self.span.trace_id == parent.span.trace_id
    }
}

fn text_of(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The body of an answer, with trailers.
type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

impl OtlpCollector {
    /// Listens for OTLP over HTTP/1.1.
    pub(super) async fn start_http() -> Self {
        Self::start(false).await
    }

    /// Listens for OTLP over gRPC, in plain text.
    pub(super) async fn start_grpc() -> Self {
        Self::start(true).await
    }

    async fn start(is_grpc: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Received>>::default();
        let of_task = received.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (received, io) = (of_task.clone(), TokioIo::new(stream));
                let service = service_fn(move |request| take(received.clone(), is_grpc, request));
                tokio::spawn(async move {
                    if is_grpc {
                        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
                    } else {
                        drop(http1::Builder::new().serve_connection(io, service).await);
                    }
                });
            }
        });
        Self { addr, received, task }
    }

    /// The value of `traces.endpoint`.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The spans so far; panics if anything violated the specification.
    pub(super) fn spans(&self) -> Vec<ExportedSpan> {
        let received = self.received.lock().unwrap();
        assert!(received.violations.is_empty(), "{:#?}", received.violations);
        let ids: HashSet<_> = received.spans.iter().map(|exported| &exported.span.span_id).collect();
        assert_eq!(ids.len(), received.spans.len(), "each span has an id of its own, and is exported once");
        received.spans.clone()
    }

    /// Whether `text` is anywhere in what was received.
    pub(super) fn has_received(&self, text: &str) -> bool {
        self.received.lock().unwrap().bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Drop for OtlpCollector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    received: Arc<Mutex<Received>>,
    is_grpc: bool,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let message = read(is_grpc, &head, body);
    let mut received = received.lock().unwrap();
    match message {
        Ok(message) => received.add(&message),
        Err(violation) => received.violations.push(violation),
    }
    Ok(if is_grpc { grpc_answer() } else { http_answer() })
}

/// The message of a request, whose head is checked.
fn read(is_grpc: bool, head: &http::request::Parts, mut body: Bytes) -> Result<Bytes, String> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let expect = |is_true: bool, what: &str| if is_true { Ok(()) } else { Err(format!("{what}: {head:?}")) };
    expect(head.method == Method::POST, "POST")?;
    if !is_grpc {
        expect(head.uri.path() == "/v1/traces", "the path")?;
        expect(header("content-type") == "application/x-protobuf", "the content type")?;
        expect(head.headers.contains_key("host"), "Host")?;
        return Ok(body);
    }
    expect(head.uri.path() == GRPC_PATH, "the path")?;
    expect(header("content-type").starts_with("application/grpc"), "the content type")?;
    expect(header("te") == "trailers", "TE")?;
    expect(body.len() >= 5, "a message")?;
    expect(body.get_u8() == 0, "no compression")?;
    expect(body.get_u32() as usize == body.len(), "the length of the message")?;
    Ok(body)
}

fn http_answer() -> Response<Body> {
    let body = Full::new(Bytes::new()).boxed();
    Response::builder().header("content-type", "application/x-protobuf").body(body).unwrap()
}

fn grpc_answer() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    // An empty message.
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

impl Received {
    fn add(&mut self, message: &Bytes) {
        self.bytes.extend_from_slice(message);
        let request = match ExportTraceServiceRequest::decode(message.clone()) {
            Ok(request) => request,
            Err(error) => return self.violations.push(error.to_string()),
        };
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let Some(service) = text_of(&attributes, "service.name") else {
                return self.violations.push("no service.name".to_owned());
            };
            for of_scope in of_resource.scope_spans {
                if of_scope.scope.is_none_or(|scope| scope.name.is_empty()) {
                    self.violations.push("no name of the scope".to_owned());
                }
                for span in of_scope.spans {
                    self.violations.extend(violations_of(&span));
                    self.spans.push(ExportedSpan { service: service.clone(), span });
                }
            }
        }
    }
}

fn violations_of(span: &Span) -> Vec<String> {
    let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
    let names: HashSet<_> = span.attributes.iter().map(|attribute| &attribute.key).collect();
    let has_value = |attribute: &KeyValue| attribute.value.as_ref().is_some_and(|value| value.value.is_some());
    [
        (is_id(&span.trace_id, 16) && is_id(&span.span_id, 8), "ids"),
        (span.parent_span_id.is_empty() || is_id(&span.parent_span_id, 8), "the id of the parent"),
        (!span.name.is_empty(), "a name"),
        ((1..=5).contains(&span.kind), "a kind"),
        (span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano, "times"),
        (names.len() == span.attributes.len() && !names.contains(&String::new()), "different names of attributes"),
        (span.attributes.iter().all(has_value), "values of attributes"),
        (span.links.iter().all(|link| is_id(&link.trace_id, 16) && is_id(&link.span_id, 8)), "ids of links"),
        (span.flags & 1 == 1, "the flag of a sampled trace"),
    ]
    .into_iter()
    .filter(|(is_good, _)| !is_good)
    .map(|(_, what)| format!("{what}: {span:?}"))
    .collect()
}
