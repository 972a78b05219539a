//! Filters, `includeAgenticData` and unknown parameters: served from cached windows where possible, and never mixed up.

use http::Method;
use serde_json::{Value, json};

use crate::support::{ItemFilter, TestHarness, TestRequest, Window, assert_items, channel_filter, pages_of};

/// Four pages a day.
async fn start() -> TestHarness {
    TestHarness::start_exact(400, 4).await
}

fn day() -> Window {
    Window::day("2026-02-23")
}

/// The body of a request with this filter.
fn body(filter: &ItemFilter) -> String {
    let mut members = serde_json::Map::new();
    for (name, values) in [
        ("sessionIds", &filter.session_ids),
        ("conversationIds", &filter.conversation_ids),
        ("channels", &filter.channels),
        ("agentIds", &filter.agent_ids),
    ] {
        if !values.is_empty() {
            members.insert(name.to_owned(), json!(values));
        }
    }
    Value::Object(members).to_string()
}

/// Filters with values of the items: each filter alone with one value and with several, and all filters together.
fn filters(items: &[Vec<u8>]) -> Vec<ItemFilter> {
    let items: Vec<Value> = items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
    let value = |index: usize, pointer: &str| items[index].pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let some =
        |pointer: &str| -> Vec<String> { (0..items.len()).step_by(40).filter_map(|n| value(n, pointer)).collect() };
    let (sessions, conversations) = (some("/botSessionID"), some("/conversationID"));
    let (channels, agents) = (vec!["voice".to_owned(), "email".to_owned()], some("/agent/agentId"));
    assert!(sessions.len() > 1 && conversations.len() > 1 && agents.len() > 1);
    let unmatched = ItemFilter { agent_ids: vec!["nobody".to_owned()], ..ItemFilter::default() };
    let both = ItemFilter { channels: channels.clone(), agent_ids: agents.clone(), ..ItemFilter::default() };
    let all = ItemFilter {
        session_ids: sessions.clone(),
        conversation_ids: conversations.clone(),
        channels: some("/channel"),
        agent_ids: agents.clone(),
    };
    let one = |values: &[String]| values[..1].to_vec();
    vec![
        ItemFilter { session_ids: one(&sessions), ..ItemFilter::default() },
        ItemFilter { session_ids: sessions, ..ItemFilter::default() },
        ItemFilter { conversation_ids: one(&conversations), ..ItemFilter::default() },
        ItemFilter { conversation_ids: conversations, ..ItemFilter::default() },
        ItemFilter { channels: one(&channels), ..ItemFilter::default() },
        ItemFilter { channels, ..ItemFilter::default() },
        ItemFilter { agent_ids: one(&agents), ..ItemFilter::default() },
        ItemFilter { agent_ids: agents, ..ItemFilter::default() },
        both,
        all,
        unmatched,
    ]
}

#[tokio::test]
async fn filters_cold_and_warm_match_upstream() {
    let (cold, warm) = (start().await, start().await);
    let day = day();
    let all = warm.get(&day.query).await.page();
    assert_eq!(all.num_results, 400);
    warm.control.reset_counts();
    let mut selected = 0;
    for (number, filter) in filters(&warm.items(day.from, day.end)).iter().enumerate() {
        let expected = warm.items_of(day.from, day.end, false, filter);
        selected += usize::from(!expected.is_empty());
        let body = body(filter);
        // Kore's published sample is a GET with a body; POST is the alternative.
        let methods = if number % 2 == 0 { [Method::GET, Method::POST] } else { [Method::POST, Method::GET] };
        let [method, other_method] = methods;
        let request = TestRequest::post(&day.query, body.clone()).method(method);
        assert_items(&warm.send(&request).await.page(), &expected, &format!("warm: {body}"));
        assert_eq!(warm.calls(), 0, "warm: {body}");

        cold.control.reset_counts();
        assert_items(&cold.send(&request).await.page(), &expected, &format!("cold: {body}"));
        let calls = cold.control.calls();
        assert!(!calls.is_empty() && calls.iter().all(|call| call.has_body), "cold: {body}");
        assert_eq!(calls.len() as u64, pages_of(expected.len()), "only matching items are fetched");
        // The other method and other white space identify the same response.
        cold.control.reset_counts();
        let same = request.method(other_method).body(body.replace(',', " , "));
        assert_items(&cold.send(&same).await.page(), &expected, &format!("repeated: {body}"));
        assert_eq!(cold.calls(), 0, "repeated: {body}");
    }
    assert!(selected >= 9, "only {selected} filters select anything");
    assert_items(&cold.get(&day.query).await.page(), &cold.items(day.from, day.end), "unfiltered, after the filtered");
}

#[tokio::test]
async fn filtered_window_in_pages_is_complete() {
    let harness = start().await;
    let day = day();
    let filter = channel_filter("chat");
    let expected = harness.items_of(day.from, day.end, false, &filter);
    for warm in [false, true] {
        if warm {
            harness.get(&day.query).await.page();
        }
        for offset in (0..expected.len()).step_by(33) {
            let request = TestRequest::post(format!("{}&limit=33&offset={offset}", day.query), body(&filter));
            let end = expected.len().min(offset + 33);
            let page = harness.send(&request).await.page();
            assert_items(&page, &expected[offset..end], &format!("from {offset}"));
            assert_eq!(page.has_more, end < expected.len());
        }
    }
}

