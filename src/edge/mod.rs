//! The edge stage: identifies and admits requests, turns every failure into a response, and reports each request.

mod access;
mod arrival;
mod auth;
mod body;
mod cache_status;
mod hosts;
mod observers;
mod openapi;
mod problem;
mod rate_limit;
mod rate_limit_headers;
mod recent_problems;
mod request_id;
mod response_future;
mod revocation;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::{Layer, Service};

use self::access::AccessRecord;
use self::arrival::{Arrival, CommonFields};
use self::auth::AuthenticatedCaller;
use self::observers::Observers;
use self::request_id::RequestId;
use crate::api::{AdmittedRequest, Answer, ApiError, RequestContext};
use crate::audit::AuditLog;
use crate::problem::{is_page_path, page};
use crate::traces::{Span, TraceParent, Tracer};

pub use self::auth::{Callers, PeerCertificate, bearer_token};
pub use self::body::EdgeBody;
pub use self::hosts::{AllowedHosts, HeadError};
pub use self::observers::{AnswerEnds, DrainTimeout};
pub use self::problem::{EdgeError, problem_document};
pub use self::recent_problems::{ProblemSource, RecentProblem, RecentProblems};
pub use self::response_future::ResponseFuture;

/// The outermost stage, between the connection and the API stage. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct EdgeLayer(Arc<Edge>);

#[derive(Clone, Debug)]
struct Edge {
    callers: Callers,
    request_slots: Arc<Semaphore>,
    observers: Arc<Observers>,
}

impl EdgeLayer {
    /// Admits `callers`, or any client if there are none. Beyond `max_requests` at once, only the cache answers.
    pub fn new(max_requests: usize, callers: &Callers, ends: &AnswerEnds) -> Self {
        callers.load().warn_of_expiry(ends.clock.now());
        let observers = Observers { ends: ends.clone(), ..Observers::default() };
        let request_slots = Arc::new(Semaphore::new(max_requests));
        Self(Arc::new(Edge { callers: callers.clone(), request_slots, observers: observers.into() }))
    }

    /// The same stage, which begins a span for each admitted request, and writes the audit log.
    #[must_use]
    pub fn observed(self, tracer: &Tracer, audit: &AuditLog) -> Self {
        let ends = self.0.observers.ends.clone();
        let observers = Observers { tracer: tracer.clone(), audit: audit.clone(), ends };
        Self(Arc::new(Edge { observers: observers.into(), ..Edge::clone(&self.0) }))
    }
}

/// How a request is treated.
enum Admission {
    /// Passed to the API stage.
    Admitted,
    /// Answered to anyone.
    Public,
    Refused(EdgeError),
}

