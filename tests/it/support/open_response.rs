//! A response whose body is read step by step.

use http::HeaderMap;
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;

use super::TestResponse;

/// The head of a response, and the bytes of its body that have been read.
#[derive(Debug)]
pub(crate) struct OpenResponse {
    head: Parts,
    body: Incoming,
    received: Vec<u8>,
}

impl OpenResponse {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body, received: Vec::new() }
    }

    /// The headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Reads on until at least `len` bytes of the body have been received; returns all received bytes.
    pub(crate) async fn read(&mut self, len: usize) -> &[u8] {
        while self.received.len() < len {
            let frame = self.body.frame().await.expect("more of the body").unwrap();
            self.received.extend_from_slice(&frame.into_data().unwrap());
        }
        &self.received
    }

    /// Reads to the end, or to the error that broke the connection.
    pub(crate) async fn try_finish(self) -> anyhow::Result<TestResponse> {
        let Self { head, body, mut received } = self;
        received.extend_from_slice(&body.collect().await?.to_bytes());
        Ok(TestResponse::new(head, received))
    }

    /// Reads to the end; the connection must not break.
    pub(crate) async fn finish(self) -> TestResponse {
        self.try_finish().await.unwrap()
    }
}
