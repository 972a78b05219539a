//! Parses a request, each request parameter of it, into a window. Behind this file there are no unparsed strings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::error::ApiError;
use super::negotiation::{Negotiated, may_be_chunked};
use super::prefer::Preferences;
use crate::cache::{PageRange, WindowQuery};
use crate::config;
use crate::config::{NamePatterns, WindowSettings};
use crate::request::{Filter, Priority, Requester, Series};
use crate::units::print_duration;
use crate::window::{Bound, Interval, RetainedWindow, Retention, Timestamp};

/// A valid request.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) query: WindowQuery,
    pub(super) representation: Negotiated,
    /// The preferences of the caller that are applied.
    pub(super) preferences: Preferences,
    /// When the beginning of the window becomes too old; `None` without a retention.
    pub(super) retained_until: Option<Timestamp>,
}

/// Target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A window of this stream.
    Stream(String),
    /// The caller's own usage.
    Usage,
}

/// Name of the only caller where none are configured.
pub(super) const ANONYMOUS_CALLER: &str = "-";
/// Longest name of a stream, in bytes; Kore's have about forty.
const STREAM_NAME_LIMIT: usize = 256;
/// Path of a caller's own usage.
const USAGE_PATH: &str = "/koregate/v1/usage";

/// The caller's permissions, an extension of each request beside the
/// [`RateLimitStatus`](crate::request::RateLimitStatus) of its rate limit. Missing where no callers are configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Label in logs and metrics.
    pub name: Arc<str>,
    /// Accounts that the caller may read.
    pub accounts: NamePatterns,
    /// Streams that the caller may read.
    pub streams: NamePatterns,
    /// Share of the quota under contention; at least 1.
    pub weight: u32,
}

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
    // A segment of dots, or with an encoded slash, would name another path of the upstream, as would a segment that is
    // decoded twice.
    let is_one_segment = !stream.contains(['/', '\\', '%']) && !stream.contains(char::is_control);
    (is_one_segment && !matches!(stream.as_ref(), "" | "." | "..")).then(|| stream.into_owned())
}

/// The target of a request.
///
/// # Errors
/// If the path or the method is not served, or the stream's name is too long; the body is not read then.
pub(super) fn target(head: &Parts) -> Result<Target, ApiError> {
    let path = head.uri.path();
    let (target, allowed): (_, &[&str]) = if path == USAGE_PATH {
        (Target::Usage, &["GET"])
    } else {
        let stream = parse_path(path).ok_or(ApiError::NotFound)?;
        if stream.len() > STREAM_NAME_LIMIT {
            return Err(bad("streamId", format!("it is longer than {STREAM_NAME_LIMIT} bytes")));
        }
        (Target::Stream(stream), &["GET", "POST"])
    };
    if allowed.contains(&head.method.as_str()) { Ok(target) } else { Err(ApiError::MethodNotAllowed { allowed }) }
}

/// Parses a request for a window of `stream` that arrived at `now`, with its complete body.
pub(super) fn read(
    head: &Parts,
    stream: String,
    body: &Bytes,
    caller: Option<&Caller>,
    accounts: &[AllowedAccount],
    settings: &config::SeriesSettings,
    now: Timestamp,
) -> Result<ParsedRequest, ApiError> {
    // Permissions are checked before anything else about the request.
    let account = find_account(&head.headers, accounts)?;
    let caller_may = |caller: &Caller| caller.accounts.allow(&account.id) && caller.streams.allow(&stream);
    if !account.streams.allow(&stream) || !caller.is_none_or(caller_may) {
        return Err(ApiError::Forbidden);
    }
    let mut parameters = Parameters::read(head.uri.query().unwrap_or_default())?;
    let mut preferences = Preferences::of(&head.headers);
    let window = settings.for_series(&account.id, &stream);
    let interval = parameters.interval(window, &mut preferences, now)?;
    check_span(interval, settings.max_span())?;
    let series = Series {
        account: account.id.clone(),
        stream: stream.into(),
        filter: Filter::parse(body)?,
        agentic: parameters.agentic()?,
        parameters: std::mem::take(&mut parameters.unknown),
    };
    Ok(ParsedRequest {
        // The future is empty.
        query: WindowQuery {
            series: series.into(),
            interval: interval.split_at(now).0,
            page_range: parameters.page_range()?,
            asked_at: now,
            requester: requester(head, caller),
            may_stream: may_be_chunked(head.version),
        },
        representation: Negotiated::negotiate(head.version, &head.headers),
        preferences,
        retained_until: window.retention.map(|retention| retention.end_of(interval.start)),
    })
}

/// The requester. Where no callers are configured, all requests share one.
fn requester(head: &Parts, caller: Option<&Caller>) -> Requester {
    let (caller, weight) =
        caller.map_or((Arc::from(ANONYMOUS_CALLER), 1), |caller| (caller.name.clone(), caller.weight));
    Requester { caller, weight, priority: priority(&head.headers) }
}

/// Priority of a request by the urgency in `Priority` (RFC 9218, 4.1): 7 is for background tasks, 3 is the default.
fn priority(headers: &HeaderMap) -> Priority {
    let members =
        headers.get_all("priority").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // Of a repeated member, the last counts (RFC 8941, 3.2).
    let urgency = members.filter_map(|member| member.trim().strip_prefix("u=")).next_back();
    match urgency.map(|urgency| urgency.split(';').next().unwrap_or_default().trim_end()) {
        Some("7") => Priority::Background,
        Some("5" | "6") => Priority::Refresh,
        _ => Priority::Interactive,
    }
}

fn find_account<'a>(headers: &HeaderMap, accounts: &'a [AllowedAccount]) -> Result<&'a AllowedAccount, ApiError> {
    match (headers.get("accountid"), accounts) {
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
    Bound::parse(text).ok_or_else(|| {
        bad(
            parameter,
            "it is no time; write YYYY-MM-DD, YYYY-MM-DD-HH:mm:SS, YYYY-MM-DD HH:mm:SS or YYYY-MM-DDTHH:mm:SS, in UTC",
        )
    })
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