impl Edge {
    /// Decides about a request. The caller is known if it carries a key or a certificate of one, even if it is refused.
    fn admit<B>(&self, request: &Request<B>) -> (Option<AuthenticatedCaller>, Admission) {
        let callers = self.callers.load();
        match callers.hosts().check(request) {
            Err(error) => return (None, Admission::Refused(error.into())),
            Ok(()) if is_public(request.uri().path()) => return (None, Admission::Public),
            Ok(()) => {}
        }
        let certificate = request.extensions().get::<PeerCertificate>();
        let (caller, admitted) = callers.admit(request.headers(), certificate, self.observers.ends.clock.now());
        (caller, admitted.map_or_else(Admission::Refused, |()| Admission::Admitted))
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeStage<S>;

    fn layer(&self, below: S) -> EdgeStage<S> {
        EdgeStage { edge: self.0.clone(), below, peer: None }
    }
}

/// See [`EdgeLayer`].
#[derive(Clone, Debug)]
pub struct EdgeStage<S> {
    edge: Arc<Edge>,
    below: S,
    peer: Option<SocketAddr>,
}

impl<S> EdgeStage<S> {
    /// The same stage for the connections of `peer`, which the access log names.
    #[must_use]
    pub fn with_peer(self, peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }
}

impl<S, B> Service<Request<B>> for EdgeStage<S>
where
    S: Service<AdmittedRequest<B>, Response = Answer, Error = ApiError>,
{
    type Response = Response<EdgeBody>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An error of the stage below is reported by its call, as an answer.
        self.below.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { edge, below, peer } = self;
        let at = Instant::now();
        let fields = CommonFields::of(request.headers());
        let arrival = Arrival::new(at, &request, &fields, *peer);
        let id = RequestId::of(fields.request_id, || edge.observers.ends.clock.now());
        let (authenticated, admission) = edge.admit(&request);
        // A client that is not admitted does not decide what is recorded.
        let trace = match admission {
            Admission::Admitted => edge.observers.begin(&request),
            Admission::Public | Admission::Refused(_) => Span::NONE,
        };
        let parent = if fields.has_trace { TraceParent::of(request.headers()) } else { None };
        let trace_id = observers::trace_id(parent, &trace);
        let span = tracing::info_span!("request", request_id = id.as_str(), trace_id = trace_id.as_deref());
        let audited = edge.observers.audited(&id, trace_id.as_deref());
        let mut record = AccessRecord::new(arrival, id, span.clone(), edge.observers.clone());
        (record.trace, record.audited) = (trace.clone(), audited);
        let head_only = *request.method() == Method::HEAD;
        let known = authenticated.as_ref().map(|known| (known.caller.clone(), known.limit_status));
        let (caller, limit_status) = known.unzip();
        record.authenticated = authenticated;
        match admission {
            Admission::Admitted => {}
            Admission::Public => return ResponseFuture::ready(record, head_only, public_document(&request)),
            Admission::Refused(error) => return ResponseFuture::ready(record, head_only, Err(error)),
        }
        let slot = edge.request_slots.clone().try_acquire_owned().ok();
        let (waited, is_overloaded) = (record.waited.clone(), slot.is_none());
        let context = RequestContext { caller, limit_status, is_overloaded, waited, span: trace };
        let call = AssertUnwindSafe(|| span.in_scope(|| below.call(AdmittedRequest { request, context })));
        match catch_unwind(call) {
            Ok(answer) => ResponseFuture::pending(record, head_only, answer, slot),
            Err(_) => ResponseFuture::ready(record, head_only, Err(EdgeError::Internal)),
        }
    }
}

/// Whether anyone may read the path: the pages of problem types, because the documents that refer to them are also sent
/// without a key, and the description of the interface.
fn is_public(path: &str) -> bool {
    is_page_path(path) || path == openapi::PATH
}

