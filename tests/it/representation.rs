//! The form of an answer: its codings, its headers, and its refusals.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use http::{Method, StatusCode};

use super::support::{Answer, Ask, NOW, Rig, STREAM, Settings, assert_items, at, exact_profile};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
const TODAY: &str = "from=2026-02-25&to=2026-02-25";

async fn rig() -> Rig {
    Rig::start(exact_profile(250, 4), &Settings::default()).await
}

fn inflated(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
    plain
}

/// One item a line: where an item has line breaks between its tokens, blanks stand in their place.
pub(crate) fn ndjson(items: &[Vec<u8>]) -> Vec<u8> {
    let line = |item: &Vec<u8>| {
        let mut line: Vec<u8> = item.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
        line.push(b'\n');
        line
    };
    items.iter().flat_map(line).collect()
}

#[tokio::test]
async fn json_ndjson_and_gzip_are_the_same_items() {
    let rig = rig().await;
    let truth = rig.truth(at("2026-02-23"), at("2026-02-24"));
    let json = rig.get(DAY).await;
    assert_items(&json.page(), &truth, "JSON");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.header("content-length"), Some(json.body.len().to_string().as_str()));
    assert_eq!(json.header("content-encoding"), None);
    let envelope = format!(r#"{{"numResults":{},"hasMore":false,"data":["#, truth.len());
    assert_eq!(json.text(), format!("{envelope}{}]}}", String::from_utf8(truth.join(&b","[..])).unwrap()));

    let lines = rig.ask(&Ask::get(DAY).header("accept", "application/x-ndjson")).await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert!(truth.iter().any(|item| item.contains(&b'\n')), "some items come in several lines");
    assert!(lines.body == ndjson(&truth));
    let page = format!("{DAY}&offset=200&limit=20");
    let page = rig.ask(&Ask::get(page).header("accept", "application/x-ndjson")).await;
    assert!(page.body == ndjson(&truth[200..220]));

    let zipped = Ask::get(DAY).header("accept-encoding", "br, gzip");
    let answer = rig.ask(&zipped).await;
    assert!(answer.body.len() * 2 < json.body.len() && inflated(&answer) == json.body);
    assert!(answer.header("vary").is_some_and(|vary| vary.contains("accept-encoding")));
    let answer = rig.ask(&zipped.header("accept", "application/x-ndjson")).await;
    assert!(inflated(&answer) == lines.body);
    assert_eq!(rig.ask(&Ask::get(DAY).header("accept-encoding", "gzip;q=0")).await.header("content-encoding"), None);
}

#[tokio::test]
async fn a_settled_window_has_an_etag_that_spares_its_body() {
    let rig = rig().await;
    let first = rig.get(DAY).await;
    let etag = first.header("etag").expect("a settled window").to_owned();
    assert!(etag.starts_with('"'), "a strong one: {etag}");
    for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let answer = rig.ask(&Ask::get(DAY).header("if-none-match", &known)).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{known}");
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    assert_eq!(rig.ask(&Ask::get(DAY).header("if-none-match", "\"other\"")).await.body, first.body);
    // Another replica says the same of the same bytes, though it has cut them otherwise.
    let other = rig.another_door(&Settings::default().section("window", "chunk = '15m'")).await;
    other.ask(&Ask::get("from=2026-02-23T03:00:01&to=2026-02-23T10:59:59")).await.page();
    assert_eq!(other.ask(&Ask::get(DAY)).await.header("etag"), Some(etag.as_str()));

    // Each representation, page and window has its own.
    let mut etags = BTreeSet::from([etag]);
    for ask in [
        Ask::get(DAY).header("accept-encoding", "gzip"),
        Ask::get(DAY).header("accept", "application/x-ndjson"),
        Ask::get(DAY).header("accept", "application/x-ndjson").header("accept-encoding", "gzip"),
        Ask::get(DAY).and("limit=10"),
        Ask::get(DAY).and("limit=10&offset=10"),
        Ask::get(DAY).and("limit=0"),
        Ask::get(DAY).and("includeAgenticData=true"),
        Ask::get("from=2026-02-22&to=2026-02-22"),
    ] {
        let answer = rig.ask(&ask).await;
        assert!(etags.insert(answer.header("etag").unwrap().to_owned()), "{ask:?} has the tag of another answer");
    }
    // The last page of a window and the same items with more behind them differ in `hasMore`.
    let last = rig.get("from=2026-02-23&to=2026-02-23&offset=240").await;
    let more = rig.get("from=2026-02-23&to=2026-02-24T06:00:00&offset=240&limit=10").await;
    assert!(last.page().items().eq(more.page().items()) && !last.page().has_more && more.page().has_more);
    assert_ne!(last.header("etag"), more.header("etag"));
}

