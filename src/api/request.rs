//! Parses a request, each request parameter of it, into a window. Behind this file there are no unparsed strings.

mod admitted;
mod cache_control;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;
use xxhash_rust::xxh3::xxh3_64;

use self::cache_control::{AppliedCacheControl, CacheControl};
use super::error::ApiError;
use super::negotiation::{Negotiated, may_be_chunked};
use super::prefer::Preferences;
use crate::cache::{PageRange, QueryOptions, WindowQuery};
use crate::config;
use crate::config::{NamePatterns, WindowSettings};
use crate::request::{Filter, FilterError, Priority, Requester, Series};
use crate::units::print_duration;
use crate::window::{Bound, Interval, RetainedWindow, Retention, Timestamp};

pub use self::admitted::{AdmittedRequest, Caller, RequestContext};

/// A valid request.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) query: WindowQuery,
    /// Whether the cost of the window is requested instead of the window.
    pub(super) wants_cost: bool,
    pub(super) representation: Negotiated,
    /// The preferences of the caller that are applied.
    pub(super) preferences: Preferences,
    /// The directives of `Cache-Control` that are followed.
    pub(super) cache_control: AppliedCacheControl,
    /// A hash of the member by which the items are ordered, `window.field`.
    pub(super) item_order: u64,
    /// When the beginning of the window becomes too old; `None` without a retention.
    pub(super) retained_until: Option<Timestamp>,
}

/// Target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A window of a stream, or its cost.
    Stream(StreamTarget),
    /// The caller's own usage.
    Usage,
    /// A job of the caller's.
    Job(String),
}

/// The part of a request's target that names a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamTarget {
    pub(super) stream: String,
    /// Whether the target is the cost of a window; then `stream` is a query parameter.
    pub(super) is_cost: bool,
}

/// The field that names the account.
pub const ACCOUNT_ID: HeaderName = HeaderName::from_static("accountid");
const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// Name of the only caller where none are configured.
pub(super) const ANONYMOUS_CALLER: &str = "-";
/// Longest name of a stream, in bytes; Kore's have about forty.
const STREAM_NAME_LIMIT: usize = 256;
/// Path of a caller's own usage.
const USAGE_PATH: &str = "/koregate/v1/usage";
/// Path of the cost of a window.
const COST_PATH: &str = "/koregate/v1/cost";
/// Beginning of the path of a job.
pub(super) const JOBS_PATH: &str = "/koregate/v1/jobs/";
/// The query parameter that names the stream at [`COST_PATH`].
const STREAM_PARAMETER: &str = "stream";
/// The methods of windows and their cost. QUERY (RFC 10008) is a GET with the filter as its content.
const WINDOW_METHODS: &[&str] = &["GET", "HEAD", "POST", QUERY];
/// The method QUERY.
pub(super) const QUERY: &str = "QUERY";

/// An account that requests may name.
#[derive(Clone, Debug)]
pub(super) struct AllowedAccount {
    pub(super) id: Arc<str>,
    pub(super) streams: NamePatterns,
}

/// The stream in a path, percent-decoded; `None` for any other path.
fn parse_path(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/agentassist/api/v1/public/")?;
    let stream = rest.strip_suffix("/v2/agentassistinteractions")?;
    let stream = percent_decode_str(stream).decode_utf8().ok().filter(|_| !stream.contains('/'))?;
    is_stream_name(&stream).then(|| stream.into_owned())
}

/// Whether a decoded name is one segment of a path. A segment of dots, or with an encoded slash, would name another path
/// of the upstream, as would a segment that is decoded twice.
fn is_stream_name(stream: &str) -> bool {
    let is_one_segment = !stream.contains(['/', '\\', '%']) && !stream.contains(char::is_control);
    is_one_segment && !matches!(stream, "" | "." | "..")
}

/// The stream that a query names.
fn stream_parameter(query: &str) -> Result<String, ApiError> {
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == STREAM_PARAMETER);
    match (named.next(), named.next()) {
        (None, _) => Err(bad(STREAM_PARAMETER, "it is missing")),
        (Some(_), Some(_)) => Err(bad(STREAM_PARAMETER, "it stands twice")),
        (Some((_, stream)), None) if is_stream_name(&stream) => Ok(stream.into_owned()),
        (Some(_), None) => Err(bad(STREAM_PARAMETER, "it is no name of a stream")),
    }
}

