//! The one call there is, from arrival to answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};

use super::answer;
use super::answer::{HTML, JSON, Refusal};
use super::auth;
use super::body::Script;
use super::data;
use super::data::{Filter, Selection, Stream, mix};
use super::faults::{Fault, FaultPlan};
use super::ledger::{Call, Ledger, Outcome};
use super::limits;
use super::limits::{Exceeded, Standing};
use super::profile::Profile;
use super::query::{Query, RawQuery};
use super::shared::{Shared, UnderWay};

/// Larger bodies are refused.
const BODY_LIMIT: usize = 1 << 20;

/// The connection is to be reset in place of an answer.
#[derive(Debug)]
pub(super) struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset on purpose")
    }
}

impl std::error::Error for Reset {}

/// Answers one call, and writes down that it came and what became of it.
pub(super) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Script>, Reset> {
    let profile = shared.profile();
    let (parts, body) = request.into_parts();
    let query = RawQuery::parse(parts.uri.query().unwrap_or_default());
    let has_body = !body.is_end_stream();
    let stream = stream_id(parts.uri.path()).map(str::to_owned);

    // Arrival: under one lock, so that the limits see the calls in the order of their instants.
    let (number, admitted, standing) = {
        let mut ledger = shared.ledger();
        let call = arrival(&shared, &parts, &query, stream.as_deref(), has_body);
        let arrived = call.arrived;
        let number = ledger.open(call);
        let admitted = admit(&shared, &profile, &mut ledger, &parts, stream.as_deref(), arrived);
        (number, admitted, standing(&profile, &mut ledger, &parts, arrived))
    };
    let under_way = UnderWay::new(Arc::clone(&shared));

    latency(&profile, number).await;
    let close = |status: StatusCode, outcome| shared.ledger().close(number, Some(status.as_u16()), outcome);
    let reply = match admitted {
        Err(Refused::Plain(refusal)) => {
            close(refusal.status, Outcome::Refused);
            refusal.answer(&profile, None)
        }
        Err(Refused::Limit(exceeded)) => {
            let (refusal, retry_after) = too_many(&profile, exceeded);
            close(refusal.status, Outcome::Limited);
            refusal.answer(&profile, retry_after)
        }
        Ok(stream) => match arguments(&profile, &query, body).await {
            None => {
                close(StatusCode::PRECONDITION_FAILED, Outcome::Refused);
                Refusal::INVALID_ARGUMENTS.answer(&profile, None)
            }
            Some((query, filter)) => {
                let page = Page::of(&shared, &profile, stream, query, &filter);
                let plan = shared.ledger().next_fault();
                if let Some(plan) = plan {
                    let reply = faulted(&shared, &profile, number, page, plan, under_way).await?;
                    return Ok(told(reply, standing));
                }
                close(StatusCode::OK, Outcome::Ok { items: page.count });
                answer::page(StatusCode::OK, JSON, page.whole(&profile))
            }
        },
    };
    Ok(told(reply.map(|script| script.ending_with(Box::new(under_way))), standing))
}

/// What the answer is to tell of the limits, if it is to.
fn standing(profile: &Profile, ledger: &mut Ledger, parts: &Parts, arrived: tokio::time::Instant) -> Option<Standing> {
    let account = parts.headers.get("accountId").and_then(|value| value.to_str().ok());
    let credential = account.and_then(|id| profile.credential(id)).filter(|_| profile.rate_limit_headers)?;
    ledger.logs.entry(credential.account_id.clone()).or_default().standing(arrived, &profile.limits)
}

fn told(mut reply: Response<Script>, standing: Option<Standing>) -> Response<Script> {
    if let Some(standing) = standing {
        answer::tell_standing(&mut reply, standing);
    }
    reply
}

/// The `{streamId}` of the path, if it is Kore's path.
fn stream_id(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/agentassist/api/v1/public/")?;
    rest.strip_suffix("/v2/agentassistinteractions").filter(|id| !id.is_empty() && !id.contains('/'))
}

fn arrival(shared: &Shared, parts: &Parts, query: &RawQuery, stream: Option<&str>, has_body: bool) -> Call {
    let account = parts.headers.get("accountId").and_then(|value| value.to_str().ok());
    Call {
        arrived: tokio::time::Instant::now(),
        at: shared.clock.now(),
        method: parts.method.to_string(),
        stream: stream.unwrap_or_default().to_owned(),
        account: account.map(str::to_owned),
        from: query.from.clone(),
        to: query.to.clone(),
        offset: query.offset.clone(),
        limit: query.limit.clone(),
        rich: query.rich,
        extra: query.extra.clone(),
        body: has_body,
        status: None,
        outcome: Outcome::Open,
    }
}

enum Refused {
    Plain(Refusal),
    Limit(Exceeded),
}

/// Path, method, token, stream and limits: what can be refused before the arguments are looked at.
fn admit<'a>(
    shared: &'a Shared,
    profile: &Profile,
    ledger: &mut Ledger,
    parts: &Parts,
    stream: Option<&str>,
    arrived: tokio::time::Instant,
) -> Result<&'a Stream, Refused> {
    let id = stream.ok_or(Refused::Plain(Refusal::NOT_FOUND))?;
    if parts.method != Method::GET && parts.method != Method::POST {
        return Err(Refused::Plain(Refusal::WRONG_METHOD));
    }
    let credential =
        auth::check(profile, &parts.headers, &mut ledger.jtis, shared.clock.now()).map_err(Refused::Plain)?;
    let known = shared.stream(id).filter(|stream| stream.account_id == credential.account_id);
    let stream = known.ok_or(Refused::Plain(Refusal::INVALID_CREDENTIALS))?;
    let log = ledger.logs.entry(credential.account_id.clone()).or_default();
    log.arrive(arrived, &profile.limits, profile.count_refused).map_err(Refused::Limit)?;
    Ok(stream)
}

