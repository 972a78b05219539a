//! The API's only call, from its arrival to its response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::auth;
use crate::call_history::{CallOutcome, RecordedCall};
use crate::data::{self, ItemFilter, SimulatedStream, WindowSelection, hash};
use crate::fault_response;
use crate::limits::{self, LimitExceeded, LimitUsage};
use crate::profile::{ApiVariant, Profile};
use crate::query::{ItemQuery, QueryParameters};
use crate::response::{self, ErrorReply, JSON};
use crate::scripted_body::ScriptedBody;
use crate::state::{CallState, InFlightGuard, SimulatorState};

/// Larger request bodies are refused.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The error upon which the server resets the connection instead of responding.
#[derive(Debug)]
pub(crate) struct ConnectionReset;

impl std::fmt::Display for ConnectionReset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset on purpose")
    }
}

impl std::error::Error for ConnectionReset {}

/// Handles one call, and records its arrival and its outcome.
pub(crate) async fn handle(
    state: Arc<SimulatorState>,
    request: Request<Incoming>,
) -> Result<Response<ScriptedBody>, ConnectionReset> {
    let profile = state.profile();
    let (parts, body) = request.into_parts();
    let query = QueryParameters::parse(parts.uri.query().unwrap_or_default());
    let has_body = !body.is_end_stream();
    let stream = stream_id(parts.uri.path()).map(str::to_owned);

    // Recorded and admitted under one lock, so that the limits see arrivals in the order of their instants.
    let (number, admitted, usage) = {
        let mut calls = state.calls();
        let call = describe_call(&state, &parts, &query, stream.as_deref(), has_body);
        let arrived = call.arrived;
        let number = calls.history.record_arrival(call);
        let admitted = admit(&state, &profile, &mut calls, &parts, stream.as_deref(), arrived);
        (number, admitted, limit_usage(&profile, &mut calls, &parts, arrived))
    };
    let in_flight = InFlightGuard::new(Arc::clone(&state));

    delay(&profile, number).await;
    let record = |status: StatusCode, outcome| {
        state.calls().history.record_outcome(number, Some(status.as_u16()), outcome);
    };
    let response = match admitted {
        Err(AdmissionError::Refused(error)) => {
            record(error.status, CallOutcome::Refused);
            error.to_response(&profile, None)
        }
        Err(AdmissionError::Limited(exceeded)) => {
            let (error, retry_after) = limit_error(&profile, exceeded);
            record(error.status, CallOutcome::Limited);
            error.to_response(&profile, retry_after)
        }
        Ok(stream) => match read_arguments(&profile.api_of(&stream.id), &query, body).await {
            None => {
                record(StatusCode::PRECONDITION_FAILED, CallOutcome::Refused);
                ErrorReply::INVALID_ARGUMENTS.to_response(&profile, None)
            }
            Some((query, filter)) => {
                let page = ItemPage::select(&state, &profile, stream, query, &filter);
                let plan = state.calls().next_fault();
                if let Some(plan) = plan {
                    let faulty = fault_response::respond(&state, &profile, number, &page, plan, in_flight).await?;
                    return Ok(with_rate_limit_headers(faulty, usage));
                }
                record(StatusCode::OK, CallOutcome::Ok { items: page.count });
                response::with_body(StatusCode::OK, JSON, page.to_json(&profile))
            }
        },
    };
    Ok(with_rate_limit_headers(response.map(|body| body.with_guard(Box::new(in_flight))), usage))
}

/// The state of the shortest limit, if the profile reports it and the account is known.
fn limit_usage(profile: &Profile, calls: &mut CallState, parts: &Parts, arrived: Instant) -> Option<LimitUsage> {
    let limits = &profile.rate_limits;
    let credential = account_id(parts).and_then(|id| profile.credential(id)).filter(|_| limits.headers)?;
    calls.arrivals.entry(credential.account_id.clone()).or_default().usage(arrived, &limits.rolling)
}

fn with_rate_limit_headers(mut response: Response<ScriptedBody>, usage: Option<LimitUsage>) -> Response<ScriptedBody> {
    if let Some(usage) = usage {
        response::add_rate_limit_headers(&mut response, usage);
    }
    response
}

fn account_id(parts: &Parts) -> Option<&str> {
    parts.headers.get("accountId").and_then(|value| value.to_str().ok())
}

