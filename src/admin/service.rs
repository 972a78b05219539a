//! The admin plane as a service: admits each request and answers it by its path.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;
use tower::Service;

use super::response::{json, text};
use super::state::{Admin, Phase};
use super::status::Status;
use super::{access, configuration, cordon, page, purge, trust};
use crate::api::CallerUsage;
use crate::problem;

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
                (&Method::POST, configuration::PATH) => admin.reload_now(requester).await,
                (&Method::POST, purge::PATH) => admin.purge(request, requester).await,
                (&Method::POST, trust::PATH) => admin.trust(&request),
                (&Method::POST, cordon::CORDON_PATH | cordon::UNCORDON_PATH) => admin.cordon(request, requester).await,
                (method, path) => admin.answer(method, path),
            })
        })
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if [configuration::PATH, purge::PATH, trust::PATH, cordon::CORDON_PATH, cordon::UNCORDON_PATH].contains(&path) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST is served here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let paths = ["/", "/livez", "/readyz", "/startupz", "/metrics", "/api/v1/status", "/api/v1/callers"];
        let problem_page = problem::page(path);
        if !paths.contains(&path) && problem_page.is_none() {
            return text(StatusCode::NOT_FOUND, "text/plain", "no such path\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD are served here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if let Some(page) = problem_page {
            return page;
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