#[tokio::test]
async fn agentic_window_serves_plain_requests_but_not_reverse() {
    let harness = start().await;
    let day = day();
    let filter = ItemFilter { channels: vec!["chat".to_owned(), "voice".to_owned()], ..ItemFilter::default() };
    let (plain, agentic) =
        (harness.items(day.from, day.end), harness.items_of(day.from, day.end, true, &ItemFilter::default()));
    assert!(plain != agentic);
    let agentic_request = TestRequest::get(&day.query).and("includeAgenticData=true");

    assert_items(&harness.send(&agentic_request).await.page(), &agentic, "agentic");
    assert!(harness.control.calls().iter().all(|call| call.query.agentic));
    harness.control.reset_counts();
    assert_items(&harness.get(&day.query).await.page(), &plain, "plain from agentic");
    assert_items(
        &harness.send(&TestRequest::get(&day.query).and("includeAgenticData=false")).await.page(),
        &plain,
        "explicitly plain",
    );
    let filtered = TestRequest::post(&day.query, body(&filter));
    let expected = harness.items_of(day.from, day.end, false, &filter);
    assert_items(&harness.send(&filtered).await.page(), &expected, "plain and filtered from agentic");
    let expected = harness.items_of(day.from, day.end, true, &filter);
    assert_items(
        &harness.send(&filtered.and("includeAgenticData=true")).await.page(),
        &expected,
        "agentic and filtered",
    );
    assert_eq!(harness.calls(), 0);

    // The reverse on the day before: plain items lack the agentic data.
    let before = Window::day("2026-02-22");
    harness.get(&before.query).await.page();
    harness.control.reset_counts();
    let agentic = harness.items_of(before.from, before.end, true, &ItemFilter::default());
    assert_items(
        &harness.send(&TestRequest::get(&before.query).and("includeAgenticData=true")).await.page(),
        &agentic,
        "agentic",
    );
    assert_eq!(harness.calls(), 4);
}

#[tokio::test]
async fn unknown_parameters_are_forwarded_and_cached_apart() {
    let harness = start().await;
    let day = day();
    let expected = harness.items(day.from, day.end);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (parameters, forwarded) in [
        ("", vec![]),
        ("&lang=en", vec![pair("lang", "en")]),
        ("&lang=de", vec![pair("lang", "de")]),
        ("&lang=", vec![pair("lang", "")]),
        ("&Lang=en", vec![pair("Lang", "en")]),
        ("&lang=en&x=1", vec![pair("lang", "en"), pair("x", "1")]),
        ("&x=1&lang=en", vec![pair("x", "1"), pair("lang", "en")]),
        ("&x=1&x=2", vec![pair("x", "1"), pair("x", "2")]),
        ("&x=a%26b%3D%C3%A4+c", vec![pair("x", "a&b=ä c")]),
    ] {
        let request = TestRequest::get(format!("{}{parameters}", day.query));
        for calls in [4, 0] {
            harness.control.reset_counts();
            assert_items(&harness.send(&request).await.page(), &expected, parameters);
            let calls_made = harness.control.calls();
            assert_eq!(calls_made.len(), calls, "{parameters}");
            assert!(calls_made.iter().all(|call| call.query.extra == forwarded), "{parameters}: {calls_made:?}");
        }
    }
    // Unknown fields of the body, which the simulator ignores as Kore does.
    for body in [r#"{"tags":["vip"]}"#, r#"{"tags":["vip"],"x":1}"#, r#"{"channels":[]}"#, r#"{"channels":[],"x":1.0}"#]
    {
        for calls in [4, 0] {
            harness.control.reset_counts();
            assert_items(&harness.send(&TestRequest::post(&day.query, body)).await.page(), &expected, body);
            let calls_made = harness.control.calls();
            assert_eq!(calls_made.len(), calls, "{body}");
            assert!(calls_made.iter().all(|call| call.has_body), "{body}");
        }
    }
    // A filter beside an unknown parameter is not served from a window without the parameter.
    harness.control.reset_counts();
    let filter = channel_filter("chat");
    let expected = harness.items_of(day.from, day.end, false, &filter);
    let request = TestRequest::post(format!("{}&lang=fr", day.query), body(&filter));
    assert_items(&harness.send(&request).await.page(), &expected, "a filter beside a parameter");
    assert!(harness.calls() > 0);
}

#[tokio::test]
async fn empty_object_body_is_no_filter() {
    let harness = start().await;
    let expected = harness.settled_day();
    harness.get(day().query).await.page();
    harness.control.reset_counts();
    for body in ["{}", " { } ", "\n"] {
        assert_items(&harness.send(&TestRequest::post(day().query, body)).await.page(), &expected, body);
    }
    assert_eq!(harness.calls(), 0);
}
