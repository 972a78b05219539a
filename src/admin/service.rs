//! The admin plane as a service: admits each request and answers it by its path.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Ready, ready};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;
use tower::Service;

use super::access::AdminRequester;
use super::page::{PageModel, SpanView};
use super::response::{html, json, method_not_allowed, text};
use super::sign_in::{SIGN_IN_PATH, SIGN_OUT_PATH};
use super::state::{Admin, Phase};
use super::views::coverage::CoverageRequest;
use super::views::status::Status;
use super::views::{coverage, problems, runs};
use super::{access, cordon, page, purge, reload, trust};
use crate::api::CallerUsage;
use crate::edge::AllowedHosts;
use crate::problem;
use crate::problem::{Problem, ProblemType};
use crate::telemetry;
use crate::telemetry::RequestFacts;

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
    B: Body + Send + Sync + 'static,
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
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = admin.respond(request, peer).await;
            if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let asked = RequestFacts { method: method.as_str(), target: &path, account: None, peer: Some(peer) };
                telemetry::admin_refused(response.status().as_u16(), &asked);
            }
            Ok(response)
        })
    }
}

impl Admin {
    /// The response to a request of `peer`.
    async fn respond<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Full<Bytes>>
    where
        B: Body + Send + Sync + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let access = &self.0.access;
        let refuse = |error| access::refuse(&error, request.uri().path(), request.headers());
        let requester = match access.admit(&request, peer, self.0.clock.now()) {
            Ok(requester) => requester,
            Err(error) => return refuse(error),
        };
        if request.method() != Method::POST {
            return self.answer(&request, requester).await;
        }
        // The forms of the page have their token in the body, and check it themselves.
        match request.uri().path() {
            SIGN_IN_PATH => return self.sign_in(request).await,
            SIGN_OUT_PATH => return self.sign_out(request, requester).await,
            purge::FORM_PATH => return self.purge_by_form(request, requester).await,
            _ => {}
        }
        if let Err(error) = access.check_change(requester, request.headers(), None) {
            return refuse(error);
        }
        match request.uri().path() {
            reload::PATH => self.reload_now(requester).await,
            purge::PATH => self.purge(request, requester).await,
            trust::PATH => self.trust(&request),
            cordon::CORDON_PATH | cordon::UNCORDON_PATH => self.cordon(request, requester).await,
            _ => self.answer(&request, requester).await,
        }
    }
}

/// The paths that are served to POST alone.
const POST_PATHS: [&str; 8] = [
    reload::PATH,
    purge::PATH,
    trust::PATH,
    cordon::CORDON_PATH,
    cordon::UNCORDON_PATH,
    SIGN_IN_PATH,
    SIGN_OUT_PATH,
    purge::FORM_PATH,
];
/// The paths that are served to GET and HEAD.
const GET_PATHS: [&str; 14] = [
    "/",
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/api/v1/status",
    "/api/v1/callers",
    coverage::PATH,
    runs::PATH,
    problems::PROBLEMS_PATH,
    problems::HISTORY_PATH,
    page::STYLE_PATH,
    page::SCRIPT_PATH,
    page::SIGN_IN_SCRIPT_PATH,
];

impl Admin {
    /// The answer to a request that changes nothing.
    async fn answer<B>(&self, request: &Request<B>, requester: AdminRequester) -> Response<Full<Bytes>> {
        let (method, path, query) = (request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        if POST_PATHS.contains(&path) {
            return method_not_allowed("POST");
        }
        let problem_page = problem::page(path);
        if !GET_PATHS.contains(&path) && problem_page.is_none() {
            return text(StatusCode::NOT_FOUND, "text/plain", "no such path\n");
        }
        if method != Method::GET && method != Method::HEAD {
            return method_not_allowed("GET, HEAD");
        }
        if let Some(page) = problem_page {
            return page;
        }
        if let Some((content_type, asset)) = page::asset(path) {
            return text(StatusCode::OK, content_type, asset);
        }
        match path {
            "/" => html(StatusCode::OK, self.page(query, requester).await),
            coverage::PATH => match CoverageRequest::read(query) {
                Ok(asked) => json(StatusCode::OK, &*self.coverage(&asked).await),
                Err(detail) => Problem::new(ProblemType::BadRequest, &detail).response(),
            },
            runs::PATH => json(StatusCode::OK, &self.runs()),
            problems::PROBLEMS_PATH => json(StatusCode::OK, &self.recent_problems()),
            problems::HISTORY_PATH => json(StatusCode::OK, &self.history_status()),
            "/api/v1/callers" => json(StatusCode::OK, &CallersStatus { callers: self.callers() }),
            "/api/v1/status" => json(StatusCode::OK, &self.status()),
            _ => self.probe(path),
        }
    }

    /// The answer to a probe, or to Prometheus.
    pub(super) fn probe(&self, path: &str) -> Response<Full<Bytes>> {
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
            _ => text(StatusCode::NOT_FOUND, "text/plain", "no such path\n"),
        }
    }

    /// The status page. With `without=coverage`, the calendar is left out, which the page's script does most of the time.
    async fn page(&self, query: &str, requester: AdminRequester) -> String {
        let is_wanted =
            !form_urlencoded::parse(query.as_bytes()).any(|(name, what)| name == "without" && what == "coverage");
        let coverage = if is_wanted { Some(self.coverage(&CoverageRequest::default()).await) } else { None };
        self.observe();
        let (now, status) = (self.0.clock.now(), self.status());
        let spans = page::spans(&self.history(), now, status.uptime_seconds);
        page::render(&PageModel {
            now,
            status: &status,
            callers: &self.callers(),
            view: SpanView::new(&spans, status.uptime_seconds),
            limits: &self.limit_names(),
            coverage,
            runs: &self.runs(),
            problems: &self.recent_problems(),
            configuration: &self.config(),
            example: self.example(now),
            csrf: self.0.access.csrf_of(requester),
            is_session: matches!(requester, AdminRequester::Session(_)),
        })
    }
}

/// A service for one connection that serves probes and metrics, and nothing else.
#[derive(Clone)]
pub struct MetricsService(pub Admin);

impl<B> Service<Request<B>> for MetricsService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Err(error) = AllowedHosts::any().check(&request) {
            return ready(Ok(access::refuse(&error.into(), request.uri().path(), request.headers())));
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        ready(Ok(if is_read { self.0.probe(request.uri().path()) } else { method_not_allowed("GET, HEAD") }))
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
