//! Filters and richness: answered from what is there where that is possible, and never mixed up.

use http::Method;
use koregate_simulator::{ItemFilter, Profile};
use serde_json::{Value, json};

use super::support::{Ask, Rig, Settings, Window, assert_items, at, exact_profile};

fn day() -> Window {
    Window::days("2026-02-23", "2026-02-23")
}

fn small() -> Profile {
    exact_profile(400, 4)
}

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

/// Filters made of what stands in the items: each one alone, with one value and with several, and all of them together.
fn filters(items: &[Vec<u8>]) -> Vec<ItemFilter> {
    let items: Vec<Value> = items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
    let of = |index: usize, pointer: &str| items[index].pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let some = |pointer: &str| -> Vec<String> { (0..items.len()).step_by(40).filter_map(|n| of(n, pointer)).collect() };
    let (sessions, conversations) = (some("/botSessionID"), some("/conversationID"));
    let (channels, agents) = (vec!["voice".to_owned(), "email".to_owned()], some("/agent/agentId"));
    assert!(sessions.len() > 1 && conversations.len() > 1 && agents.len() > 1);
    let nobody = ItemFilter { agent_ids: vec!["nobody".to_owned()], ..ItemFilter::default() };
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
        nobody,
    ]
}

#[tokio::test]
async fn filters_select_what_the_upstream_selects_cold_and_from_a_warm_window() {
    let (cold, warm) =
        (Rig::start(small(), &Settings::default()).await, Rig::start(small(), &Settings::default()).await);
    let day = day();
    let all = warm.get(&day.query).await.page();
    assert_eq!(all.num_results, 400);
    warm.control.reset_counts();
    let mut selected = 0;
    for (number, filter) in filters(&warm.truth(day.from, day.end)).iter().enumerate() {
        let truth = warm.truth_of(day.from, day.end, false, filter);
        selected += usize::from(!truth.is_empty());
        let body = body(filter);
        // The published sample is a GET with a body; POST is the other way.
        let ask = Ask::post(&day.query, body.clone()).method(if number % 2 == 0 { Method::GET } else { Method::POST });
        assert_items(&warm.ask(&ask).await.page(), &truth, &format!("warm: {body}"));
        assert_eq!(warm.calls(), 0, "warm: {body}");

        cold.control.reset_counts();
        assert_items(&cold.ask(&ask).await.page(), &truth, &format!("cold: {body}"));
        let calls = cold.control.calls();
        assert!(!calls.is_empty() && calls.iter().all(|call| call.has_body), "cold: {body}");
        assert_eq!(calls.len(), truth.len().div_ceil(100).max(1), "only what is wanted was fetched");
        // The other method, and other words for the same filter, ask for the same.
        cold.control.reset_counts();
        let same = ask.method(if number % 2 == 0 { Method::POST } else { Method::GET }).body(body.replace(',', " , "));
        assert_items(&cold.ask(&same).await.page(), &truth, &format!("again: {body}"));
        assert_eq!(cold.calls(), 0, "again: {body}");
    }
    assert!(selected >= 9, "only {selected} filters select anything");
    assert_items(&cold.get(&day.query).await.page(), &cold.truth(day.from, day.end), "unfiltered, after the filtered");
}

#[tokio::test]
async fn a_filtered_window_in_pages_is_the_filtered_window() {
    let rig = Rig::start(small(), &Settings::default()).await;
    let day = day();
    let filter = ItemFilter { channels: vec!["chat".to_owned()], ..ItemFilter::default() };
    let truth = rig.truth_of(day.from, day.end, false, &filter);
    for warm in [false, true] {
        if warm {
            rig.get(&day.query).await.page();
        }
        for offset in (0..truth.len()).step_by(33) {
            let ask = Ask::post(format!("{}&limit=33&offset={offset}", day.query), body(&filter));
            let end = truth.len().min(offset + 33);
            let page = rig.ask(&ask).await.page();
            assert_items(&page, &truth[offset..end], &format!("from {offset}"));
            assert_eq!(page.has_more, end < truth.len());
        }
    }
}