/// The `{streamId}` of the path, if the path is Kore's.
fn stream_id(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/agentassist/api/v1/public/")?;
    rest.strip_suffix("/v2/agentassistinteractions").filter(|id| !id.is_empty() && !id.contains('/'))
}

fn describe_call(
    state: &SimulatorState,
    parts: &Parts,
    query: &QueryParameters,
    stream: Option<&str>,
    has_body: bool,
) -> RecordedCall {
    RecordedCall {
        arrived: Instant::now(),
        at: state.clock.now().into(),
        method: parts.method.to_string(),
        stream: stream.unwrap_or_default().to_owned(),
        account: account_id(parts).map(str::to_owned),
        query: query.clone(),
        has_body,
        status: None,
        outcome: CallOutcome::Open,
    }
}

enum AdmissionError {
    Refused(ErrorReply),
    Limited(LimitExceeded),
}

/// Checks path, method, token, stream and limits, in this order and before the arguments are parsed.
fn admit<'a>(
    state: &'a SimulatorState,
    profile: &Profile,
    calls: &mut CallState,
    parts: &Parts,
    stream: Option<&str>,
    arrived: Instant,
) -> Result<&'a SimulatedStream, AdmissionError> {
    let id = stream.ok_or(AdmissionError::Refused(ErrorReply::NOT_FOUND))?;
    if parts.method != Method::GET && parts.method != Method::POST {
        return Err(AdmissionError::Refused(ErrorReply::WRONG_METHOD));
    }
    let credential = auth::authenticate(profile, &parts.headers, &mut calls.used_jtis, state.clock.now())
        .map_err(AdmissionError::Refused)?;
    let known = state.stream(id).filter(|stream| stream.account_id == credential.account_id);
    let stream = known.ok_or(AdmissionError::Refused(ErrorReply::INVALID_CREDENTIALS))?;
    let limits = &profile.rate_limits;
    let arrivals = calls.arrivals.entry(credential.account_id.clone()).or_default();
    arrivals.record(arrived, &limits.rolling, limits.count_refused).map_err(AdmissionError::Limited)?;
    Ok(stream)
}

async fn delay(profile: &Profile, number: u64) {
    let jitter = u64::try_from(profile.latency.jitter.as_nanos()).unwrap_or(u64::MAX);
    let extra = hash(profile.seed ^ 0x6a69_7474, number).checked_rem(jitter).unwrap_or_default();
    let latency = profile.latency.fixed + Duration::from_nanos(extra);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}

fn limit_error(profile: &Profile, exceeded: LimitExceeded) -> (ErrorReply, Option<u64>) {
    let limits = &profile.rate_limits;
    let status = StatusCode::from_u16(limits.refusal_status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let error = ErrorReply::new(status, limits::error_text(exceeded.per), u32::from(status.as_u16()));
    (error, limits.retry_after.then(|| response::whole_seconds(exceeded.clears_in).max(1)))
}

async fn read_arguments(api: &ApiVariant, query: &QueryParameters, body: Incoming) -> Option<(ItemQuery, ItemFilter)> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.ok()?.to_bytes();
    Some((query.read(api)?, ItemFilter::parse(&body).ok()?))
}

/// The correct content of a response, before a fault is applied.
pub(crate) struct ItemPage {
    pub(crate) count: usize,
    pub(crate) has_more: bool,
    /// The items joined by commas.
    pub(crate) data: Vec<u8>,
}

impl ItemPage {
    fn select(
        state: &SimulatorState,
        profile: &Profile,
        stream: &SimulatedStream,
        query: ItemQuery,
        filter: &ItemFilter,
    ) -> Self {
        let now = state.clock.now();
        let mut items = stream.select(profile, WindowSelection { from: query.from, end: query.end, filter, now });
        data::sort(&mut items, profile.api_of(&stream.id).order, state.next_shuffle_seed());
        let begin = query.offset.min(items.len());
        let end = begin.saturating_add(query.limit).min(items.len());
        let page = items.get(begin..end).unwrap_or_default();
        let mut data = Vec::with_capacity(page.len() * 8_192);
        for (index, item) in page.iter().enumerate() {
            if index > 0 {
                data.push(b',');
            }
            stream.render(*item, query.agentic, &mut data);
        }
        Self { count: page.len(), has_more: end < items.len(), data }
    }

    /// The page in its envelope.
    pub(crate) fn to_json(&self, profile: &Profile) -> Bytes {
        response::envelope(profile.api.envelope, self.count, self.has_more, &self.data)
    }
}