/// The target of a request.
///
/// # Errors
/// If the path, the method or the type of the content is not served, or the stream is not named or its name is too long;
/// the body is not read then.
pub(super) fn target(head: &Parts) -> Result<Target, ApiError> {
    let (path, method) = (head.uri.path(), head.method.as_str());
    if path == USAGE_PATH {
        check_method(method, &["GET", "HEAD"])?;
        return Ok(Target::Usage);
    }
    if let Some(id) = path.strip_prefix(JOBS_PATH).filter(|id| is_job_id(id)) {
        check_method(method, &["GET", "HEAD", "DELETE"])?;
        return Ok(Target::Job(id.to_owned()));
    }
    let (in_path, is_cost) = (parse_path(path), path == COST_PATH);
    if in_path.is_none() && !is_cost {
        return Err(ApiError::NotFound);
    }
    check_method(method, WINDOW_METHODS)?;
    let (parameter, stream) = match in_path {
        Some(stream) => ("streamId", stream),
        None => (STREAM_PARAMETER, stream_parameter(head.uri.query().unwrap_or_default())?),
    };
    if stream.len() > STREAM_NAME_LIMIT {
        return Err(bad(parameter, format!("it is longer than {STREAM_NAME_LIMIT} bytes")));
    }
    if method == QUERY {
        check_content_type(&head.headers)?;
    }
    Ok(Target::Stream(StreamTarget { stream, is_cost }))
}

/// Whether a text is the id of a job: a UUID in lower case with hyphens.
fn is_job_id(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    text.len() == 36 && text.bytes().all(is_digit)
}

fn check_method(method: &str, allowed: &'static [&'static str]) -> Result<(), ApiError> {
    if allowed.contains(&method) { Ok(()) } else { Err(ApiError::MethodNotAllowed { allowed }) }
}

/// An error if the content is not said to be JSON, as RFC 10008 (2) demands for QUERY.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).ok_or(ApiError::NoContentType)?;
    let media_type = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(ApiError::UnsupportedMediaType) }
}

/// Parses a request for a window of `target` that arrived at `now`, with its complete body.
pub(super) fn read(
    head: &Parts,
    target: StreamTarget,
    body: &Bytes,
    context: &RequestContext,
    accounts: &[AllowedAccount],
    settings: &config::SeriesSettings,
    now: Timestamp,
) -> Result<ParsedRequest, ApiError> {
    let caller = context.caller.as_deref();
    let StreamTarget { stream, is_cost } = target;
    // Permissions are checked before anything else about the request.
    let account = find_account(&head.headers, accounts)?;
    let caller_may = |caller: &Caller| caller.accounts.allow(&account.id) && caller.streams.allow(&stream);
    if !account.streams.allow(&stream) || !caller.is_none_or(caller_may) {
        return Err(ApiError::Forbidden);
    }
    let mut parameters = Parameters::read(head.uri.query().unwrap_or_default())?;
    if is_cost {
        parameters.unknown.retain(|(name, _)| name != STREAM_PARAMETER);
    }
    let mut preferences = Preferences::of(&head.headers);
    let window = settings.for_series(&account.id, &stream);
    let interval = parameters.interval(&window, &mut preferences, now)?;
    check_span(interval, settings.max_span())?;
    let series = Series {
        account: account.id.clone(),
        stream: stream.into(),
        filter: filter(head, body)?,
        agentic: parameters.agentic()?,
        parameters: std::mem::take(&mut parameters.unknown),
    };
    // The future is empty.
    let interval = interval.split_at(now).0;
    let grants = caller.map(|caller| caller.cache_control).unwrap_or_default();
    let longest_age = window.freshness_policy.longest_age(interval, now);
    let cache_control = CacheControl::of(&head.headers).apply(grants, longest_age);
    let AppliedCacheControl { freshness, only_cached, .. } = cache_control;
    Ok(ParsedRequest {
        query: WindowQuery {
            series: series.into(),
            interval,
            page_range: parameters.page_range()?,
            asked_at: now,
            requester: requester(head, caller),
            may_stream: may_be_chunked(head.version),
            options: QueryOptions { freshness, only_cached, queue_timeout: None },
            waited: context.waited.clone(),
            span: context.span.clone(),
        },
        wants_cost: is_cost || preferences.dry_run,
        representation: Negotiated::negotiate(head.version, &head.headers),
        preferences,
        cache_control,
        item_order: xxh3_64(window.field.as_bytes()),
        retained_until: window.retention.map(|retention| retention.end_of(interval.start)),
    })
}

/// The filter in a body. That of QUERY is what is asked for, and must be there.
fn filter(head: &Parts, body: &Bytes) -> Result<Filter, FilterError> {
    if head.method.as_str() == QUERY && body.iter().all(u8::is_ascii_whitespace) {
        return Err(FilterError::NotAnObject);
    }
    Filter::parse(body)
}

/// The requester. Where no callers are configured, all requests share one.
fn requester(head: &Parts, caller: Option<&Caller>) -> Requester {
    let claimed = priority(&head.headers);
    match caller {
        None => Requester { caller: Arc::from(ANONYMOUS_CALLER), weight: 1, priority: claimed },
        // The lowest is the most urgent.
        Some(Caller { name, weight, max_priority, .. }) => {
            Requester { caller: name.clone(), weight: *weight, priority: claimed.max(*max_priority) }
        }
    }
}

