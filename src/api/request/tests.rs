//! Tests of request parsing.

use std::time::Duration;

use http::Request;

use super::*;
use crate::config::CacheControlGrants;
use crate::window::UpperBound;

const PATH: &str = "/agentassist/api/v1/public/st-1/v2/agentassistinteractions";

fn settings() -> config::SeriesSettings {
    let window = config::WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Inclusive,
        settle_after: Duration::from_hours(24),
        freshness: Vec::new(),
        chunk: Duration::from_hours(1),
        max_span: Duration::from_hours(24 * 366),
    };
    config::SeriesSettings::new(&window, &[])
}

fn parse(uri: &str, headers: &[(&str, &str)], body: &'static str) -> Result<ParsedRequest, ApiError> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let account = |id: &str, streams| AllowedAccount { id: id.into(), streams };
    let accounts = [account("a1", NamePatterns::All), account("a2", NamePatterns::Only(vec!["st-2".to_owned()]))];
    let streams = NamePatterns::Only(vec!["st-1".into(), "st-2".into()]);
    let caller = Caller {
        name: "c".into(),
        accounts: NamePatterns::All,
        streams,
        weight: 1,
        max_priority: Priority::Interactive,
        cache_control: CacheControlGrants::default(),
        generation: 0,
    };
    let now = Bound::parse("2026-11-22T10:00:00").unwrap().start();
    let Target::Stream(target) = target(&head)? else { panic!("no window") };
    let context = RequestContext { caller: Some(caller.into()), ..RequestContext::default() };
    read(&head, target, &Bytes::from_static(body.as_bytes()), &context, &accounts, &settings(), now)
}

/// The interval of a window that may be at most three days long, of a stream whose data is kept for two days, and the
/// preferences that were applied.
fn retained(query: &str, prefer: &str) -> Result<(Interval, Preferences), ApiError> {
    let (window, span) = (settings(), Duration::from_hours(72));
    let settings = WindowSettings {
        retention: Some(Retention(Duration::from_hours(48))),
        ..WindowSettings::clone(&window.for_series("a1", "st-1"))
    };
    let headers = [(http::header::HeaderName::from_static("prefer"), prefer.parse().unwrap())];
    let mut preferences = Preferences::of(&HeaderMap::from_iter(headers));
    let now = Bound::parse("2026-11-22T10:00:00").unwrap().start() + Duration::from_millis(7);
    let interval = Parameters::read(query)?.interval(&settings, &mut preferences, now)?;
    check_span(interval, span)?;
    Ok((interval, preferences))
}

#[test]
fn window_before_the_retention_is_refused_or_cut() {
    let at = |text| Bound::parse(text).unwrap().start();
    let (limit, end) = (at("2026-11-20T10:00:00"), at("2026-11-22"));
    for (from, is_cut) in
        [("2026-11-20T10:00:00", false), ("2026-11-20", false), ("2026-11-20T09:59:59", true), ("2026-01-01", true)]
    {
        let query = format!("from={from}&to=2026-11-21");
        let strict = retained(&query, "handling=strict");
        if is_cut {
            let error = strict.unwrap_err().to_string();
            let expected = "from: data is kept for 2d, so the earliest from is 2026-11-20-10:00:00 now, or its day, \
                            2026-11-20";
            assert_eq!(error, expected, "{from}");
        } else {
            assert_eq!(strict.unwrap().0, Interval::new(limit, end), "{from}");
        }
        // A window that is too long is not, when it is cut.
        let (interval, preferences) = retained(&query, "handling=lenient").unwrap();
        assert_eq!(interval, Interval::new(limit, end), "{from}");
        assert_eq!(preferences.applied().is_some(), is_cut, "{from}");
    }
    let (interval, preferences) = retained("from=2026-11-01&to=2026-11-02", "handling=lenient").unwrap();
    assert!(interval.is_empty() && preferences.applied().is_some());
    assert!(retained("from=2026-11-21&to=2026-11-29", "handling=lenient").is_err(), "too long");
}