#[tokio::test]
async fn an_open_window_has_no_etag_and_is_answered_anew() {
    let rig = rig().await;
    let answer = rig.get(TODAY).await;
    assert!(answer.page().num_results > 0 && answer.header("etag").is_none());
    for known in ["*", "\"any\""] {
        let answer = rig.ask(&Ask::get(TODAY).header("if-none-match", known)).await;
        assert_eq!(answer.status, StatusCode::OK, "{known}");
    }
    // Neither has one that ends where what is settled ends, and a second more.
    let edge = |second: &str| format!("from=2026-02-24T00:00:00&to=2026-02-24T{second}");
    assert!(rig.get(edge("12:34:55")).await.header("etag").is_some());
    assert!(rig.get(edge("12:34:56")).await.header("etag").is_none());
}

#[tokio::test]
async fn cache_status_and_age_tell_how_it_was_answered() {
    let rig = rig().await;
    let now = at(NOW);
    let told = |answer: &Answer| (answer.cache_status().to_owned(), answer.header("age").map(str::to_owned));
    let day = rig.get(DAY).await;
    assert_eq!(told(&day), ("koregate; fwd=miss; detail=\"chunks=24 hits=0 calls=3\"".to_owned(), None));
    rig.clock.set(now + Duration::from_secs(100));
    let day = rig.get(DAY).await;
    assert_eq!(told(&day), ("koregate; hit; detail=\"chunks=24 hits=24 calls=0\"".to_owned(), Some("100".to_owned())));
    let days = rig.get("from=2026-02-22&to=2026-02-23").await;
    let expected = "koregate; fwd=partial; detail=\"chunks=48 hits=24 calls=3\"";
    assert_eq!(told(&days), (expected.to_owned(), Some("100".to_owned())));
    let not_modified = rig.ask(&Ask::get(DAY).header("if-none-match", "*")).await;
    assert_eq!(told(&not_modified).1.as_deref(), Some("100"));

    let hour = "from=2026-02-25T11:30:00&to=2026-02-25T12:29:59";
    assert!(told(&rig.get(hour).await).0.starts_with("koregate; fwd=miss"));
    rig.clock.set(now + Duration::from_secs(110));
    assert_eq!(told(&rig.get(hour).await).1.as_deref(), Some("10"));
    rig.clock.set(now + Duration::from_secs(200));
    assert!(told(&rig.get(hour).await).0.starts_with("koregate; fwd=stale"), "{:?}", told(&rig.get(hour).await));
    // Nobody on the way may keep what is personal.
    for answer in [day, not_modified] {
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    }
}

#[tokio::test]
async fn two_who_ask_at_once_are_told_who_paid() {
    let rig = rig().await;
    let answers = rig.door.ask_at_once(&[Ask::get(DAY), Ask::get(DAY)]).await;
    let mut told: Vec<&str> = answers.iter().map(Answer::cache_status).collect();
    told.sort_unstable();
    assert_eq!(told[0], "koregate; fwd=miss; collapsed; detail=\"chunks=24 hits=0 calls=0\"");
    assert_eq!(told[1], "koregate; fwd=miss; detail=\"chunks=24 hits=0 calls=3\"");
    assert_eq!(rig.calls(), 3);
}

#[tokio::test]
async fn a_request_has_a_name_its_own_or_a_new_one() {
    let rig = rig().await;
    let named = Ask::get(DAY).header("x-request-id", "my-name_1.2");
    assert_eq!(rig.ask(&named).await.header("x-request-id"), Some("my-name_1.2"));
    let refused = rig.ask(&named.and("limit=x")).await;
    assert_eq!(refused.header("x-request-id"), Some("my-name_1.2"));
    assert_eq!(refused.json()["request_id"], "my-name_1.2");
    let names: BTreeSet<String> = [rig.get(DAY).await, rig.get(DAY).await, rig.ask(&Ask::get(DAY).path("/")).await]
        .iter()
        .map(|answer| answer.header("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 3);
}

/// A problem document with Kore's `errors`.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, word: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    for member in ["type", "title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
    }
    assert!(problem["detail"].as_str().unwrap().contains(word), "{word}: {problem}");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1);
    assert!(errors[0]["msg"].as_str().unwrap().contains(word) && errors[0]["code"].is_u64(), "{problem}");
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let rig = rig().await;
    for (query, parameter) in [
        ("", "from"),
        ("to=2026-02-23", "from"),
        ("from=2026-02-23", "to"),
        ("from=yesterday&to=2026-02-23", "from"),
        ("from=2026-02-23&to=2026-02-30", "to"),
        ("from=2026-02-23&to=2026-02-23T00:00:00Z", "to"),
        ("from=2026-02-23&to=2026-02-22", "from"),
        ("from=2026-02-23T10:00:00&to=2026-02-23T09:59:59", "from"),
        ("from=2025-02-01&to=2026-02-23", "to"),
        ("from=2026-02-23&to=2026-02-23&limit=-1", "limit"),
        ("from=2026-02-23&to=2026-02-23&limit=1.5", "limit"),
        ("from=2026-02-23&to=2026-02-23&offset=ten", "offset"),
        ("from=2026-02-23&to=2026-02-23&offset=", "offset"),
        ("from=2026-02-23&to=2026-02-23&to=2026-02-24", "to"),
    ] {
        let answer = rig.get(query).await;
        assert_problem(&answer, 400, &format!("{parameter}: "));
        assert_eq!(answer.json()["errors"][0]["code"], 412, "Kore's own code for bad arguments");
    }
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_a_body_that_kores_clients_understand() {
    let settings = Settings::default().account("streams = ['st-test']");
    let rig = Rig::start(exact_profile(250, 4), &settings).await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = rig.ask(&Ask::get(DAY).method(method)).await;
        assert_problem(&answer, 405, "GET and POST");
        assert_eq!(answer.header("allow"), Some("GET, POST"));
    }
    for path in [
        "/",
        "/agentassist/api/v1/public/st/v2/other",
        "/agentassist/api/v1/public/a/b/v2/agentassistinteractions",
        "/agentassist/api/v1/public//v2/agentassistinteractions",
        "/koregate/v1/nothing",
        "/metrics",
    ] {
        assert_problem(&rig.ask(&Ask::get(DAY).path(path)).await, 404, "no such path");
    }
    let large = format!(r#"{{"channels":["{}"]}}"#, "x".repeat(1 << 20));
    assert_problem(&rig.ask(&Ask::post(DAY, large)).await, 413, "larger");
    for body in ["[1]", "nothing", r#"{"channels":["chat"]"#] {
        assert_problem(&rig.ask(&Ask::post(DAY, body)).await, 400, "body");
    }
    for ask in [Ask::get(DAY).header("accountId", "another"), Ask::get(DAY).stream("st-other")] {
        assert_problem(&rig.ask(&ask).await, 403, "not allowed");
    }
    assert_eq!(rig.calls(), 0);
    // With one account there is no need to name it.
    assert_eq!(rig.ask(&Ask::get(DAY).header("accountId", "")).await.page().num_results, 250);
}

