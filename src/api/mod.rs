//! The API stage: parses a request, asks the cache for its window, and writes the answer.

mod body;
mod dry_run;
mod error;
mod gzip;
mod negotiation;
mod prefer;
mod report;
mod request;
mod request_body;
mod response_cache;
mod streaming_body;
mod usage;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, Ready, ready};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Either, Full};
use serde::Serialize;
use tower::{Layer, Service, ServiceExt as _};

use self::body::WindowBody;
use self::dry_run::CostBody;
use self::negotiation::{Coding, Format, Negotiated};
use self::report::WindowReport;
use self::request::{AllowedAccount, ParsedRequest, Target};
use self::request_body::RequestBody;
use self::response_cache::ResponseKey;
use self::streaming_body::StreamedPieces;
use crate::cache::{CacheError, Cost, CostQuery, ItemSlice, Outcome, RemainingStream, WindowAnswer, WindowQuery};
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaManager;
use crate::request::RateLimitStatus;
use crate::request::{Requester, Series};
use crate::window::Timestamp;

pub use self::error::ApiError;
pub use self::report::{FinalCounts, Progress, Report};
pub use self::request::Caller;
pub use self::request_body::{RequestMemory, RequestMemoryPermit};
pub use self::response_cache::ResponseCache;
pub use self::usage::{AccountUsage, CallerLimit, CallerUsage, Calls, QuotaUsage, Usage};

/// Body size below which a content coding gains nothing, in bytes.
const MIN_CODED_BYTES: u64 = 512;
/// Request fields that select between answers to the same target.
const VARY: &str = "accept, accept-encoding, accountid, prefer";

/// A window's body, or a short text: empty for a 304, or usage and cost.
pub type ApiBody = Either<WindowBody, Full<Bytes>>;

/// An answer and its report.
pub struct Answer {
    /// Head and body; the body may still be streamed.
    pub response: Response<ApiBody>,
    /// Reported when the body has ended.
    pub report: Arc<Report>,
}

/// Parses Kore's path and parameters.
#[derive(Clone, Debug)]
pub struct ApiLayer {
    accounts: Arc<[AllowedAccount]>,
    window: config::WindowConfig,
    quotas: QuotaManager,
    usage: Usage,
    answers: ResponseCache,
    request_memory: RequestMemory,
    clock: Clock,
}

impl ApiLayer {
    /// Serves the streams of `accounts`. Waits are estimated by `quotas`, and bodies are read within `request_memory`.
    pub fn new(
        accounts: &[config::AccountConfig],
        window: &config::WindowConfig,
        quotas: &QuotaManager,
        usage: &Usage,
        answers: &ResponseCache,
        request_memory: &RequestMemory,
        clock: &Clock,
    ) -> Self {
        let account =
            |a: &config::AccountConfig| AllowedAccount { id: a.account_id.clone(), streams: a.streams.clone() };
        Self {
            accounts: accounts.iter().map(account).collect(),
            window: window.clone(),
            quotas: quotas.clone(),
            usage: usage.clone(),
            answers: answers.clone(),
            request_memory: request_memory.clone(),
            clock: clock.clone(),
        }
    }
}

impl<S> Layer<S> for ApiLayer {
    type Service = ApiStage<S>;

    fn layer(&self, below: S) -> ApiStage<S> {
        ApiStage { api: Arc::new(self.clone()), below }
    }
}

/// See [`ApiLayer`].
#[derive(Clone, Debug)]
pub struct ApiStage<S> {
    /// Shared, because the stage is cloned for each request.
    api: Arc<ApiLayer>,
    below: S,
}

impl<S, B> Service<Request<B>> for ApiStage<S>
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError>,
    S: Service<CostQuery, Response = Cost, Error = Infallible> + Clone + Send + 'static,
    <S as Service<WindowQuery>>::Future: Send,
    <S as Service<CostQuery>>::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Answer;
    type Error = ApiError;
    type Future = future::Either<Ready<Result<Answer, ApiError>>, BoxFuture<'static, Result<Answer, ApiError>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = match self.api.find_ready(&request) {
            Ok(answer) => return future::Either::Left(ready(Ok(answer))),
            Err(key) => key,
        };
        let ApiStage { api, below } = self.clone();
        future::Either::Right(Box::pin(answer(api, below, request, key)))
    }
}