fn query(query: &str) -> Result<ParsedRequest, ApiError> {
    parse(&format!("{PATH}?{query}"), &[("accountId", "a1")], "")
}

#[test]
fn all_spellings_give_the_same_window() {
    let intervals: Vec<Interval> = [
        "from=2026-11-20-00:00:00&to=2026-11-20-23:59:59",
        "to=2026-11-20+23:59:59&from=2026-11-20%2000:00:00",
        "from=2026-11-20T00%3A00%3A00&to=2026-11-20T23%3A59%3A59",
        "from=2026-11-20&to=2026-11-20T23:59:59",
        "from=2026-11-20T00:00:00Z&to=2026-11-20T23:59:59.000%2B00:00",
        "from=2026-11-20T02:00:00+02:00&to=2026-11-20+15:59:59-08:00",
    ]
    .map(|text| query(text).unwrap().query.interval)
    .into();
    assert!(intervals.windows(2).all(|pair| pair[0] == pair[1]), "{intervals:?}");
}

#[test]
fn fractions_of_a_second_bound_the_window_exactly() {
    let interval = query("from=2026-11-20T10:00:00.25&to=2026-11-20T10:00:00.750Z").unwrap().query.interval;
    let second = Bound::parse("2026-11-20T10:00:00").unwrap().start();
    let expected = (second + Duration::from_millis(250), (second + Duration::from_millis(750)).next_tick());
    assert_eq!((interval.start, interval.end), expected);
}

#[test]
fn future_part_of_a_window_is_cut_off() {
    let now = Bound::parse("2026-11-22T10:00:00").unwrap().start();
    assert_eq!(query("from=2026-11-22&to=2027-01-01").unwrap().query.interval.end, now);
    assert!(query("from=2026-12-01&to=2026-12-02").unwrap().query.interval.is_empty());
}

