//! Header fields of requests.

use bytes::Bytes;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderName, Version};

use super::{head, parse};
use crate::api::head::matches;
use crate::api::negotiation::{Coding, Format, Negotiated};
use crate::api::prefer::Preferences;
use crate::fuzz_targets::{header_fields_of, lines_and_body};
use crate::request::Priority;

const URI: &str = "/agentassist/api/v1/public/st-1/v2/agentassistinteractions?from=2026-11-20&to=2026-11-20";
const ETAG: &str = "\"0123456789abcdef-a+-j\"";

/// Header fields in lines such as `accept: */*`. Fields that follow the grammar of their RFC are read as a naive reader
/// reads them, and all others do not panic.
///
/// # Panics
/// If a property does not hold.
pub fn header_fields(data: &[u8]) {
    let headers = header_fields_of(&lines_and_body(data).0);
    check_negotiation(&headers);
    check_prefer(&headers);
    check_if_none_match(&headers);
    let mut head = head("GET", URI).expect("a valid URI");
    head.headers.clone_from(&headers);
    head.headers.remove("accountid");
    let parsed = parse(&head, &Bytes::new()).expect("a valid request").expect("a request for a window");
    let priority = parsed.query.requester.priority;
    if let Some(members) = elements(&headers, "priority") {
        let urgency = members.iter().rev().find_map(|(name, _)| name.strip_prefix("u="));
        let wanted = match urgency {
            Some("7") => Priority::Background,
            Some("5" | "6") => Priority::Refresh,
            _ => Priority::Interactive,
        };
        assert_eq!(priority, wanted);
    }
}

/// The elements of a list, each with its parameters. `None` if an element is none that a naive reader understands, for
/// instance one with quotes.
fn elements(headers: &HeaderMap, name: &'static str) -> Option<Vec<(String, Vec<String>)>> {
    let mut elements = Vec::new();
    for value in headers.get_all(HeaderName::from_static(name)) {
        for element in value.to_str().ok()?.split(',') {
            let mut parts = element.split(';').map(|part| part.trim_matches([' ', '\t']).to_owned());
            let is_simple = |text: &str| !text.contains(['"', '\\']) && !text.contains("q =") && !text.contains("q= ");
            is_simple(element).then_some(())?;
            elements.push((parts.next()?, parts.collect()));
        }
    }
    Some(elements)
}

fn check_negotiation(headers: &HeaderMap) {
    let Negotiated { format, coding } = Negotiated::negotiate(Version::HTTP_11, headers);
    assert_eq!(Negotiated::negotiate(Version::HTTP_10, headers).coding, Coding::Identity);
    if let Some([ndjson, json]) =
        qualities(headers, "accept", [&["application/x-ndjson"], &["application/json", "application/*", "*/*"]])
    {
        assert_eq!(format == Format::Ndjson, ndjson > 0 && ndjson >= json);
    }
    if let Some([gzip, identity]) = qualities(headers, "accept-encoding", [&["gzip", "x-gzip", "*"], &["identity"]]) {
        assert_eq!(coding == Coding::Gzip, gzip > 0 && gzip >= identity);
    }
}

/// The quality of two choices in thousandths, each by the most specific range that is named; `None` if the field does
/// not follow RFC 9110, 12.4.2.
fn qualities(headers: &HeaderMap, name: &'static str, choices: [&[&str]; 2]) -> Option<[u32; 2]> {
    let elements: Vec<(String, u32)> = elements(headers, name)?
        .into_iter()
        .map(|(range, parameters)| {
            let mut weights = parameters
                .iter()
                .filter_map(|parameter| parameter.to_ascii_lowercase().strip_prefix("q=").map(thousandths));
            Some((range.to_ascii_lowercase(), weights.next().unwrap_or(Some(1000))?))
        })
        .collect::<Option<_>>()?;
    Some(choices.map(|ranges| {
        let named = |range: &&str| elements.iter().find(|element| element.0 == **range).map(|element| element.1);
        ranges.iter().find_map(named).unwrap_or(0)
    }))
}

/// A weight such as `0.25`.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_valid =
        matches!(whole, "0" | "1") && decimals.len() <= 3 && decimals.bytes().all(|digit| digit.is_ascii_digit());
    let decimals: u32 = format!("{decimals:0<3}").parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    (is_valid && (whole == 0 || decimals == 0)).then(|| whole * 1000 + decimals)
}

fn check_prefer(headers: &HeaderMap) {
    let is_preferred = Preferences::of(headers).dry_run;
    if let Some(preferences) = elements(headers, "prefer") {
        let name = |(preference, _): &(String, _)| preference.split('=').next().unwrap_or_default().trim().to_owned();
        assert_eq!(is_preferred, preferences.iter().any(|element| name(element).eq_ignore_ascii_case("dry-run")));
    }
}

fn check_if_none_match(headers: &HeaderMap) {
    let Some(field) = headers.get(IF_NONE_MATCH) else { return };
    for etag in [ETAG.to_owned(), format!("W/{ETAG}")] {
        let is_matched = matches(field, &etag);
        if let Some(wanted) = field.to_str().ok().and_then(naive_match) {
            assert_eq!(is_matched, wanted, "{field:?}");
        }
    }
}

/// Whether a list of entity tags (RFC 9110, 8.8.3) has the tag; `None` if the field is not such a list.
fn naive_match(field: &str) -> Option<bool> {
    if field == "*" {
        return Some(true);
    }
    let (mut rest, mut found) = (field, false);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(found);
        }
        let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (tag, behind) = opaque.split_once('"').filter(|(tag, _)| !tag.contains([' ', '\t']))?;
        found |= tag == ETAG.trim_matches('"');
        rest = behind.trim_start_matches([' ', '\t']);
        (rest.is_empty() || rest.starts_with(',')).then_some(())?;
    }
}
