//! The stage: parses a request, asks the cache for its window, and writes the answer.

mod window_request;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, Ready, ready};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Either, Full};
use serde::Serialize;
use tower::{Layer, Service, ServiceExt as _};

use self::window_request::WindowRequest;
use super::answer::{Answer, JobBody, accept, set_job_fields};
use super::body::WindowBody;
use super::dry_run::CostBody;
use super::error::{ApiError, FailedWindow};
use super::head::{describe, next_link, set_age, streamed_cache_status};
use super::prefer::Preferences;
use super::report::{Report, WindowReport};
use super::request::{
    self, ANONYMOUS_CALLER, AdmittedRequest, AllowedAccount, Caller, ParsedRequest, QUERY, RequestContext, Target,
};
use super::request_body::{self, RequestBody, RequestMemory};
use super::response_cache::{ResponseCache, ResponseKey, StoredFor};
use super::streaming_body::StreamedPieces;
use super::usage::Usage;
use crate::cache::{
    CacheError, CachedQuery, CachedWindow, Cost, CostQuery, Outcome, RemainingStream, WindowAnswer, WindowQuery,
};
use crate::clock::Clock;
use crate::config;
use crate::jobs::{JobCommand, JobError, JobRecord, JobState};
use crate::live::Live;
use crate::quota::{LimitUsage, QuotaManager};
use crate::request::{Series, UpstreamLimit, UpstreamLimits};
use crate::telemetry;
use crate::telemetry::Tier;
use crate::window::Timestamp;

/// Parses Kore's path and parameters.
#[derive(Clone, Debug)]
pub struct ApiLayer {
    terms: Live<ApiTerms>,
    settings: config::SeriesSettings,
    quotas: QuotaManager,
    usage: Usage,
    answers: ResponseCache,
    request_memory: RequestMemory,
    clock: Clock,
    /// How long jobs are kept after their end.
    keep_jobs_for: Duration,
}

/// Settings of requests that a reload changes.
#[derive(Debug)]
struct ApiTerms {
    accounts: Vec<AllowedAccount>,
    max_wait: Duration,
    /// Differs after each reload: an answer that was stored under other terms is not found.
    generation: u64,
}

impl ApiTerms {
    fn new(accounts: &[config::AccountConfig], max_wait: Duration, generation: u64) -> Self {
        let account =
            |a: &config::AccountConfig| AllowedAccount { id: a.account_id.clone(), streams: a.streams.clone() };
        Self { accounts: accounts.iter().map(account).collect(), max_wait, generation }
    }
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
        Self {
            terms: Live::new(ApiTerms::new(accounts, Duration::MAX, 0)),
            settings: settings.clone(),
            quotas: quotas.clone(),
            usage: usage.clone(),
            answers: answers.clone(),
            request_memory: request_memory.clone(),
            clock: clock.clone(),
            keep_jobs_for: Duration::ZERO,
        }
    }

    /// Lets requests wait for the quota for at most `longest` if they say how long. Jobs are kept as configured.
    #[must_use]
    pub fn with_max_wait(self, longest: Duration, jobs: config::JobsConfig) -> Self {
        let terms = self.terms.load();
        self.terms.replace(ApiTerms { accounts: terms.accounts.clone(), max_wait: longest, generation: 0 });
        Self { keep_jobs_for: jobs.keep_for, ..self }
    }

    /// Serves other accounts, and bounds waits by another `max_wait`, for all requests that come from now on.
    pub fn configure(&self, accounts: &[config::AccountConfig], max_wait: Duration) {
        let generation = self.terms.load().generation + 1;
        self.terms.replace(ApiTerms::new(accounts, max_wait, generation));
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

impl<S, B> Service<AdmittedRequest<B>> for ApiStage<S>
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError>,
    S: Service<CachedQuery, Response = CachedWindow, Error = CacheError>,
    S: Service<CostQuery, Response = Cost, Error = Infallible>,
    S: Service<JobCommand, Response = JobRecord, Error = JobError> + Clone + Send + 'static,
    <S as Service<JobCommand>>::Future: Send,
    <S as Service<WindowQuery>>::Future: Send,
    <S as Service<CachedQuery>>::Future: Send,
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

    fn call(&mut self, AdmittedRequest { request, context }: AdmittedRequest<B>) -> Self::Future {
        let is_head = *request.method() == Method::HEAD;
        let terms = self.api.terms.load();
        let key = match self.api.find_ready(&request, context.caller.as_deref(), &terms) {
            Ok(answer) if is_head => return future::Either::Left(ready(Ok(answer.without_body()))),
            Ok(answer) => return future::Either::Left(ready(Ok(answer))),
            Err(key) => key,
        };
        let ApiStage { api, below } = self.clone();
        future::Either::Right(Box::pin(async move {
            let answer = answer(api, &terms, below, AdmittedRequest { request, context }, key).await?;
            Ok(if is_head { answer.without_body() } else { answer })
        }))
    }
}