#[test]
fn bad_parameter_is_named() {
    for (text, name) in [
        ("to=2026-11-20", "from"),
        ("from=2026-11-20", "to"),
        ("from=soon&to=2026-11-20", "from"),
        ("from=2026-11-20&to=2026-11-20Z", "to"),
        ("from=2026-11-20&to=2026-11-20T00:00:00.0000000001", "to"),
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
fn longest_span_is_allowed() {
    assert!(query("from=2024-01-01&to=2024-12-31").is_ok());
    assert!(query("from=2024-01-01T00:00:00&to=2025-01-01T00:00:00").is_ok());
    assert!(query("from=2024-01-01T00:00:00&to=2025-01-01T00:00:01").is_err());
}

#[test]
fn page_of_any_size_is_allowed() {
    let page_range = |text| query(text).unwrap().query.page_range;
    let far = page_range("from=2026-11-20&to=2026-11-20&offset=10&limit=99999999999999999999999");
    assert_eq!(far, PageRange { offset: 10, limit: Some(u64::MAX) });
    assert_eq!(page_range("from=2026-11-20&to=2026-11-20"), PageRange::ALL);
}

#[test]
fn priority_field_sets_the_priority() {
    let target = format!("{PATH}?from=2026-11-20&to=2026-11-20");
    for (field, priority) in [
        ("u=7", Priority::Background),
        ("i, u=7", Priority::Background),
        ("u=6;x=1", Priority::Refresh),
        ("u=5", Priority::Refresh),
        ("u=7, u=0", Priority::Interactive),
        ("u=77", Priority::Interactive),
        ("u= 7", Priority::Interactive),
        ("i", Priority::Interactive),
    ] {
        let parsed = parse(&target, &[("accountId", "a1"), ("priority", field)], "").unwrap();
        assert_eq!(parsed.query.requester.priority, priority, "{field}");
        assert_eq!(&*parsed.query.requester.caller, "c");
    }
}

#[test]
fn claimed_priority_is_lowered_to_that_of_the_caller() {
    use Priority::{Background, Interactive, Refresh};
    let (head, ()) = Request::builder().header("priority", "u=5").body(()).unwrap().into_parts();
    for (max_priority, expected) in [(Interactive, Refresh), (Refresh, Refresh), (Background, Background)] {
        let (accounts, streams) = (NamePatterns::All, NamePatterns::All);
        let caller = Caller {
            name: "c".into(),
            accounts,
            streams,
            weight: 2,
            cache_control: CacheControlGrants::default(),
            max_priority,
            generation: 0,
        };
        let Requester { priority, weight, .. } = requester(&head, Some(&caller));
        assert_eq!((priority, weight), (expected, 2));
    }
    assert_eq!(requester(&head, None).priority, Refresh);
}

#[test]
fn unknown_parameters_are_part_of_the_series() {
    let parsed = query("x=1&from=2026-11-20&to=2026-11-20&includeAgenticData=true&y=%26&x=2").unwrap();
    let pairs = [("x", "1"), ("y", "&"), ("x", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(parsed.query.series.parameters, pairs);
    assert!(parsed.query.series.agentic);
}

#[test]
fn forbidden_and_unknown_streams_give_the_same_error() {
    let target = |stream: &str| format!("{}?from=2026-11-20&to=2026-11-20", PATH.replace("st-1", stream));
    for (account, stream, allowed) in [
        ("a1", "st-1", true),
        ("a1", "st-3", false),
        ("a2", "st-1", false),
        ("a2", "st-2", true),
        ("a3", "st-1", false),
    ] {
        match parse(&target(stream), &[("accountId", account)], "") {
            Ok(_) => assert!(allowed, "{account} {stream}"),
            Err(ApiError::Forbidden) => assert!(!allowed, "{account} {stream}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(parse(&target("st-1"), &[], ""), Err(ApiError::NoAccount)));
}

fn target_of(method: &str, uri: &str, content_type: Option<&str>) -> Result<Target, ApiError> {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    target(&request.body(()).unwrap().into_parts().0)
}

fn stream_target(stream: &str, is_cost: bool) -> Target {
    Target::Stream(StreamTarget { stream: stream.to_owned(), is_cost })
}

#[test]
fn each_path_has_its_methods() {
    let cost = "/koregate/v1/cost?stream=st-1";
    for method in ["GET", "HEAD", "POST", "QUERY"] {
        let target = |uri| target_of(method, uri, Some("application/json")).unwrap();
        assert_eq!((target(PATH), target(cost)), (stream_target("st-1", false), stream_target("st-1", true)));
    }
    for method in ["GET", "HEAD"] {
        assert_eq!(target_of(method, "/koregate/v1/usage?x=1", None).unwrap(), Target::Usage);
    }
    let id = "6f0f8fd0-7d0b-4f0a-9a53-2a0b6c1b3c52";
    for method in ["GET", "HEAD", "DELETE"] {
        assert_eq!(target_of(method, &format!("{JOBS_PATH}{id}"), None).unwrap(), Target::Job(id.to_owned()));
    }
    for (length, refused) in [(STREAM_NAME_LIMIT, false), (STREAM_NAME_LIMIT + 1, true)] {
        let result = target_of("GET", &PATH.replace("st-1", &"x".repeat(length)), None);
        assert_eq!(matches!(result, Err(ApiError::BadParameter { parameter: "streamId", .. })), refused, "{length}");
    }
    for (method, path, expected) in [
        ("PUT", PATH, &["GET", "HEAD", "POST", "QUERY"][..]),
        ("query", PATH, &["GET", "HEAD", "POST", "QUERY"]),
        ("OPTIONS", cost, &["GET", "HEAD", "POST", "QUERY"]),
        ("DELETE", "/koregate/v1/cost", &["GET", "HEAD", "POST", "QUERY"]),
        ("POST", "/koregate/v1/jobs/6f0f8fd0-7d0b-4f0a-9a53-2a0b6c1b3c52", &["GET", "HEAD", "DELETE"]),
        ("POST", "/koregate/v1/usage", &["GET", "HEAD"]),
        ("QUERY", "/koregate/v1/usage", &["GET", "HEAD"]),
    ] {
        let result = target_of(method, path, None);
        let Err(ApiError::MethodNotAllowed { allowed }) = result else { panic!("{method} {path}") };
        assert_eq!(allowed, expected);
    }
    let other_ids = ["", "x", "6F0F8FD0-7D0B-4F0A-9A53-2A0B6C1B3C52", "6f0f8fd0-7d0b-4f0a-9a53-2a0b6c1b3c5/"];
    for path in other_ids.map(|id| format!("{JOBS_PATH}{id}")) {
        assert!(matches!(target_of("GET", &path, None), Err(ApiError::NotFound)), "{path}");
    }
    for path in ["/koregate/v1/", "/koregate/v1/usage/", "/koregate/v1/Usage", "/koregate/v1/callers"] {
        assert!(matches!(target_of("GET", path, None), Err(ApiError::NotFound)), "{path}");
    }
}

#[test]
fn cost_names_its_stream_once() {
    let at = |query: &str| target_of("GET", &format!("/koregate/v1/cost{query}"), None);
    assert_eq!(at("?from=x&stream=a%20b&to=y").unwrap(), stream_target("a b", true));
    let long = format!("?stream={}", "x".repeat(STREAM_NAME_LIMIT + 1));
    for query in ["", "?from=2026-11-20", "?stream=", "?stream=a&stream=a", "?stream=a%2Fb", "?stream=..", &long] {
        assert!(matches!(at(query), Err(ApiError::BadParameter { parameter: "stream", .. })), "{query}");
    }
    let uri = "/koregate/v1/cost?stream=st-1&from=2026-11-20&to=2026-11-20&limit=3&x=1";
    let cost = parse(uri, &[("accountId", "a1")], "").unwrap();
    let window = query("from=2026-11-20&to=2026-11-20&limit=3&x=1").unwrap();
    assert!(cost.wants_cost && !window.wants_cost);
    assert_eq!((&cost.query.series, cost.query.interval), (&window.query.series, window.query.interval));
    // At Kore's own path, it is a parameter like any other that is not known.
    let passed_on = query("from=2026-11-20&to=2026-11-20&stream=st-1").unwrap();
    assert_eq!(passed_on.query.series.parameters, [("stream".to_owned(), "st-1".to_owned())]);
}

#[test]
fn query_says_that_its_content_is_json() {
    for accepted in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(target_of("QUERY", PATH, Some(accepted)).unwrap(), stream_target("st-1", false), "{accepted}");
    }
    for refused in ["application/x-www-form-urlencoded", "application/vnd.kore+json", "text/json", "json", ""] {
        let result = target_of("QUERY", PATH, Some(refused));
        assert!(matches!(result, Err(ApiError::UnsupportedMediaType)), "{refused}");
        assert!(target_of("POST", PATH, Some(refused)).is_ok(), "{refused}");
    }
    assert!(matches!(target_of("QUERY", PATH, None), Err(ApiError::NoContentType)));
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
        // Decoded twice, both would be the same.
        &PATH.replace("st-1", "%252e%252e"),
        &PATH.replace("st-1", "a%252fb"),
        &PATH.replace("st-1", "a%25"),
        "/agentassist/api/v1/public//v2/agentassistinteractions",
        &format!("{PATH}/"),
        &PATH.replace("st-1", "a/b"),
    ] {
        assert!(matches!(parse(path, &head, ""), Err(ApiError::NotFound)), "{path}");
    }
    assert_eq!(parse_path(&PATH.replace("st-1", "a%20b%c3%a9")).as_deref(), Some("a bé"));
    let target = format!("{PATH}?from=2026-11-20&to=2026-11-20");
    assert!(matches!(parse(&target, &head, "[1]"), Err(ApiError::BadBody)));
}