/// The answer at a public path.
fn public_document<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, EdgeError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed { allowed: &["GET", "HEAD"] }.into());
    }
    let path = request.uri().path();
    let document = if path == openapi::PATH { Some(openapi::document()) } else { page(path) };
    document.ok_or(EdgeError::Api(ApiError::NotFound))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use http_body_util::BodyExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::config::{self, NamePatterns};

    /// A caller with 10 requests a minute.
    fn caller(key: &[u8], weight: u32) -> config::CallerConfig {
        let requests_per_minute = 10.try_into().unwrap();
        config::CallerConfig {
            name: "bi".into(),
            api_key_sha256: vec![digest(&SHA256, key).as_ref().try_into().unwrap()],
            certificate_san: None,
            accounts: NamePatterns::All,
            streams: NamePatterns::All,
            weight,
            cache_control: config::CacheControlGrants::default(),
            max_priority: config::PriorityClass::Interactive,
            not_after: None,
            limits: config::CallerLimits { requests_per_minute, ..Default::default() },
        }
    }

    fn layer(callers: &[config::CallerConfig]) -> EdgeLayer {
        EdgeLayer::new(1, &Callers::new(callers, &[]), &AnswerEnds::default())
    }

    #[tokio::test]
    async fn panic_costs_one_answer() {
        let below = service_fn(|AdmittedRequest { request, .. }: AdmittedRequest<Full<Bytes>>| async move {
            assert!(request.uri().path() == "/sound", "a defect");
            Err::<Answer, ApiError>(ApiError::NotFound)
        });
        let request = Request::builder().header("host", "localhost").header("x-request-id", "mine-1");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let response = layer(&[]).layer(below).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-request-id"], "mine-1");
    }

    #[tokio::test]
    async fn public_document_is_served_without_a_key() {
        let below = service_fn(|_: AdmittedRequest<Full<Bytes>>| async { Err::<Answer, ApiError>(ApiError::NotFound) });
        let caller = caller(b"other", 1);
        let edge = layer(&[caller]).layer(below);
        let path = "/koregate/v1/problems/unauthorized";
        for (method, path, status, content_type) in [
            ("GET", path, 200, "text/html; charset=utf-8"),
            ("HEAD", path, 200, "text/html; charset=utf-8"),
            ("GET", "/koregate/v1/problems/", 200, "text/html; charset=utf-8"),
            ("GET", "/koregate/v1/problems/nothing", 404, "application/problem+json"),
            ("POST", path, 405, "application/problem+json"),
            ("GET", openapi::PATH, 200, "application/json"),
            ("HEAD", openapi::PATH, 200, "application/json"),
            ("POST", openapi::PATH, 405, "application/problem+json"),
            ("GET", "/koregate/v1/usage", 401, "application/problem+json"),
        ] {
            let request = Request::builder().method(method).uri(path).header("host", "any");
            let response = edge.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers()["content-type"], content_type, "{method} {path}");
            assert!(response.headers().contains_key("x-request-id") && !response.headers().contains_key("ratelimit"));
            assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn caller_and_status_reach_the_api_stage_despite_a_panic() {
        let below = service_fn(|AdmittedRequest { request, context }: AdmittedRequest<Full<Bytes>>| async move {
            assert!(request.uri().path() == "/sound", "a defect");
            assert_eq!((context.caller.unwrap().weight, context.limit_status.unwrap().left), (3, 8));
            Err::<Answer, ApiError>(ApiError::NotFound)
        });
        let caller = caller(b"key", 3);
        let mut edge = layer(&[caller]).layer(below);
        for (path, status, left) in [("/", 500, "\"caller\";r=9;t=6"), ("/sound", 404, "\"caller\";r=8;t=6")] {
            let request = Request::builder().uri(path).header("host", "any").header("x-api-key", "key");
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let response = edge.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.headers()["ratelimit"].to_str().unwrap()), (status, left));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_a_removed_key_end_broken_off_or_refused() {
        let below = service_fn(|AdmittedRequest { request, .. }: AdmittedRequest<Full<Bytes>>| async move {
            if request.uri().path() == "/waits" {
                std::future::pending::<()>().await;
            }
            Ok::<Answer, ApiError>(Answer::of_pieces(&["one", "two", "three"]))
        });
        let callers = Callers::new(&[caller(b"key", 1)], &[]);
        let edge = EdgeLayer::new(8, &callers, &AnswerEnds::default()).layer(below);
        let request = |path: &str| {
            let request = Request::builder().uri(path).header("host", "any").header("x-api-key", "key");
            edge.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap())
        };
        let (mut sent, waiting) = (request("/sound").await.unwrap().into_body(), tokio::spawn(request("/waits")));
        assert!(sent.frame().await.unwrap().is_ok());
        tokio::task::yield_now().await;
        callers.configure(&[caller(b"other", 1)], &[]);
        let begun = tokio::time::Instant::now();
        assert!(sent.frame().await.unwrap().is_ok(), "it goes on for a while");
        assert_eq!(request("/sound").await.unwrap().status(), 401);
        assert_eq!(waiting.await.unwrap().unwrap().status(), 401);
        assert!(begun.elapsed() <= std::time::Duration::from_secs(30));
        assert!(sent.frame().await.unwrap().is_err(), "one part is left");
    }
}
