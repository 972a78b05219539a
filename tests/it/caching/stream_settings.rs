//! Settings of single streams over those of their account: each stream is cut, kept and checked by its own.

use std::time::Duration;

use crate::support::{
    ApiVariant, Credential, DAY, ItemFilter, OTHER_STREAM, Profile, STREAM, SelectOn, Settings, StreamProfile,
    TestHarness, TestRequest, UpperBound, Window, at, exact_stream, profile,
};

/// An account of its own, because metrics are shared by all tests of a process.
const ONE_FIELD_WRONG: &str = "account-with-one-wrong-field";

/// [`STREAM`] selects on the start and counts an item at `to`; [`OTHER_STREAM`] as `api` says.
fn profile_with(api: ApiVariant) -> Profile {
    let other = StreamProfile { api: Some(api), ..exact_stream(OTHER_STREAM, 300) };
    Profile { streams: vec![exact_stream(STREAM, 300), other], days: 5, ..profile(0, 5) }
}

#[tokio::test]
async fn streams_of_one_account_differ_in_every_setting() {
    let api = ApiVariant { select_on: SelectOn::End, exclusive_to: true, ..ApiVariant::default() };
    let settings = Settings::default().account(&format!(
        "stream_settings = [{{ stream = '{OTHER_STREAM}', window = {{ field = 'segmentEndTime', \
         upper_bound = 'exclusive', settle_after = '1h', freshness = [] }} }}]"
    ));
    let harness = TestHarness::start(profile_with(api), &settings).await;
    let both = [STREAM, OTHER_STREAM];
    for stream in both {
        let day =
            harness.control.expected_until(stream, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
        // A window that ends exactly with an item shows which upper bound is in effect.
        let last = day.iter().filter_map(|(_, item)| selected_second(stream, item)).nth(200).unwrap();
        let last = at(&format!("{last}Z"));
        harness.control.insert(stream, last);
        for (from, to) in [(at("2026-02-23"), last), (at("2026-02-23T06:00:00Z"), last)] {
            let query = Window::seconds(from, to, UpperBound::Inclusive).query;
            let expected = harness.control.expected(stream, from, to, false, &ItemFilter::default());
            let expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
            let response = harness.send(&TestRequest::get(query.clone()).stream(stream)).await;
            response.assert_complete(&expected, &format!("{stream}: {query}"));
            if from != at("2026-02-23") {
                response.assert_hit();
            }
        }
    }
    assert_eq!(harness.gateway.readiness().await, "ready");

    // Some hours ago: open for one stream, and settled for the other. The last minutes are always fetched again there.
    let hours = "from=2026-02-25T08:00:00&to=2026-02-25T09:00:00";
    let minutes = "from=2026-02-25T16:20:00&to=2026-02-25T16:30:00";
    let mut calls = Vec::new();
    for (query, wait) in [(hours, 7_200), (minutes, 1)] {
        for stream in both {
            let request = TestRequest::get(query).stream(stream);
            harness.send(&request).await.page();
            let before = harness.calls();
            harness.advance(Duration::from_secs(wait));
            harness.send(&request).await.page();
            calls.push(harness.calls() > before);
        }
    }
    assert_eq!(calls, [true, false, false, true]);
}

/// The second of the timestamp that a stream selects on, if the item lies exactly in it.
fn selected_second(stream: &str, item: &[u8]) -> Option<String> {
    let item: serde_json::Value = serde_json::from_slice(item).unwrap();
    let field = if stream == STREAM { "segmentStartTime" } else { "segmentEndTime" };
    Some(item[field].as_str()?.get(..19)?.to_owned())
}

#[tokio::test]
async fn wrong_field_of_one_stream_leaves_others_cut() {
    let account = Credential { account_id: ONE_FIELD_WRONG.to_owned(), ..Credential::default() };
    let profile = Profile { account, ..profile_with(ApiVariant::default()) };
    let settings = Settings::default()
        .account(&format!("stream_settings = [{{ stream = '{OTHER_STREAM}', window = {{ field = 'createdAt' }} }}]"));
    let harness = TestHarness::start(profile, &settings).await;
    let request =
        |stream: &str, query: &str| TestRequest::get(query).stream(stream).header("accountId", ONE_FIELD_WRONG);
    // No item has such a timestamp, which is sure after three windows.
    for day in ["2026-02-21", "2026-02-22", "2026-02-23"] {
        for stream in [STREAM, OTHER_STREAM] {
            let end = at(day) + DAY;
            let expected = harness.control.expected_until(stream, at(day), end, false, &ItemFilter::default());
            let mut expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
            expected.sort_unstable();
            let response = harness.send(&request(stream, &format!("from={day}&to={day}"))).await;
            assert!(response.page().sorted_items() == expected, "{stream} {day}");
            assert_eq!(response.cache_outcome() == "fwd=bypass", stream == OTHER_STREAM, "{stream} {day}");
        }
    }
    let problems = harness.gateway.get_admin("/readyz").await.json()["problems"].to_string();
    assert!(problems.contains(ONE_FIELD_WRONG) && problems.contains("createdAt"), "{problems}");
    let hours = "from=2026-02-23T09:00:00&to=2026-02-23T10:59:59";
    assert_eq!(harness.send(&request(OTHER_STREAM, hours)).await.cache_outcome(), "fwd=bypass");
    let calls = harness.calls();
    harness.send(&request(STREAM, hours)).await.assert_hit();
    assert_eq!(harness.calls(), calls, "the other stream is still cut");
    assert!(
        harness
            .gateway
            .get_admin("/metrics")
            .await
            .text()
            .contains(&format!("koregate_window_field_wrong{{account=\"{ONE_FIELD_WRONG}\"}} 1"))
    );
}
