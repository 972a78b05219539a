//! An HTTP client with a connection pool.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Metrics, OpenResponse, TestRequest, TestResponse, openapi};

/// A client as any service has one: it keeps its connections.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient(legacy::Client<HttpConnector, Full<Bytes>>);

impl Default for HttpClient {
    fn default() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }
}

impl HttpClient {
    /// The head of the response, with a body that is still to be read.
    pub(crate) async fn open(&self, addr: SocketAddr, request: &TestRequest) -> anyhow::Result<OpenResponse> {
        Ok(OpenResponse::new(self.0.request(request.to_http(addr)).await?))
    }

    /// The whole response, or the error that ended its connection before or within the body. Each response of a data plane
    /// is compared with the OpenAPI document.
    pub(crate) async fn try_send(&self, addr: SocketAddr, request: &TestRequest) -> anyhow::Result<TestResponse> {
        let response = self.open(addr, request).await?.try_finish().await?;
        openapi::check(request, &response);
        Ok(response)
    }

    /// The whole response; the connection must not break.
    pub(crate) async fn send(&self, addr: SocketAddr, request: &TestRequest) -> TestResponse {
        self.try_send(addr, request).await.unwrap_or_else(|error| panic!("{request:?}: {error:#}"))
    }

    /// `GET` of a path.
    pub(crate) async fn get_path(&self, addr: SocketAddr, path: &str) -> TestResponse {
        self.send(addr, &TestRequest::path_only(path)).await
    }

    /// The metrics of the admin listener at `admin_addr`.
    pub(crate) async fn metrics(&self, admin_addr: SocketAddr) -> Metrics {
        Metrics::new(self.get_path(admin_addr, "/metrics").await.text())
    }
}
