//! Reads a request: from here on there is a window, and no strings.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Version};
use percent_encoding::percent_decode_str;

use super::error::ApiError;
use super::prefer;
use super::representation::Representation;
use crate::cache::{Excerpt, WindowQuery};
use crate::config::{self, Names};
use crate::upstream::{Asker, Class, Filter, Series};
use crate::window::{Bound, Moment, Span};

/// A request that makes sense.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) query: WindowQuery,
    pub(super) representation: Representation,
    /// Not the window is wanted, but what it would cost.
    pub(super) dry_run: bool,
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A window of this stream.
    Stream(String),
    /// What the caller itself had so far.
    Usage,
}

/// The caller's name where none are configured.
pub(super) const NOBODY: &str = "-";
/// Where a caller learns what it had.
const USAGE: &str = "/koregate/v1/usage";

/// Who asks, and what it may see: an extension of each request, beside the [`Standing`](crate::quota::Standing) of its
/// bucket; of none where no callers are configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The label in logs and metrics.
    pub name: Arc<str>,
    /// The accounts it may see.
    pub accounts: Names,
    /// The streams it may see.
    pub streams: Names,
    /// Its share when callers compete for the quota; at least 1.
    pub weight: u32,
}

/// An account that may be asked for.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) id: Arc<str>,
    pub(super) streams: Names,
}

/// The stream that a path names, percent-decoded; `None` if it is another path.
fn stream_of(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/agentassist/api/v1/public/")?;
    let stream = rest.strip_suffix("/v2/agentassistinteractions")?;
    let stream = percent_decode_str(stream).decode_utf8().ok().filter(|_| !stream.contains('/'))?;
    // A segment of dots, or one that somebody on the way takes for two, would name another path of the upstream's.
    let is_one_segment = !stream.contains(['/', '\\']) && !stream.contains(char::is_control);
    (is_one_segment && !matches!(stream.as_ref(), "" | "." | "..")).then(|| stream.into_owned())
}

/// What a request is about.
///
/// # Errors
/// If the path or the method is not served: then its body is not worth reading.
pub(super) fn target(head: &Parts) -> Result<Target, ApiError> {
    let path = head.uri.path();
    let (target, allowed): (_, &[&str]) = if path == USAGE {
        (Target::Usage, &["GET"])
    } else {
        (Target::Stream(stream_of(path).ok_or(ApiError::NotFound)?), &["GET", "POST"])
    };
    if allowed.contains(&head.method.as_str()) { Ok(target) } else { Err(ApiError::MethodNotAllowed { allowed }) }
}

/// Reads a request for a window of `stream` that came at `now`. The body has been read whole.
pub(super) fn read(
    head: &Parts,
    stream: String,
    body: &Bytes,
    caller: Option<&Caller>,
    accounts: &[Account],
    window: &config::Window,
    now: Moment,
) -> Result<Question, ApiError> {
    // What a caller may see is settled before anything else about the request is looked at.
    let account = account_of(&head.headers, accounts)?;
    let caller_may = |caller: &Caller| caller.accounts.allow(&account.id) && caller.streams.allow(&stream);
    if !account.streams.allow(&stream) || !caller.is_none_or(caller_may) {
        return Err(ApiError::Forbidden);
    }
    let mut parameters = Parameters::read(head.uri.query().unwrap_or_default())?;
    let span = parameters.span(window)?;
    let series = Series {
        account: account.id.clone(),
        stream: stream.into(),
        filter: Filter::parse(body).map_err(|_| ApiError::BadBody)?,
        rich: parameters.rich()?,
        parameters: std::mem::take(&mut parameters.unknown),
    };
    Ok(Question {
        // What lies in the future is empty.
        query: WindowQuery {
            series: series.into(),
            span: span.split_at(now).0,
            excerpt: parameters.excerpt()?,
            asked_at: now,
            asker: asker(head, caller),
            may_stream: may_be_chunked(head.version),
        },
        representation: Representation::negotiate(head.version, &head.headers),
        dry_run: prefer::is_dry_run(&head.headers),
    })
}

/// Whether an answer to a request of this version may be sent without a length. HTTP/1.0 has no chunked coding: the end of
/// such an answer is the end of the connection, and one that breaks off looks like one that is whole.
pub(super) fn may_be_chunked(version: Version) -> bool {
    version >= Version::HTTP_11
}

/// Who asks. Where no callers are configured, all are one.
fn asker(head: &Parts, caller: Option<&Caller>) -> Asker {
    let (caller, weight) = caller.map_or((Arc::from(NOBODY), 1), |caller| (caller.name.clone(), caller.weight));
    Asker { caller, weight, class: class_of(&head.headers) }
}

/// How urgent a request is, by the urgency of `Priority` (RFC 9218, 4.1): 7 is for background tasks, 3 is the default.
fn class_of(headers: &HeaderMap) -> Class {
    let members =
        headers.get_all("priority").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // Of a member that stands twice, the last counts (RFC 8941, 3.2).
    let urgency = members.filter_map(|member| member.trim().strip_prefix("u=")).next_back();
    match urgency.map(|urgency| urgency.split(';').next().unwrap_or_default().trim()) {
        Some("7") => Class::Background,
        Some("5" | "6") => Class::Refresh,
        _ => Class::Interactive,
    }
}

