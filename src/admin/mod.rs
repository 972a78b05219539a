//! The admin plane: health, metrics, the status page and purges, on a listener of its own.

mod access;
mod page;
mod purge;
mod trust;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tower::Service;

use self::access::Access;
use crate::api::{CallerUsage, ResponseCache, Usage};
use crate::cache::{Memory, Purges, WindowFields};
use crate::clock::Clock;
use crate::config::{Config, NamePatterns};
use crate::edge::Callers;
use crate::quota::{QuotaManager, StateFile};
use crate::redis_client::Health;
use crate::replicas::Mailbox;
use crate::stack::Stack;
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

/// State that the admin plane shows. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    access: Access,
    phase: AtomicU8,
    started: Timestamp,
    clock: Clock,
    quotas: QuotaManager,
    memory: Memory,
    answers: ResponseCache,
    memory_limit: u64,
    fields: WindowFields,
    purges: Purges,
    upper_bound: UpperBound,
    post: Option<Mailbox>,
    usage: Usage,
    callers: Callers,
    metrics: &'static PrometheusHandle,
}

impl Inner {
    /// Copies of chunk data, as inflated blocks and as ready answers.
    fn hot_bytes(&self) -> u64 {
        self.memory.hot_bytes() + self.answers.bytes()
    }
}

impl Admin {
    /// The admin plane of `stack`.
    pub fn new(stack: &Stack, config: &Config, clock: Clock) -> Self {
        let of_accounts = config.accounts.iter().map(|account| &account.streams);
        let streams =
            of_accounts.chain(config.callers.iter().map(|caller| &caller.streams)).flat_map(NamePatterns::listed);
        telemetry::label_streams(streams, config.admin.metric_streams);
        Self(Arc::new(Inner {
            access: Access::new(&config.admin),
            phase: AtomicU8::new(Phase::Starting as u8),
            started: clock.now(),
            clock,
            quotas: stack.quotas.clone(),
            memory: stack.memory.clone(),
            answers: stack.answers.clone(),
            memory_limit: config.cache.memory,
            fields: stack.fields.clone(),
            purges: stack.purges.clone(),
            upper_bound: config.window.upper_bound,
            post: stack.post.clone(),
            usage: stack.usage.clone(),
            callers: stack.callers.clone(),
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

    fn status(&self) -> Status {
        let wrong = self.0.fields.wrong_accounts();
        let wrong = wrong.iter().map(|account| {
            format!(
                "account {account}: window.field is not the timestamp that the upstream selects on; only exact windows are \
                 served"
            )
        });
        let redis = self.0.post.as_ref().and_then(|post| match post.redis().health() {
            Health::Up => None,
            Health::Down { why, .. } => Some(format!("{why}; chunks are neither read from there nor written")),
        });
        let divided = self.0.quotas.iter().filter_map(|(account, turns)| {
            let share = turns.quota_share()?;
            Some(format!("account {account}: the replicas cannot reach each other; this one makes do with {share}"))
        });
        let clock = self.0.clock.is_wrong().then(|| {
            "the clock of this machine differs from the upstream's by more than a minute; nothing is kept as settled"
                .to_owned()
        });
        let closed = self.0.quotas.iter().filter_map(|(account, turns)| {
            let seconds = turns.closed_for()?.as_secs_f64().ceil();
            Some(format!(
                "account {account}: the upstream says that the quota is spent for another {seconds} s; one call now and \
                 then asks whether it still is"
            ))
        });
        let unwritten = self.0.quotas.state_file().and_then(StateFile::problem).map(|(calls, why)| {
            format!(
                "quota.state_file: {calls} calls could not be written down, so a restart would not know of them: {why}"
            )
        });
        let problems: Vec<String> =
            wrong.chain(redis).chain(divided).chain(clock).chain(closed).chain(unwritten).collect();
        Status {
            word: match self.phase() {
                Phase::Starting => "starting",
                Phase::Ready if problems.is_empty() => "ready",
                Phase::Ready => "degraded",
                Phase::Draining => "draining",
            },
            problems,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.0.clock.now().since(self.0.started).as_secs(),
            cache: CacheStatus {
                memory_bytes: self.0.memory.bytes() + self.0.hot_bytes(),
                memory_limit_bytes: self.0.memory_limit,
            },
            accounts: self
                .0
                .quotas
                .iter()
                .map(|(account, turns)| AccountStatus {
                    account_id: account.to_string(),
                    waiting: turns.queue_length(),
                    quota: turns
                        .limit_usage()
                        .into_iter()
                        .map(|limit_status| QuotaStatus {
                            requests: limit_status.limit.requests,
                            per_seconds: limit_status.limit.per.as_secs(),
                            budget: limit_status.budget,
                            remaining: limit_status.remaining,
                        })
                        .collect(),
                })
                .collect(),
        }
    }

    fn callers(&self) -> Vec<CallerUsage> {
        self.0.usage.all(|caller| self.0.callers.limit_status(caller))
    }

    /// The metrics in Prometheus' text format, with current gauges.
    fn metrics(&self) -> String {
        for (account, turns) in self.0.quotas.iter() {
            for limit_status in turns.limit_usage() {
                telemetry::quota_remaining(account, limit_status.limit.per, limit_status.remaining);
                telemetry::quota_budget(account, limit_status.limit.per, limit_status.budget);
            }
            telemetry::quota_waiting(account, turns.queue_length());
        }
        telemetry::cache_bytes("memory", self.0.memory.bytes());
        telemetry::cache_bytes("hot", self.0.hot_bytes());
        telemetry::cache_bytes("pinned", self.0.memory.pinned_bytes());
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
                let Status { word: status, problems, .. } = self.status();
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

/// Content of the status page, except for the callers.
#[derive(Serialize)]
struct Status {
    #[serde(rename = "status")]
    word: &'static str,
    problems: Vec<String>,
    version: &'static str,
    uptime_seconds: u64,
    cache: CacheStatus,
    accounts: Vec<AccountStatus>,
}

#[derive(Serialize)]
struct CacheStatus {
    memory_bytes: u64,
    memory_limit_bytes: u64,
}

#[derive(Serialize)]
struct AccountStatus {
    account_id: String,
    waiting: usize,
    quota: Vec<QuotaStatus>,
}

#[derive(Serialize)]
struct QuotaStatus {
    requests: u32,
    per_seconds: u64,
    /// Calls in the window that this process may make: less than `requests` while another client spends the same quota.
    budget: u32,
    remaining: u32,
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

/// A duration for people: "1 min", "1 h".
fn spelled(per_seconds: u64) -> String {
    match Duration::from_secs(per_seconds).as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
