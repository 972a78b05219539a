//! The requests to a gateway, and what is recorded of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use koregate::stack::GatewayService;
use tower::ServiceExt as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::host::now;
use super::oracle::Line;
use super::timestamp;
use crate::support::{TestRequest, format_query_time};

/// A request.
#[derive(Clone, Debug)]
pub(super) struct WindowRequest {
    pub(super) stream: &'static str,
    /// Time since the Unix epoch.
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) is_background: bool,
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The rows of a 200.
    Rows(Vec<Line>),
    /// Another status, with the type of the problem.
    Problem(u16, String),
    /// The answer broke off.
    BrokenOff,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) gateway: usize,
    pub(super) request: WindowRequest,
    /// The gateway's time of day when the request came, since the Unix epoch.
    pub(super) present: Duration,
    /// Times since the simulation began.
    pub(super) asked_at: Duration,
    pub(super) ended: Option<(Duration, Outcome)>,
}

impl Record {
    /// Whether the answer was a window; `None` if it has not ended.
    pub(super) fn is_served(&self) -> Option<bool> {
        self.ended.as_ref().map(|(_, outcome)| matches!(outcome, Outcome::Rows(_)))
    }
}

/// All requests of a run. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Records(Arc<Mutex<Vec<Record>>>);

impl Records {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Vec<Record>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a request on the machine that runs. Returns its number.
    pub(super) fn ask(
        &self,
        gateway: usize,
        service: &GatewayService,
        request: WindowRequest,
        present: Duration,
    ) -> usize {
        let asked_at = now();
        let number = self.with(|records| {
            records.push(Record { gateway, request: request.clone(), present, asked_at, ended: None });
            records.len() - 1
        });
        let (records, service) = (self.clone(), service.clone());
        tokio::spawn(async move {
            let outcome = perform(service, &request).await;
            let ended = Some((now(), outcome));
            records.with(|records| records[number].ended = ended);
        });
        number
    }
}

async fn perform(service: GatewayService, request: &WindowRequest) -> Outcome {
    let text = |at| format_query_time(timestamp(at), "%Y-%m-%dT%H:%M:%S");
    let query = format!("from={}&to={}", text(request.from), text(request.to));
    let mut built = TestRequest::get(query).stream(request.stream).ndjson();
    if request.is_background {
        built = built.header("priority", "u=7");
    }
    let mut http = built.to_http("127.0.0.1:80".parse().unwrap());
    http.headers_mut().insert("host", "localhost".parse().unwrap());
    let answer = service.oneshot(http).await.unwrap();
    let status = answer.status().as_u16();
    match answer.into_body().collect().await {
        Err(_) => Outcome::BrokenOff,
        Ok(body) if status == 200 => {
            let body = body.to_bytes();
            Outcome::Rows(body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(xxh3_128).collect())
        }
        Ok(body) => {
            let problem: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            Outcome::Problem(status, problem["type"].as_str().unwrap_or_default().to_owned())
        }
    }
}

impl Outcome {
    /// A hash that is the same for the same outcome.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Self::Rows(rows) => rows.iter().fold(0, |sum, row| xxh3_64(format!("{sum} {row}").as_bytes())),
            Self::Problem(status, kind) => xxh3_64(format!("{status} {kind}").as_bytes()),
            Self::BrokenOff => 1,
        }
    }
}