fn account_of<'a>(headers: &HeaderMap, accounts: &'a [Account]) -> Result<&'a Account, ApiError> {
    match (headers.get("accountid"), accounts) {
        (None, [only]) => Ok(only),
        (None, _) => Err(ApiError::NoAccount),
        (Some(id), _) => {
            accounts.iter().find(|account| account.id.as_bytes() == id.as_bytes()).ok_or(ApiError::Forbidden)
        }
    }
}

/// The query parameters, each of those that are known at most once.
#[derive(Debug, Default)]
struct Parameters {
    from: Option<String>,
    to: Option<String>,
    offset: Option<String>,
    limit: Option<String>,
    rich: Option<String>,
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
                "includeAgenticData" => ("includeAgenticData", &mut found.rich),
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

    fn span(&self, window: &config::Window) -> Result<Span, ApiError> {
        let (from, to) = (bound("from", self.from.as_deref())?, bound("to", self.to.as_deref())?);
        let span = window.upper_bound.enclosed(from, to);
        if from.start() > to.start() && span.is_empty() {
            return Err(bad("from", "it lies after to"));
        }
        // An inclusive end is one tick longer than what was asked for.
        if span.length().saturating_sub(std::time::Duration::from_nanos(1)) > window.max_span {
            let longest = window.max_span.as_secs();
            return Err(bad("to", format!("the window is longer than window.max_span, which is {longest} s")));
        }
        Ok(span)
    }

    fn excerpt(&self) -> Result<Excerpt, ApiError> {
        let offset = number("offset", self.offset.as_deref())?.unwrap_or(0);
        Ok(Excerpt { offset, limit: number("limit", self.limit.as_deref())? })
    }