/// Answers a request to which the response cache has no answer; `key` is that under which to store the answer.
async fn answer<S, B>(
    api: Arc<ApiLayer>,
    terms: &ApiTerms,
    below: S,
    AdmittedRequest { request, context }: AdmittedRequest<B>,
    key: Option<ResponseKey>,
) -> Result<Answer, ApiError>
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError>,
    S: Service<CachedQuery, Response = CachedWindow, Error = CacheError>,
    S: Service<CostQuery, Response = Cost, Error = Infallible>,
    S: Service<JobCommand, Response = JobRecord, Error = JobError> + Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let target = match request::target(&head)? {
        Target::Usage => return Ok(api.own_usage(&context)),
        Target::Job(id) => return api.own_job(below, id, &head.method, context.caller.as_deref()).await,
        Target::Stream(target) => target,
    };
    let RequestBody { bytes: body, permit: _held_until_answered } =
        request_body::read(body, &api.request_memory).await?;
    let now = api.clock.now();
    let mut parsed = request::read(&head, target, &body, &context, &terms.accounts, &api.settings, now)?;
    drop(body);
    parsed.query.options.only_cached |= context.is_overloaded;
    parsed.query.options.queue_timeout = parsed.preferences.apply_wait(terms.max_wait);
    let query = parsed.query.clone();
    let asked = WindowRequest { head: &head, parsed: &parsed, now };
    if parsed.wants_cost {
        let Ok(cost) = below.oneshot(CostQuery(query)).await;
        return Ok(api.cost_answer(&cost, &parsed));
    }
    let failed = |error| api.failed(error, &parsed.query.series);
    if head.method == Method::HEAD {
        let answer = match below.oneshot(CachedQuery(query)).await.map_err(failed)? {
            CachedWindow::Complete(window) => api.window_answer(window, None, &asked),
            CachedWindow::Incomplete(_) if parsed.query.options.only_cached => return Err(CacheError::NotCached.into()),
            CachedWindow::Incomplete(cost) => asked.without_items(&cost),
        };
        return Ok(asked.completed(answer));
    }
    // In an answer to QUERY, `Location` would be where GET repeats the query (RFC 10008, 2.4), and not a job.
    let is_query = head.method.as_str() == QUERY;
    if parsed.preferences.prefers_async() && !is_query && !query.options.only_cached {
        if let CachedWindow::Complete(window) = below.clone().oneshot(CachedQuery(query.clone())).await? {
            return Ok(asked.completed(api.window_answer(window, None, &asked)));
        }
        let job = below.clone().oneshot(JobCommand::Create(asked.job_request())).await?;
        if !matches!(job.state, JobState::Done { .. }) {
            return Ok(api.accepted(&job, &asked));
        }
    }
    let mut window = below.oneshot(query).await.map_err(failed)?;
    let answer = match window.rest.take() {
        Some(rest) => api.stream(&window, rest, &asked),
        None => api.window_answer(window, key, &asked),
    };
    Ok(asked.completed(answer))
}

impl ApiLayer {
    /// The cached answer to a repeated request without a body, if there is a valid one; otherwise the key under which
    /// to store the next answer, except to HEAD.
    fn find_ready<B: Body>(
        &self,
        request: &Request<B>,
        caller: Option<&Caller>,
        terms: &ApiTerms,
    ) -> Result<Answer, Option<ResponseKey>> {
        if !request.body().is_end_stream() {
            return Err(None);
        }
        let key = self.answers.key(request, caller, terms.generation);
        let Some(key) = key else { return Err(None) };
        let answer = self.answers.find(&key, || self.clock.now());
        telemetry::tier_lookups(Tier::Response, usize::from(answer.is_some()), usize::from(answer.is_none()));
        answer.ok_or_else(|| Some(key).filter(|_| *request.method() == Method::GET))
    }

