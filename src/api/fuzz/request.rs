//! Paths, parameters and bodies of requests.

use std::collections::BTreeSet;

use bytes::Bytes;
use form_urlencoded::Serializer;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{NOW, head, parse};
use crate::cache::{PageRange, WindowQuery};
use crate::fuzz_targets::{header_fields_of, lines_and_body};
use crate::request::{Filter, FilterError, Series};
use crate::window::{Bound, Timestamp, UpperBound};

/// A request for a window: its URI, its header fields and its body. A request that is accepted is the same after it
/// was printed in the upstream's spelling.
///
/// # Panics
/// If a property does not hold.
pub fn request(data: &[u8]) {
    let (lines, body) = lines_and_body(data);
    let Some((uri, fields)) = lines.split_first() else { return };
    let Some(mut head) = head("POST", uri) else { return };
    head.headers = header_fields_of(fields);
    head.headers.remove("accountid");
    let body = Bytes::copy_from_slice(body);
    check_filter(&body);
    let Ok(Some(parsed)) = parse(&head, &body) else { return };
    let query = parsed.query;
    assert!(query.interval.end <= NOW || query.interval.is_empty(), "a window in the future");
    assert_eq!(&query.series.filter, &Filter::parse(&body).expect("an accepted body"));
    if !query.interval.is_empty() {
        let again = parse_printed(&query);
        assert_eq!((&again.series, again.interval), (&query.series, query.interval));
        assert_eq!(again.page_range, query.page_range);
    }
}

/// The bound at a time, with a fraction if it is not a whole second.
fn bound_at(at: Timestamp) -> Bound {
    if at == at.floor_second() { Bound::Second(at) } else { Bound::Fraction(at) }
}

/// Prints a query as the upstream is asked, but for fractions of a second, and parses it again.
fn parse_printed(query: &WindowQuery) -> WindowQuery {
    let Series { stream, parameters, agentic, filter, .. } = &*query.series;
    let to = match UpperBound::Inclusive.query_for(query.interval).to {
        // The window may have been cut at the present.
        Bound::Second(second) if query.interval.end < NOW => {
            let last = bound_at(query.interval.end.previous_tick());
            assert!(last.start() <= second);
            last
        }
        to => to,
    };
    let mut printed = Serializer::new(String::new());
    printed.append_pair("from", &bound_at(query.interval.start).to_string());
    printed.append_pair("to", &to.to_string());
    let PageRange { offset, limit } = query.page_range;
    printed.append_pair("offset", &offset.to_string());
    if let Some(limit) = limit {
        printed.append_pair("limit", &limit.to_string());
    }
    printed.append_pair("includeAgenticData", &agentic.to_string());
    printed.extend_pairs(parameters);
    let (stream, printed) = (utf8_percent_encode(stream, NON_ALPHANUMERIC), printed.finish());
    let uri = format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions?{printed}");
    let head = head("POST", &uri).expect("a printed URI");
    let body = filter.body().unwrap_or_default();
    parse(&head, &body).expect("a printed request").expect("a request for a window").query
}

/// A body is a filter that survives printing. A known one selects the values that the body lists.
fn check_filter(body: &Bytes) {
    let naive: Option<Value> = serde_json::from_slice(body).ok();
    let is_blank = body.iter().all(u8::is_ascii_whitespace);
    let filter = match Filter::parse(body) {
        Ok(filter) => filter,
        Err(FilterError::NotAnObject) => {
            return assert!(!is_blank && !naive.is_some_and(|value| value.is_object()));
        }
        Err(FilterError::NotStrings(name)) => {
            let strings = |value: &Value| Some(value.as_array()?.iter().all(Value::is_string));
            return assert_eq!(naive.expect("JSON").get(name).map(strings).map(Option::unwrap_or_default), Some(false));
        }
    };
    let printed = filter.body().unwrap_or_default();
    assert_eq!(Filter::parse(&printed).expect("a printed filter"), filter);
    match &filter {
        Filter::None => assert!(is_blank || naive == Some(Value::Object(serde_json::Map::new()))),
        Filter::Opaque(kept) => assert_eq!(kept, body),
        Filter::Known(known) => {
            let lists = [
                ("sessionIds", &known.session_ids),
                ("conversationIds", &known.conversation_ids),
                ("channels", &known.channels),
                ("agentIds", &known.agent_ids),
            ];
            let naive = naive.expect("JSON");
            let named = lists.iter().filter(|(name, _)| naive.get(name).is_some()).count();
            assert_eq!(naive.as_object().map(serde_json::Map::len), Some(named), "a member that is not known");
            for (name, values) in lists {
                let list = naive.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let wanted: BTreeSet<String> =
                    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect();
                assert_eq!(&wanted, values);
            }
        }
    }
}