#[tokio::test]
async fn plain_answers_come_from_rich_windows_byte_for_byte_and_rich_ones_never_from_plain() {
    let rig = Rig::start(small(), &Settings::default()).await;
    let day = day();
    let filter = ItemFilter { channels: vec!["chat".to_owned(), "voice".to_owned()], ..ItemFilter::default() };
    let (plain, rich) = (rig.truth(day.from, day.end), rig.truth_of(day.from, day.end, true, &ItemFilter::default()));
    assert!(plain != rich);
    let asked_rich = Ask::get(&day.query).and("includeAgenticData=true");

    assert_items(&rig.ask(&asked_rich).await.page(), &rich, "rich");
    assert!(rig.control.calls().iter().all(|call| call.query.agentic));
    rig.control.reset_counts();
    assert_items(&rig.get(&day.query).await.page(), &plain, "plain, from rich");
    assert_items(&rig.ask(&Ask::get(&day.query).and("includeAgenticData=false")).await.page(), &plain, "said so");
    let filtered = Ask::post(&day.query, body(&filter));
    let truth = rig.truth_of(day.from, day.end, false, &filter);
    assert_items(&rig.ask(&filtered).await.page(), &truth, "plain and filtered, from rich");
    let truth = rig.truth_of(day.from, day.end, true, &filter);
    assert_items(&rig.ask(&filtered.and("includeAgenticData=true")).await.page(), &truth, "rich and filtered");
    assert_eq!(rig.calls(), 0);

    // The day before, the other way round: what is plain has nothing to make rich answers of.
    let before = Window::days("2026-02-22", "2026-02-22");
    rig.get(&before.query).await.page();
    rig.control.reset_counts();
    let rich = rig.truth_of(before.from, before.end, true, &ItemFilter::default());
    assert_items(&rig.ask(&Ask::get(&before.query).and("includeAgenticData=true")).await.page(), &rich, "rich");
    assert_eq!(rig.calls(), 4);
}

#[tokio::test]
async fn what_the_gateway_does_not_know_is_passed_on_and_shares_nothing() {
    let rig = Rig::start(small(), &Settings::default()).await;
    let day = day();
    let truth = rig.truth(day.from, day.end);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (parameters, passed_on) in [
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
        let ask = Ask::get(format!("{}{parameters}", day.query));
        for calls in [4, 0] {
            rig.control.reset_counts();
            assert_items(&rig.ask(&ask).await.page(), &truth, parameters);
            let seen = rig.control.calls();
            assert_eq!(seen.len(), calls, "{parameters}");
            assert!(seen.iter().all(|call| call.query.extra == passed_on), "{parameters}: {seen:?}");
        }
    }
    // Fields of the body that are not known filters; the simulator, like Kore, ignores them.
    for body in [r#"{"tags":["vip"]}"#, r#"{"tags":["vip"],"x":1}"#, r#"{"channels":[]}"#, r#"{"channels":[],"x":1.0}"#]
    {
        for calls in [4, 0] {
            rig.control.reset_counts();
            assert_items(&rig.ask(&Ask::post(&day.query, body)).await.page(), &truth, body);
            let seen = rig.control.calls();
            assert_eq!(seen.len(), calls, "{body}");
            assert!(seen.iter().all(|call| call.has_body), "{body}");
        }
    }
    // A known filter beside an unknown parameter is not answered from what came without the parameter.
    rig.control.reset_counts();
    let filter = ItemFilter { channels: vec!["chat".to_owned()], ..ItemFilter::default() };
    let truth = rig.truth_of(day.from, day.end, false, &filter);
    let ask = Ask::post(format!("{}&lang=fr", day.query), body(&filter));
    assert_items(&rig.ask(&ask).await.page(), &truth, "a filter beside a parameter");
    assert!(rig.calls() > 0);
}

#[tokio::test]
async fn an_empty_object_is_no_filter() {
    let rig = Rig::start(small(), &Settings::default()).await;
    let truth = rig.truth(at("2026-02-23"), at("2026-02-24"));
    rig.get(day().query).await.page();
    rig.control.reset_counts();
    for body in ["{}", " { } ", "\n"] {
        assert_items(&rig.ask(&Ask::post(day().query, body)).await.page(), &truth, body);
    }
    assert_eq!(rig.calls(), 0);
}