    /// A complete window. Stored under `key` if it is requested often.
    fn window_answer(&self, mut window: WindowAnswer, key: Option<ResponseKey>, asked: &WindowRequest<'_>) -> Answer {
        let ParsedRequest { query, representation, preferences, retained_until, .. } = asked.parsed;
        let bytes = window.items.body_len(representation.format);
        let (validity, fetched_at) = (window.validity.take(), window.oldest_entry);
        let next = next_link(&asked.head.uri, query.page_range, &window.items);
        let (report, calls) = (self.window_report(query, &window), window.calls);
        let mut response = asked.render(window, bytes);
        if calls > 0 {
            response.extensions_mut().insert(self.upstream_limits(&query.series.account));
        }
        if let Some(next) = next {
            response.headers_mut().insert(header::LINK, next);
        }
        let is_new = response.status() != StatusCode::NOT_MODIFIED;
        let report = if is_new { report } else { Report { items: 0, ..report } };
        let Answer { mut response, report } = preferred(Answer { response, report: report.into() }, *preferences);
        if let (Some(key), Some(validity), Some(fetched_at)) = (key, validity, fetched_at)
            && self.answers.is_worth_keeping(&key, bytes)
        {
            let stored = StoredFor { validity, until: retained_until.unwrap_or(Timestamp::MAX) };
            response = self.answers.store(key, stored, fetched_at, &report, response);
        }
        if let Some(fetched_at) = fetched_at {
            set_age(response.headers_mut(), fetched_at, asked.now);
        }
        Answer { response, report }
    }

    /// The report of a window whose items are sent.
    fn window_report(&self, query: &WindowQuery, window: &WindowAnswer) -> Report {
        let Series { account, stream, .. } = &*query.series;
        let (count, caller) = (window.items.count, query.requester.caller.clone());
        Report {
            account: account.clone(),
            stream: stream.clone(),
            outcome: window.outcome.label(),
            items: count,
            calls: window.calls,
            window: Some(WindowReport {
                usage: self.usage.clone(),
                caller,
                confirmed_items: count,
                interval: query.interval,
                filters: query.series.filter_names(),
            }),
        }
    }

    /// A streamed window. The numbers of items and calls are known at its end.
    fn stream(&self, window: &WindowAnswer, rest: RemainingStream, asked: &WindowRequest<'_>) -> Answer {
        let ParsedRequest { query, representation, preferences, .. } = asked.parsed;
        let pieces = StreamedPieces::new(rest, *representation);
        let mut response = Response::new(Either::Left(WindowBody::streamed(pieces)));
        describe(&mut response, *representation);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_STATUS, streamed_cache_status(window, asked.now));
        if let Some(fetched_at) = window.oldest_entry {
            set_age(headers, fetched_at, asked.now);
        }
        // How many calls it will take is not known yet.
        if window.outcome != Outcome::Hit {
            response.extensions_mut().insert(self.upstream_limits(&query.series.account));
        }
        preferred(Answer { response, report: self.window_report(query, window).into() }, *preferences)
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

    fn own_usage(&self, context: &RequestContext) -> Answer {
        let usage = self.usage.own(context.caller.as_deref(), context.limit_status);
        describe_self(&usage, Report::without_account("usage"))
    }

    /// Shows or cancels a job of the caller's.
    async fn own_job<S>(
        &self,
        below: S,
        id: String,
        method: &Method,
        caller: Option<&Caller>,
    ) -> Result<Answer, ApiError>
    where
        S: Service<JobCommand, Response = JobRecord, Error = JobError>,
    {
        let caller = caller.map_or(ANONYMOUS_CALLER.into(), |caller| caller.name.clone());
        let is_cancelled = *method == Method::DELETE;
        let command = if is_cancelled { JobCommand::Cancel { id, caller } } else { JobCommand::Show { id, caller } };
        let job = below.oneshot(command).await?;
        let body = JobBody::new(&job, self.keep_jobs_for);
        let body = if is_cancelled && !job.is_finished() { body.cancelled() } else { body };
        let mut answer = describe_self(&body, Report::without_account("job"));
        if !is_cancelled {
            set_job_fields(answer.response.headers_mut(), &job, self.clock.now());
        }
        Ok(answer)
    }

    /// The answer to a request whose window a job fetches.
    fn accepted(&self, job: &JobRecord, asked: &WindowRequest<'_>) -> Answer {
        let Series { account, stream, .. } = &*asked.parsed.query.series;
        let report = Report::without_window(account.clone(), stream.clone(), "accepted");
        let mut answer = describe_self(&JobBody::new(job, self.keep_jobs_for), report);
        set_job_fields(answer.response.headers_mut(), job, self.clock.now());
        accept(&mut answer.response, job);
        preferred(answer, asked.parsed.preferences.applied_async())
    }

    fn cost_answer(&self, cost: &Cost, ParsedRequest { query, preferences, .. }: &ParsedRequest) -> Answer {
        let Series { account, stream, .. } = &*query.series;
        let source = (&**account, &*self.settings.for_series(account, stream));
        let body = CostBody::new(cost, &self.quotas, source, query.requester.priority);
        let report = Report::without_window(account.clone(), stream.clone(), "dry_run");
        preferred(describe_self(&body, report), *preferences)
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