/// Answers a request to which there is no ready answer; `key` is that under which to store the answer.
async fn answer<S, B>(
    api: Arc<ApiLayer>,
    below: S,
    request: Request<B>,
    key: Option<ResponseKey>,
) -> Result<Answer, ApiError>
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError>,
    S: Service<CostQuery, Response = Cost, Error = Infallible>,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let stream = match request::target(&head)? {
        Target::Usage => return Ok(api.own_usage(&head)),
        Target::Stream(stream) => stream,
    };
    let RequestBody { bytes: body, permit: _held_until_answered } =
        request_body::read(body, &api.request_memory).await?;
    let caller = head.extensions.get::<Caller>();
    let now = api.clock.now();
    let parsed = request::read(&head, stream, &body, caller, &api.accounts, &api.window, now)?;
    drop(body);
    let ParsedRequest { query, representation, dry_run } = parsed;
    if dry_run {
        let Ok(cost) = below.oneshot(CostQuery(query.clone())).await;
        return Ok(api.cost_answer(&cost, &query));
    }
    let (series, requester) = (query.series.clone(), query.requester.clone());
    let mut window = below.oneshot(query).await?;
    if let Some(rest) = window.rest.take() {
        return Ok(api.stream(&window, rest, representation, &series, &requester, now));
    }
    let (bytes, validity, fetched_at) =
        (window.items.body_len(representation.format), window.validity.take(), window.oldest_entry);
    let if_none_match = head.headers.get(header::IF_NONE_MATCH);
    let Answer { mut response, report } =
        api.window_answer(window, bytes, representation, if_none_match, &series, &requester);
    if let (Some(key), Some(validity), Some(fetched_at)) = (key, validity, fetched_at)
        && api.answers.is_worth_keeping(&key, bytes)
    {
        response = api.answers.store(key, validity, fetched_at, &report, response);
    }
    if let Some(fetched_at) = fetched_at {
        set_age(response.headers_mut(), fetched_at, now);
    }
    Ok(Answer { response, report })
}

impl ApiLayer {
    /// The ready answer to a repeated request without a body, if there is a valid one; otherwise the key under which to
    /// store the next answer.
    fn find_ready<B: Body>(&self, request: &Request<B>) -> Result<Answer, Option<ResponseKey>> {
        if !request.body().is_end_stream() {
            return Err(None);
        }
        let caller = request.extensions().get::<Caller>();
        let key = self.answers.key(request.method(), request.uri(), request.version(), request.headers(), caller);
        let Some(key) = key else { return Err(None) };
        self.answers.find(&key, || self.clock.now()).ok_or(Some(key))
    }

    /// A complete window, whose body has `bytes` without a content coding.
    fn window_answer(
        &self,
        window: WindowAnswer,
        bytes: u64,
        representation: Negotiated,
        if_none_match: Option<&HeaderValue>,
        series: &Series,
        requester: &Requester,
    ) -> Answer {
        let (cache_status, count) = (cache_status(&window), window.items.count);
        let mut response = render(window.items, bytes, representation, window.settled, if_none_match);
        response.headers_mut().insert("cache-status", cache_status);
        let usage =
            WindowReport { usage: self.usage.clone(), caller: requester.caller.clone(), confirmed_items: count };
        let report = Report {
            account: series.account.clone(),
            stream: series.stream.clone(),
            outcome: window.outcome.label(),
            items: if response.status() == StatusCode::NOT_MODIFIED { 0 } else { count },
            calls: window.calls,
            window: Some(usage),
        };
        Answer { response, report: report.into() }
    }

    /// A streamed window. The numbers of items and calls are known at its end.
    fn stream(
        &self,
        window: &WindowAnswer,
        rest: RemainingStream,
        representation: Negotiated,
        series: &Series,
        requester: &Requester,
        now: Timestamp,
    ) -> Answer {
        let usage = WindowReport { usage: self.usage.clone(), caller: requester.caller.clone(), confirmed_items: 0 };
        let (account, stream, outcome) = (series.account.clone(), series.stream.clone(), window.outcome.label());
        let report = Report { account, stream, outcome, items: 0, calls: 0, window: Some(usage) };
        let pieces = StreamedPieces::new(rest, representation);
        let mut response = Response::new(Either::Left(WindowBody::streamed(pieces)));
        describe(&mut response, representation);
        let headers = response.headers_mut();
        headers.insert("cache-status", status(window.outcome, "streamed"));
        if let Some(fetched_at) = window.oldest_entry {
            set_age(headers, fetched_at, now);
        }
        Answer { response, report: report.into() }
    }

