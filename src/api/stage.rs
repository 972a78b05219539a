//! The stage: parses a request, asks the cache for its window, and writes the answer.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, Ready, ready};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Either, Full};
use serde::Serialize;
use tower::{Layer, Service, ServiceExt as _};

use super::answer::{Answer, ApiBody};
use super::body::WindowBody;
use super::dry_run::CostBody;
use super::error::{ApiError, FailedWindow};
use super::head::{cache_status, describe, etag, guard, matches, set_age, streamed_cache_status};
use super::negotiation::{Coding, Negotiated};
use super::prefer::Preferences;
use super::report::{Report, WindowReport};
use super::request::{self, AllowedAccount, Caller, ParsedRequest, Target};
use super::request_body::{self, RequestBody, RequestMemory};
use super::response_cache::{ResponseCache, ResponseKey, StoredFor};
use super::streaming_body::StreamedPieces;
use super::usage::Usage;
use crate::cache::{CacheError, Cost, CostQuery, ItemSlice, Outcome, RemainingStream, WindowAnswer, WindowQuery};
use crate::clock::Clock;
use crate::config;
use crate::quota::{LimitUsage, QuotaManager};
use crate::request::{RateLimitStatus, Requester, Series, UpstreamLimit, UpstreamLimits};
use crate::window::Timestamp;

/// Body size below which a content coding gains nothing, in bytes.
const MIN_CODED_BYTES: u64 = 512;

/// Parses Kore's path and parameters.
#[derive(Clone, Debug)]
pub struct ApiLayer {
    accounts: Arc<[AllowedAccount]>,
    settings: config::SeriesSettings,
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
        settings: &config::SeriesSettings,
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
            settings: settings.clone(),
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

/// Answers a request to which the response cache has no answer; `key` is that under which to store the answer.
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
    let parsed = request::read(&head, stream, &body, caller, &api.accounts, &api.settings, now)?;
    drop(body);
    let ParsedRequest { query, representation, preferences, retained_until } = parsed;
    if preferences.dry_run {
        let Ok(cost) = below.oneshot(CostQuery(query.clone())).await;
        return Ok(preferred(api.cost_answer(&cost, &query), preferences));
    }
    let (series, requester) = (query.series.clone(), query.requester.clone());
    let mut window = below.oneshot(query).await.map_err(|error| api.failed(error, &series))?;
    if let Some(rest) = window.rest.take() {
        let answer = api.stream(&window, rest, representation, &series, &requester, now);
        return Ok(preferred(answer, preferences));
    }
    let (bytes, validity, fetched_at) =
        (window.items.body_len(representation.format), window.validity.take(), window.oldest_entry);
    let if_none_match = head.headers.get(header::IF_NONE_MATCH);
    let answer = api.window_answer(window, bytes, representation, if_none_match, &series, &requester);
    let Answer { mut response, report } = preferred(answer, preferences);
    if let (Some(key), Some(validity), Some(fetched_at)) = (key, validity, fetched_at)
        && api.answers.is_worth_keeping(&key, bytes)
    {
        let stored = StoredFor { validity, until: retained_until.unwrap_or(Timestamp::MAX) };
        response = api.answers.store(key, stored, fetched_at, &report, response);
    }
    if let Some(fetched_at) = fetched_at {
        set_age(response.headers_mut(), fetched_at, now);
    }
    Ok(Answer { response, report })
}

impl ApiLayer {
    /// The cached answer to a repeated request without a body, if there is a valid one; otherwise the key under which
    /// to store the next answer.
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
        let (cache_status, count) = (cache_status(&window, self.clock.now()), window.items.count);
        let mut response = render(window.items, bytes, representation, window.settled, if_none_match);
        response.headers_mut().insert("cache-status", cache_status);
        if window.calls > 0 {
            response.extensions_mut().insert(self.upstream_limits(&series.account));
        }
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
        headers.insert("cache-status", streamed_cache_status(window, now));
        if let Some(fetched_at) = window.oldest_entry {
            set_age(headers, fetched_at, now);
        }
        // How many calls it will take is not known yet.
        if window.outcome != Outcome::Hit {
            response.extensions_mut().insert(self.upstream_limits(&series.account));
        }
        Answer { response, report: report.into() }
    }

    /// The error of a window of `series`.
    fn failed(&self, error: CacheError, series: &Series) -> ApiError {
        ApiError::Window(Box::new(FailedWindow { error, limits: self.upstream_limits(&series.account) }))
    }

    /// How the limits of the account at the upstream stand.
    fn upstream_limits(&self, account: &str) -> UpstreamLimits {
        let usage = self.quotas.scheduler(account).map(|scheduler| scheduler.limit_usage()).unwrap_or_default();
        let limit = |LimitUsage { limit, budget: _, remaining, more_in }| UpstreamLimit {
            requests: limit.requests,
            per: limit.per,
            remaining,
            more_in,
        };
        UpstreamLimits(usage.into_iter().map(limit).collect())
    }

    fn own_usage(&self, head: &Parts) -> Answer {
        let limit_status = head.extensions.get::<RateLimitStatus>().copied();
        let usage = self.usage.own(head.extensions.get::<Caller>(), limit_status);
        describe_self(&usage, Report::without_account("usage"))
    }

    fn cost_answer(&self, cost: &Cost, query: &WindowQuery) -> Answer {
        let Series { account, stream, .. } = &*query.series;
        let body = CostBody::new(cost, &self.quotas, account, query.requester.priority);
        describe_self(&body, Report::without_window(account.clone(), stream.clone(), "dry_run"))
    }
}

/// An answer that names the preferences that were applied.
fn preferred(mut answer: Answer, preferences: Preferences) -> Answer {
    if let Some(applied) = preferences.applied() {
        answer.response.headers_mut().insert("preference-applied", applied);
    }
    answer
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

/// The answer with these items, whose body has `bytes` without a content coding.
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