/// Priority of a request by the urgency in `Priority` (RFC 9218, 4.1): 7 is for background tasks, 3 is the default.
fn priority(headers: &HeaderMap) -> Priority {
    let members =
        headers.get_all(PRIORITY).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // Of a repeated member, the last counts (RFC 8941, 3.2).
    let urgency = members.filter_map(|member| member.trim().strip_prefix("u=")).next_back();
    match urgency.map(|urgency| urgency.split(';').next().unwrap_or_default().trim_end()) {
        Some("7") => Priority::Background,
        Some("5" | "6") => Priority::Refresh,
        _ => Priority::Interactive,
    }
}

fn find_account<'a>(headers: &HeaderMap, accounts: &'a [AllowedAccount]) -> Result<&'a AllowedAccount, ApiError> {
    match (headers.get(ACCOUNT_ID), accounts) {
        (None, [only]) => Ok(only),
        (None, _) => Err(ApiError::NoAccount),
        (Some(id), _) => {
            accounts.iter().find(|account| account.id.as_bytes() == id.as_bytes()).ok_or(ApiError::Forbidden)
        }
    }
}

/// The query parameters; each known one occurs at most once.
#[derive(Debug, Default)]
struct Parameters {
    from: Option<String>,
    to: Option<String>,
    offset: Option<String>,
    limit: Option<String>,
    agentic: Option<String>,
    unknown: Vec<(String, String)>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut found = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (parameter, slot) = match name.as_ref() {
                "from" => ("from", &mut found.from),
                "to" => ("to", &mut found.to),
                "offset" => ("offset", &mut found.offset),
                "limit" => ("limit", &mut found.limit),
                "includeAgenticData" => ("includeAgenticData", &mut found.agentic),
                _ => {
                    found.unknown.push((name.into_owned(), value.into_owned()));
                    continue;
                }
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(bad(parameter, "it stands twice"));
            }
        }
        Ok(found)
    }

    /// The window at `now`, of the data that is retained.
    fn interval(
        &self,
        settings: &WindowSettings,
        preferences: &mut Preferences,
        now: Timestamp,
    ) -> Result<Interval, ApiError> {
        let (from, to) = (bound("from", self.from.as_deref())?, bound("to", self.to.as_deref())?);
        let interval = settings.upper_bound.enclosed(from, to);
        if from.start() > to.start() && interval.is_empty() {
            return Err(bad("from", "it lies after to"));
        }
        let Some(retention) = settings.retention else { return Ok(interval) };
        match retention.cut(from, interval, now) {
            RetainedWindow::Whole(interval) => Ok(interval),
            RetainedWindow::Cut(interval) if preferences.apply_lenience() => Ok(interval),
            RetainedWindow::Cut(_) => Err(too_old(retention, now)),
        }
    }

    fn page_range(&self) -> Result<PageRange, ApiError> {
        let offset = parse_number("offset", self.offset.as_deref())?.unwrap_or(0);
        Ok(PageRange { offset, limit: parse_number("limit", self.limit.as_deref())? })
    }

    fn agentic(&self) -> Result<bool, ApiError> {
        match self.agentic.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad("includeAgenticData", "it is neither true nor false")),
        }
    }
}

fn bound(parameter: &'static str, text: Option<&str>) -> Result<Bound, ApiError> {
    let text = text.ok_or_else(|| bad(parameter, "it is missing"))?;
    Bound::parse(text).ok_or_else(|| bad(parameter, Bound::MALFORMED))
}

fn parse_number(parameter: &'static str, text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad(parameter, "it is no number, or a negative one"));
    }
    // A number beyond 64 bits lies beyond any window.
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

/// An error if a window is longer than `max_span`.
fn check_span(interval: Interval, max_span: Duration) -> Result<(), ApiError> {
    // An inclusive end makes the interval one nanosecond longer than the requested span.
    if interval.length().saturating_sub(Duration::from_nanos(1)) > max_span {
        let longest = max_span.as_secs();
        return Err(bad("to", format!("the window is longer than window.max_span, which is {longest} s")));
    }
    Ok(())
}

/// The error of a window that begins before what is retained at `now`. Names the day of the limit too, which stays
/// valid until midnight.
fn too_old(retention: Retention, now: Timestamp) -> ApiError {
    let since = retention.since(now);
    let (kept, earliest) = (print_duration(retention.0), Bound::Second(since));
    let day = Bound::Day(since);
    bad("from", format!("data is kept for {kept}, so the earliest from is {earliest} now, or its day, {day}"))
}

fn bad(parameter: &'static str, reason: impl Into<String>) -> ApiError {
    ApiError::BadParameter { parameter, reason: reason.into() }
}

#[cfg(test)]
mod tests;
