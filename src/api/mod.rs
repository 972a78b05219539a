//! The api stage: reads a request, asks for its window, writes the answer.

mod body;
mod error;
mod question;
mod representation;

use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Empty, LengthLimitError, Limited};
use tower::{Layer, Service, ServiceExt as _};

use self::body::{Items, WindowBody};
use self::question::{Account, Question};
use self::representation::{Coding, Format, Representation};
use crate::cache::{CacheError, Outcome, WindowAnswer, WindowQuery};
use crate::clock::Clock;
use crate::config;
use crate::upstream::PAGE_LIMIT;

pub use self::error::ApiError;
pub use self::question::Caller;

/// The most that a body of filters may weigh, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// The longest that such a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Below this a body gains nothing by a content coding.
const WORTH_CODING: u64 = 512;

/// A window's body, or none (304).
pub type ApiBody = Either<WindowBody, Empty<Bytes>>;

/// What became of a request, for whoever reports it: an extension of each answer.
#[derive(Clone, Debug)]
pub struct Report {
    /// Kore's account.
    pub account: Arc<str>,
    /// Kore's stream.
    pub stream: Arc<str>,
    /// How the window was answered.
    pub outcome: Outcome,
    /// Items in the answer.
    pub items: u64,
    /// Upstream calls that were made for it.
    pub calls: u32,
    /// Upstream calls that the caller would have made by itself, beyond those.
    pub avoided: u64,
}

/// Understands Kore's path and parameters.
#[derive(Clone, Debug)]
pub struct ApiLayer {
    accounts: Arc<[Account]>,
    window: config::Window,
    clock: Clock,
}

impl ApiLayer {
    /// For the streams of these accounts.
    pub fn new(accounts: &[config::Account], window: &config::Window, clock: &Clock) -> Self {
        let account = |a: &config::Account| Account { id: a.account_id.clone(), streams: a.streams.clone() };
        Self { accounts: accounts.iter().map(account).collect(), window: window.clone(), clock: clock.clone() }
    }
}

impl<S> Layer<S> for ApiLayer {
    type Service = ApiStage<S>;

    fn layer(&self, below: S) -> ApiStage<S> {
        ApiStage { api: self.clone(), below }
    }
}

/// See [`ApiLayer`].
#[derive(Clone, Debug)]
pub struct ApiStage<S> {
    api: ApiLayer,
    below: S,
}

impl<S, B> Service<Request<B>> for ApiStage<S>
where
    S: Service<WindowQuery, Response = WindowAnswer, Error = CacheError> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<ApiBody>;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response<ApiBody>, ApiError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ApiStage { api, below } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            question::check_target(&head)?;
            let body = read_body(body).await?;
            let caller = head.extensions.get::<Caller>();
            let now = api.clock.now();
            let question = question::read(&head, &body, caller, &api.accounts, &api.window, now)?;
            let Question { query, offset, limit, representation } = question;
            let series = query.series.clone();
            let mut window = below.oneshot(query).await?;
            let items = Items::page(std::mem::take(&mut window.slices), offset, limit);
            let report = Report {
                account: series.account.clone(),
                stream: series.stream.clone(),
                outcome: window.outcome,
                items: items.count,
                calls: window.calls,
                avoided: items.count.div_ceil(u64::from(PAGE_LIMIT)).max(1).saturating_sub(u64::from(window.calls)),
            };
            let mut response = render(items, representation, &window, head.headers.get(header::IF_NONE_MATCH));
            let headers = response.headers_mut();
            headers.insert("cache-status", cache_status(&window));
            if let Some(fetched_at) = window.oldest_copy {
                headers.insert(header::AGE, now.since(fetched_at).as_secs().into());
            }
            response.extensions_mut().insert(report);
            Ok(response)
        })
    }
}

async fn read_body<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge { limit: BODY_LIMIT }),
        Ok(Err(_)) | Err(_) => Err(ApiError::BodyBrokeOff),
    }
}

fn render(
    items: Items,
    wanted: Representation,
    window: &WindowAnswer,
    if_none_match: Option<&HeaderValue>,
) -> Response<ApiBody> {
    let worth_coding = items.body_len(wanted.format) >= WORTH_CODING;
    let coding = if worth_coding { wanted.coding } else { Coding::Identity };
    let representation = Representation { coding, ..wanted };
    let etag = window.settled.then(|| etag(&items, representation));
    let known = etag.as_ref().zip(if_none_match).is_some_and(|(etag, known)| matches(known, etag));
    let mut response = if known {
        let mut response = Response::new(Either::Right(Empty::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Either::Left(WindowBody::new(items, representation)));
        let content_type = match representation.format {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if representation.coding == Coding::Gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let headers = response.headers_mut();
    // Conversations are personal data: no cache on the way may keep them, and the caller's own asks again.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding, accountid"));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// A validator that is the same for the same items, whichever replica answers and however its chunks are cut. Without
/// a content coding it is strong; the bytes of a compressed answer may differ, so there it is weak.
fn etag(items: &Items, representation: Representation) -> String {
    let form = match representation.format {
        Format::Json => "j",
        Format::Ndjson => "n",
    };
    let weak = if representation.coding == Coding::Gzip { "W/" } else { "" };
    format!("{weak}\"{:016x}-{:x}{}-{form}\"", items.sum(), items.count, if items.has_more { "+" } else { "" })
}

/// `If-None-Match` (RFC 9110, 13.1.2), with the weak comparison that it asks for.
fn matches(if_none_match: &HeaderValue, etag: &str) -> bool {
    let Ok(known) = if_none_match.to_str() else { return false };
    let etag = etag.trim_start_matches("W/");
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

/// `Cache-Status` (RFC 9211).
fn cache_status(window: &WindowAnswer) -> HeaderValue {
    let handling = match window.outcome {
        Outcome::Hit => "hit",
        Outcome::Miss => "fwd=miss",
        Outcome::Partial => "fwd=partial",
        Outcome::Stale => "fwd=stale",
        Outcome::Collapsed => "fwd=miss; collapsed",
        Outcome::Bypass => "fwd=bypass",
    };
    let WindowAnswer { chunks, hits, calls, .. } = window;
    let status = format!("koregate; {handling}; detail=\"chunks={chunks} hits={hits} calls={calls}\"");
    HeaderValue::try_from(status).unwrap_or(HeaderValue::from_static("koregate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        let matches = |known: &'static str| matches(&HeaderValue::from_static(known), "\"a-1-j\"");
        assert!(matches("\"a-1-j\""));
        assert!(matches("\"x\", W/\"a-1-j\""));
        assert!(matches("*"));
        assert!(!matches("\"a-2-j\""));
    }
}