#[tokio::test]
async fn a_caller_without_a_key_or_beyond_its_own_limit_is_told_so() {
    // SHA-256 of "abc", as FIPS 180-2 gives it.
    let callers = "[[callers]]\nname = 'bi'\nrequests_per_minute = 2\n\
        api_key_sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'\nstreams = ['st-test']";
    let rig = Rig::start(exact_profile(250, 4), &Settings::default().tables(callers)).await;
    for ask in
        [Ask::get(DAY), Ask::get(DAY).header("x-api-key", "abd"), Ask::get(DAY).header("authorization", "Basic abc")]
    {
        let answer = rig.ask(&ask).await;
        assert_problem(&answer, 401, "API key");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(rig.ask(&Ask::get(DAY).header("authorization", "Bearer abc")).await.page().num_results, 250);
    let known = Ask::get(DAY).header("x-api-key", "abc");
    assert_problem(&rig.ask(&known.clone().stream("st-other")).await, 403, "not allowed");
    let answer = rig.ask(&known).await;
    assert_problem(&answer, 429, "limit");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().is_ok_and(|seconds| (1..=30).contains(&seconds)));
}

#[tokio::test]
async fn limit_zero_tells_whether_there_is_anything() {
    let rig = rig().await;
    for (query, more) in [
        (format!("{DAY}&limit=0"), true),
        (format!("{DAY}&limit=0&offset=249"), true),
        (format!("{DAY}&limit=0&offset=250"), false),
        ("from=2026-01-01&to=2026-01-01&limit=0".to_owned(), false),
        ("from=2027-01-01&to=2027-01-01&limit=0".to_owned(), false),
    ] {
        let page = rig.get(&query).await.page();
        assert_eq!((page.num_results, page.has_more), (0, more), "{query}");
    }
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_an_empty_page() {
    let rig = rig().await;
    let truth = rig.truth(at("2026-02-23"), at("2026-02-24"));
    for (offset, items) in
        [("249", 1), ("250", 0), ("251", 0), ("18446744073709551615", 0), ("99999999999999999999999", 0)]
    {
        let page = rig.get(format!("{DAY}&limit=10&offset={offset}")).await.page();
        assert_items(&page, &truth[truth.len() - items..], offset);
        assert!(!page.has_more, "{offset}");
    }
}

/// The items of tens of megabytes, taken piece by piece by a caller who keeps none of it.
#[tokio::test]
async fn a_window_without_a_limit_is_streamed_whole() {
    let rig = Rig::start(exact_profile(1_700, 5), &Settings::default()).await;
    let query = "from=2026-02-21&to=2026-02-23";
    let truth = rig.truth(at("2026-02-21"), at("2026-02-24"));
    assert_items(&rig.get(query).await.page(), &truth, "cold");
    assert_items(&rig.get(query).await.page(), &truth, "warm");
    let lines =
        rig.ask(&Ask::get(query).header("accept", "application/x-ndjson").header("accept-encoding", "gzip")).await;
    assert!(inflated(&lines) == ndjson(&truth));
}

#[tokio::test]
async fn a_stream_whose_name_is_escaped_is_the_same_stream() {
    let rig = rig().await;
    let plain = rig.get(DAY).await;
    rig.control.reset_counts();
    let escaped = rig.ask(&Ask::get(DAY).stream(&STREAM.replace('-', "%2D"))).await;
    assert!(escaped.body == plain.body && rig.calls() == 0);
}