async fn latency(profile: &Profile, number: u64) {
    let jitter = u64::try_from(profile.latency.jitter.as_nanos()).unwrap_or(u64::MAX);
    let extra = mix(profile.seed ^ 0x6a69_7474, number).checked_rem(jitter).unwrap_or_default();
    let wait = profile.latency.fixed + Duration::from_nanos(extra);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

fn too_many(profile: &Profile, exceeded: Exceeded) -> (Refusal, Option<u64>) {
    let status = StatusCode::from_u16(profile.limit_status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let refusal = Refusal::new(status, limits::message(exceeded.per), u32::from(status.as_u16()));
    (refusal, profile.retry_after.then(|| answer::whole_seconds(exceeded.clears_in).max(1)))
}

async fn arguments(profile: &Profile, query: &RawQuery, body: Incoming) -> Option<(Query, Filter)> {
    let body = Limited::new(body, BODY_LIMIT).collect().await.ok()?.to_bytes();
    Some((query.read(profile)?, Filter::parse(&body).ok()?))
}

/// The truth, before anything goes wrong with it.
struct Page {
    count: usize,
    has_more: bool,
    /// The items joined by commas.
    data: Vec<u8>,
}

impl Page {
    fn of(shared: &Shared, profile: &Profile, stream: &Stream, query: Query, filter: &Filter) -> Self {
        let now = shared.clock.now();
        let mut seen = stream.select(profile, Selection { from: query.from, end: query.end, filter, now });
        data::arrange(&mut seen, profile.order, shared.turn());
        let begin = query.offset.min(seen.len());
        let end = begin.saturating_add(query.limit).min(seen.len());
        let page = seen.get(begin..end).unwrap_or_default();
        let mut data = Vec::with_capacity(page.len() * 8_192);
        for (place, seen) in page.iter().enumerate() {
            if place > 0 {
                data.push(b',');
            }
            stream.render(*seen, query.rich, &mut data);
        }
        Self { count: page.len(), has_more: end < seen.len(), data }
    }

    fn whole(&self, profile: &Profile) -> Bytes {
        answer::envelope(profile.envelope, self.count, self.has_more, &self.data)
    }
}

async fn faulted(
    shared: &Shared,
    profile: &Profile,
    number: u64,
    page: Page,
    plan: FaultPlan,
    under_way: UnderWay,
) -> Result<Response<Script>, Reset> {
    let close = |status: Option<StatusCode>| {
        let status = status.map(|status| status.as_u16());
        shared.ledger().close(number, status, Outcome::Faulted(plan.fault));
    };
    match plan.fault {
        Fault::Reset => {
            close(None);
            return Err(Reset);
        }
        Fault::Slow => tokio::time::sleep(plan.delay).await,
        _ => {}
    }
    let response = wrong(profile, number, &page, plan);
    close(Some(response.status()));
    Ok(response.map(|script| script.ending_with(Box::new(under_way))))
}

fn wrong(profile: &Profile, number: u64, page: &Page, plan: FaultPlan) -> Response<Script> {
    let ok = |body: Bytes| answer::page(StatusCode::OK, JSON, body);
    let limit = limits::message(Duration::from_mins(1));
    let limit = Refusal::new(StatusCode::TOO_MANY_REQUESTS, limit, 429);
    match plan.fault {
        Fault::Status500 => Refusal::SERVER_ERROR.answer(profile, None),
        Fault::Html502 => answer::page(StatusCode::BAD_GATEWAY, HTML, HTML_502),
        Fault::TooMany => limit.answer(profile, Some(plan.retry_after.as_secs())),
        Fault::TooManySilent => limit.answer(profile, None),
        Fault::Unauthorized => Refusal::INVALID_CREDENTIALS.answer(profile, None),
        Fault::Html200 => answer::page(StatusCode::OK, HTML, HTML_200),
        Fault::EmptyBody => ok(Bytes::new()),
        Fault::Garbage => ok(garbage(mix(profile.seed, number))),
        Fault::TruncatedJson => {
            let whole = page.whole(profile);
            ok(whole.slice(..whole.len() * 2 / 3))
        }
        Fault::Truncated => {
            let whole = page.whole(profile);
            let mut response = ok(Bytes::new()).map(|_| Script::broken(&whole));
            response.headers_mut().insert(CONTENT_LENGTH, whole.len().into());
            response
        }
        Fault::SlowBody => ok(Bytes::new()).map(|_| Script::stalled(&page.whole(profile), plan.delay)),
        Fault::WrongCount => ok(answer::envelope(profile.envelope, page.count + 1, page.has_more, &page.data)),
        Fault::EmptyPage => ok(answer::envelope(profile.envelope, 0, true, &[])),
        // The reset never gets here, and slow answers are true.
        Fault::Reset | Fault::Slow => ok(page.whole(profile)),
    }
}

fn garbage(seed: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(512).collect()
}

const HTML_502: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
const HTML_200: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n\
    <body><p>Your session has ended. Please sign in again.</p></body></html>\n";