    fn own_usage(&self, head: &Parts) -> Answer {
        let limit_status = head.extensions.get::<RateLimitStatus>().copied();
        let usage = self.usage.own(head.extensions.get::<Caller>(), limit_status);
        describe_self(&usage, Report::without_account("usage"))
    }

    fn cost_answer(&self, cost: &Cost, query: &WindowQuery) -> Answer {
        let Series { account, stream, .. } = &*query.series;
        let body = CostBody::new(cost, &self.quotas, account, query.requester.priority);
        let mut answer = describe_self(&body, Report::without_window(account.clone(), stream.clone(), "dry_run"));
        answer.response.headers_mut().insert("preference-applied", HeaderValue::from_static("dry-run"));
        answer
    }
}

/// An answer about the gateway itself, which must not be cached.
fn describe_self(content: &impl Serialize, report: Report) -> Answer {
    let body = serde_json::to_vec(content).unwrap_or_default();
    let mut response = Response::new(Either::Right(Full::from(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answer { response, report: report.into() }
}

/// Seconds with milliseconds, for people.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// The answer with these items, whose body has `length` bytes without a content coding.
fn render(
    items: ItemSlice,
    bytes: u64,
    negotiated: Negotiated,
    settled: bool,
    if_none_match: Option<&HeaderValue>,
) -> Response<ApiBody> {
    let coding = if bytes >= MIN_CODED_BYTES { negotiated.coding } else { Coding::Identity };
    let representation = Negotiated { coding, ..negotiated };
    let etag = settled.then(|| etag(&items, representation));
    let known = etag.as_ref().zip(if_none_match).is_some_and(|(etag, known)| matches(known, etag));
    let mut response = if known {
        let mut response = Response::new(Either::Right(Full::default()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Either::Left(WindowBody::new(items, representation)));
        describe(&mut response, representation);
        response
    };
    let headers = response.headers_mut();
    guard(headers);
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// `Age` (RFC 9111, 5.1).
fn set_age(headers: &mut HeaderMap, fetched_at: Timestamp, now: Timestamp) {
    headers.insert(header::AGE, now.since(fetched_at).as_secs().into());
}

/// Sets the content fields.
fn describe(response: &mut Response<ApiBody>, representation: Negotiated) {
    let content_type = match representation.format {
        Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if representation.coding == Coding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    guard(headers);
}

/// Conversations are personal data: shared caches must not store them, and the client's own cache must revalidate.
fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
}

/// A validator that is equal for equal items, on every replica and however chunks are cut. Strong without a content
/// coding; weak with one, because compressed bytes may differ.
fn etag(items: &ItemSlice, representation: Negotiated) -> String {
    let form = match representation.format {
        Format::Json => "j",
        Format::Ndjson => "n",
    };
    let weak = if representation.coding == Coding::Gzip { "W/" } else { "" };
    format!("{weak}\"{:016x}-{:x}{}-{form}\"", items.sum(), items.count, if items.has_more { "+" } else { "" })
}

/// Whether `If-None-Match` (RFC 9110, 13.1.2) matches, by weak comparison.
fn matches(if_none_match: &HeaderValue, etag: &str) -> bool {
    let Ok(known) = if_none_match.to_str() else { return false };
    let etag = etag.trim_start_matches("W/");
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

/// `Cache-Status` of an answer that is complete.
fn cache_status(window: &WindowAnswer) -> HeaderValue {
    let WindowAnswer { chunks, hits, calls, .. } = window;
    status(window.outcome, &format!("chunks={chunks} hits={hits} calls={calls}"))
}

/// `Cache-Status` (RFC 9211).
fn status(outcome: Outcome, detail: &str) -> HeaderValue {
    let handling = match outcome {
        Outcome::Hit => "hit",
        Outcome::Miss => "fwd=miss",
        Outcome::Partial => "fwd=partial",
        Outcome::Stale => "fwd=stale",
        Outcome::Collapsed => "fwd=miss; collapsed",
        Outcome::Bypass => "fwd=bypass",
    };
    let status = format!("koregate; {handling}; detail=\"{detail}\"");
    HeaderValue::try_from(status).unwrap_or(HeaderValue::from_static("koregate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_list_is_compared_weakly() {
        let matches = |known: &'static str| matches(&HeaderValue::from_static(known), "\"a-1-j\"");
        assert!(matches("\"a-1-j\""));
        assert!(matches("\"x\", W/\"a-1-j\""));
        assert!(matches("*"));
        assert!(!matches("\"a-2-j\""));
    }
}
