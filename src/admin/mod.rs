//! The admin plane: health, metrics, the status page and purges, on a listener of its own.

mod access;
mod page;
mod purge;
mod status;
mod trust;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tower::Service;

use self::access::Access;
use self::status::Status;
use crate::api::CallerUsage;
use crate::clock::Clock;
use crate::config::{Config, NamePatterns};
use crate::stack::Handles;
use crate::telemetry;
use crate::window::{Timestamp, UpperBound};

/// Phase of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

/// The admin plane. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    access: Access,
    phase: AtomicU8,
    started: Timestamp,
    clock: Clock,
    handles: Handles,
    memory_limit: u64,
    upper_bound: UpperBound,
    metrics: &'static PrometheusHandle,
}

impl Inner {
    /// Copies of chunk data, as inflated blocks and as ready answers.
    fn hot_bytes(&self) -> u64 {
        self.handles.cache.memory.hot_bytes() + self.handles.response_cache.bytes()
    }
}

impl Admin {
    /// The admin plane of a stack with these handles.
    pub fn new(handles: &Handles, config: &Config, clock: Clock) -> Self {
        let of_accounts = config.accounts.iter().map(|account| &account.streams);
        let streams =
            of_accounts.chain(config.callers.iter().map(|caller| &caller.streams)).flat_map(NamePatterns::listed);
        telemetry::label_streams(streams, config.admin.metric_streams);
        Self(Arc::new(Inner {
            access: Access::new(&config.admin),
            phase: AtomicU8::new(Phase::Starting as u8),
            started: clock.now(),
            clock,
            handles: handles.clone(),
            memory_limit: config.cache.memory,
            upper_bound: config.window.upper_bound,
            metrics: telemetry::init_metrics(),
        }))
    }

    /// Marks the process as ready.
    pub fn set_ready(&self) {
        self.0.phase.store(Phase::Ready as u8, Ordering::SeqCst);
    }

    /// Marks the process as draining: it should get no new requests.
    pub fn set_draining(&self) {
        self.0.phase.store(Phase::Draining as u8, Ordering::SeqCst);
    }

    fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    fn callers(&self) -> Vec<CallerUsage> {
        self.0.handles.usage.all(|caller| self.0.handles.callers.limit_status(caller))
    }

    /// The metrics in Prometheus' text format, with current gauges.
    fn metrics(&self) -> String {
        for (account, scheduler) in self.0.handles.quotas.iter() {
            for limit_status in scheduler.limit_usage() {
                telemetry::quota_remaining(account, limit_status.limit.per, limit_status.remaining);
                telemetry::quota_budget(account, limit_status.limit.per, limit_status.budget);
            }
            telemetry::quota_waiting(account, scheduler.queue_length());
        }
        telemetry::cache_bytes("memory", self.0.handles.cache.memory.bytes());
        telemetry::cache_bytes("hot", self.0.hot_bytes());
        telemetry::cache_bytes("pinned", self.0.handles.cache.memory.pinned_bytes());
        self.0.metrics.run_upkeep();
        self.0.metrics.render()
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if path == purge::PATH || path == trust::PATH {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST is served here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let paths = ["/", "/livez", "/readyz", "/startupz", "/metrics", "/api/v1/status", "/api/v1/callers"];
        if !paths.contains(&path) {
            return text(StatusCode::NOT_FOUND, "text/plain", "no such path\n");
        }
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is served here\n");
        }
        match path {
            "/startupz" if self.phase() == Phase::Starting => {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "starting\n")
            }
            "/livez" | "/startupz" => text(StatusCode::OK, "text/plain", "ok\n"),
            "/readyz" => {
                let ready = if self.phase() == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let Status { status, problems, .. } = self.status();
                json(ready, &Readiness { status, problems })
            }
            "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", self.metrics()),
            "/" => text(StatusCode::OK, "text/html; charset=utf-8", page::render(&self.status(), &self.callers())),
            "/api/v1/callers" => json(StatusCode::OK, &CallersStatus { callers: self.callers() }),
            _ => json(StatusCode::OK, &self.status()),
        }
    }
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct CallersStatus {
    callers: Vec<CallerUsage>,
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    text(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The admin plane as a service for one connection.
#[derive(Clone)]
pub struct AdminService {
    admin: Admin,
    peer: SocketAddr,
}

impl AdminService {
    /// Serves `admin` to `peer`.
    pub fn new(admin: Admin, peer: SocketAddr) -> Self {
        Self { admin, peer }
    }
}

impl<B> Service<Request<B>> for AdminService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { admin, peer } = self.clone();
        Box::pin(async move {
            let requester = match admin.0.access.admit(&request, peer) {
                Ok(requester) => requester,
                Err(error) => return Ok(access::refuse(&error, request.uri().path(), request.headers())),
            };
            Ok(match (request.method(), request.uri().path()) {
                (&Method::POST, purge::PATH) => admin.purge(request, requester).await,
                (&Method::POST, trust::PATH) => admin.trust(&request),
                (method, path) => admin.answer(method, path),
            })
        })
    }
}