    fn rich(&self) -> Result<bool, ApiError> {
        match self.rich.as_deref() {
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

fn number(parameter: &'static str, text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad(parameter, "it is no number, or a negative one"));
    }
    // What does not fit 64 bits lies beyond any window.
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

fn bad(parameter: &'static str, reason: impl Into<String>) -> ApiError {
    ApiError::BadParameter { parameter, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;
    use crate::window::UpperBound;

    const PATH: &str = "/agentassist/api/v1/public/st-1/v2/agentassistinteractions";

    fn window() -> config::Window {
        config::Window {
            field: "segmentStartTime".into(),
            upper_bound: UpperBound::Inclusive,
            settle_after: Duration::from_hours(24),
            freshness: Vec::new(),
            chunk: Duration::from_hours(1),
            max_span: Duration::from_hours(24 * 366),
        }
    }

    fn ask(uri: &str, headers: &[(&str, &str)], body: &'static str) -> Result<Question, ApiError> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let account = |id: &str, streams| Account { id: id.into(), streams };
        let accounts = [account("a1", Names::All), account("a2", Names::Only(vec!["st-2".to_owned()]))];
        let streams = Names::Only(vec!["st-1".into(), "st-2".into()]);
        let caller = Caller { name: "c".into(), accounts: Names::All, streams, weight: 1 };
        let now = Bound::parse("2026-11-22T10:00:00").unwrap().start();
        let Target::Stream(stream) = target(&head)? else { panic!("no window") };
        read(&head, stream, &Bytes::from_static(body.as_bytes()), Some(&caller), &accounts, &window(), now)
    }

    fn query(query: &str) -> Result<Question, ApiError> {
        ask(&format!("{PATH}?{query}"), &[("accountId", "a1")], "")
    }

    #[test]
    fn all_spellings_ask_for_the_same_window() {
        let spans: Vec<Span> = [
            "from=2026-11-20-00:00:00&to=2026-11-20-23:59:59",
            "to=2026-11-20+23:59:59&from=2026-11-20%2000:00:00",
            "from=2026-11-20T00%3A00%3A00&to=2026-11-20T23%3A59%3A59",
            "from=2026-11-20&to=2026-11-20T23:59:59",
        ]
        .map(|text| query(text).unwrap().query.span)
        .into();
        assert!(spans.windows(2).all(|pair| pair[0] == pair[1]), "{spans:?}");
    }

    #[test]
    fn the_future_is_cut_off() {
        let now = Bound::parse("2026-11-22T10:00:00").unwrap().start();
        assert_eq!(query("from=2026-11-22&to=2027-01-01").unwrap().query.span.end, now);
        assert!(query("from=2026-12-01&to=2026-12-02").unwrap().query.span.is_empty());
    }

    #[test]
    fn a_bad_parameter_is_named() {
        for (text, name) in [
            ("to=2026-11-20", "from"),
            ("from=2026-11-20", "to"),
            ("from=soon&to=2026-11-20", "from"),
            ("from=2026-11-20&to=2026-11-20T00:00:00Z", "to"),
            ("from=2026-11-21&to=2026-11-20", "from"),
            ("from=2026-11-20T00:00:01&to=2026-11-20T00:00:00", "from"),
            ("from=2020-01-01&to=2026-11-20", "to"),
            ("from=2026-11-20&to=2026-11-20&offset=-1", "offset"),
            ("from=2026-11-20&to=2026-11-20&limit=ten", "limit"),
            ("from=2026-11-20&to=2026-11-20&limit=", "limit"),
            ("from=2026-11-20&from=2026-11-20&to=2026-11-20", "from"),
            ("from=2026-11-20&to=2026-11-20&includeAgenticData=1", "includeAgenticData"),
        ] {
            match query(text) {
                Err(ApiError::BadParameter { parameter, .. }) => assert_eq!(parameter, name, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_longest_span_itself_may_be_asked_for() {
        assert!(query("from=2024-01-01&to=2024-12-31").is_ok());
        assert!(query("from=2024-01-01T00:00:00&to=2025-01-01T00:00:00").is_ok());
        assert!(query("from=2024-01-01T00:00:00&to=2025-01-01T00:00:01").is_err());
    }

    #[test]
    fn any_size_of_page_may_be_asked_for() {
        let excerpt = |text| query(text).unwrap().query.excerpt;
        let far = excerpt("from=2026-11-20&to=2026-11-20&offset=10&limit=99999999999999999999999");
        assert_eq!(far, Excerpt { offset: 10, limit: Some(u64::MAX) });
        assert_eq!(excerpt("from=2026-11-20&to=2026-11-20"), Excerpt::ALL);
    }

    #[test]
    fn urgency_is_told_by_the_priority_field() {
        let target = format!("{PATH}?from=2026-11-20&to=2026-11-20");
        for (priority, class) in [
            ("u=7", Class::Background),
            ("i, u=7", Class::Background),
            ("u=6;x=1", Class::Refresh),
            ("u=5", Class::Refresh),
            ("u=7, u=0", Class::Interactive),
            ("u=77", Class::Interactive),
            ("i", Class::Interactive),
        ] {
            let question = ask(&target, &[("accountId", "a1"), ("priority", priority)], "").unwrap();
            assert_eq!(question.query.asker.class, class, "{priority}");
            assert_eq!(&*question.query.asker.caller, "c");
        }
    }

    #[test]
    fn what_is_unknown_is_part_of_the_series() {
        let question = query("x=1&from=2026-11-20&to=2026-11-20&includeAgenticData=true&y=%26&x=2").unwrap();
        let pairs = [("x", "1"), ("y", "&"), ("x", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(question.query.series.parameters, pairs);
        assert!(question.query.series.rich);
    }

    #[test]
    fn only_what_is_allowed_is_answered_and_nothing_tells_what_exists() {
        let target = |stream: &str| format!("{}?from=2026-11-20&to=2026-11-20", PATH.replace("st-1", stream));
        for (account, stream, allowed) in [
            ("a1", "st-1", true),
            ("a1", "st-3", false),
            ("a2", "st-1", false),
            ("a2", "st-2", true),
            ("a3", "st-1", false),
        ] {
            match ask(&target(stream), &[("accountId", account)], "") {
                Ok(_) => assert!(allowed, "{account} {stream}"),
                Err(ApiError::Forbidden) => assert!(!allowed, "{account} {stream}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(ask(&target("st-1"), &[], ""), Err(ApiError::NoAccount)));
    }

    #[test]
    fn each_path_has_its_methods() {
        let target = |method: &str, path: &str| {
            let (head, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
            target(&head)
        };
        assert_eq!(target("POST", PATH).unwrap(), Target::Stream("st-1".to_owned()));
        assert_eq!(target("GET", "/koregate/v1/usage?x=1").unwrap(), Target::Usage);
        for (method, path, expected) in [
            ("HEAD", PATH, &["GET", "POST"][..]),
            ("POST", "/koregate/v1/usage", &["GET"]),
            ("HEAD", "/koregate/v1/usage", &["GET"]),
        ] {
            let Err(ApiError::MethodNotAllowed { allowed }) = target(method, path) else { panic!("{method} {path}") };
            assert_eq!(allowed, expected);
        }
        for path in ["/koregate/v1/", "/koregate/v1/usage/", "/koregate/v1/Usage", "/koregate/v1/callers"] {
            assert!(matches!(target("GET", path), Err(ApiError::NotFound)), "{path}");
        }
    }

    #[test]
    fn other_paths_and_bodies_are_refused() {
        let head = [("accountId", "a1")];
        for path in [
            "/",
            &PATH.replace("st-1", "%2E%2e"),
            &PATH.replace("st-1", "."),
            &PATH.replace("st-1", "a%2fb"),
            &PATH.replace("st-1", "a%00"),
            "/agentassist/api/v1/public//v2/agentassistinteractions",
            &format!("{PATH}/"),
            &PATH.replace("st-1", "a/b"),
        ] {
            assert!(matches!(ask(path, &head, ""), Err(ApiError::NotFound)), "{path}");
        }
        assert_eq!(stream_of(&PATH.replace("st-1", "a%20b%c3%a9")).as_deref(), Some("a bé"));
        let target = format!("{PATH}?from=2026-11-20&to=2026-11-20");
        assert!(matches!(ask(&target, &head, "[1]"), Err(ApiError::BadBody)));
    }
}
