//! A wrong `window.field`: it is detected, reported, and never makes a response wrong.

use crate::support::{
    ApiVariant, Credential, ItemFilter, Profile, STREAM, SelectOn, Settings, TestHarness, TestRequest, at, profile,
};

/// An account of its own, because metrics are shared by all tests of a process.
const WRONG_FIELD_ACCOUNT: &str = "account-with-the-wrong-field";

#[tokio::test]
async fn wrong_window_field_disables_cutting_until_trusted() {
    let account = Credential { account_id: WRONG_FIELD_ACCOUNT.to_owned(), ..Credential::default() };
    let profile =
        Profile { account, api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..profile(300, 5) };
    let harness = TestHarness::start(profile, &Settings::default()).await;
    let request = |query: &str| TestRequest::get(query).header("accountId", WRONG_FIELD_ACCOUNT);
    let expected = |from, end| {
        let expected = harness.control.expected_until(STREAM, at(from), at(end), false, &ItemFilter::default());
        let mut items: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
        items.sort_unstable();
        items
    };
    assert_eq!(harness.gateway.readiness().await, "ready");

    // Items that ended in this day but began before it reveal the wrong field.
    let day = harness.send(&request("from=2026-02-23&to=2026-02-23")).await;
    let whole = expected("2026-02-23", "2026-02-24");
    assert!(whole.len() > 200);
    assert!(day.page().sorted_items() == whole, "the uncut window has the upstream's items");
    assert_eq!(day.cache_outcome(), "fwd=bypass");

    // A part of the day is a window of its own, which is not cut from the cached day.
    harness.control.reset_counts();
    let hours = "from=2026-02-23T09:00:00&to=2026-02-23T10:59:59";
    let part = harness.send(&request(hours)).await;
    assert!(part.page().sorted_items() == expected("2026-02-23T09:00:00Z", "2026-02-23T10:59:59.000000001Z"));
    assert!(harness.calls() > 0);

    // What is not cut cannot be cut within a second either.
    let fraction = request("from=2026-02-23T09:00:00.5Z&to=2026-02-23T10:59:59");
    harness.send(&fraction).await.assert_problem_names(400, "fraction of a second");
    assert_eq!(harness.send(&fraction.method(http::Method::HEAD)).await.status, 400);

    // By now an item has been searched for at the place of its timestamp.
    let ready = harness.gateway.get_admin("/readyz").await;
    assert_eq!(ready.status, 200, "a degraded gateway stays ready");
    let readiness = ready.json();
    assert_eq!(readiness["status"], "degraded");
    let problem = readiness["problems"][0].as_str().unwrap();
    assert!(problem.contains(WRONG_FIELD_ACCOUNT) && problem.contains("window.field"), "{problem}");
    let metrics = harness.gateway.get_admin("/metrics").await;
    let line = format!("koregate_window_field_wrong{{account=\"{WRONG_FIELD_ACCOUNT}\"}} 1");
    assert!(metrics.text().lines().any(|found| found == line), "no line {line}");

    // The same settled window is cached, as a whole and in pages.
    harness.control.reset_counts();
    let again = harness.send(&request("from=2026-02-23&to=2026-02-23")).await;
    assert!(again.body == day.body && harness.calls() == 0);
    let head = harness.send(&request("from=2026-02-23&to=2026-02-23").method(http::Method::HEAD)).await;
    assert_eq!((head.cache_outcome(), head.header("etag")), ("hit", again.header("etag")));
    let mut pages = Vec::new();
    while pages.len() < whole.len() {
        let query = format!("from=2026-02-23&to=2026-02-23&limit=37&offset={}", pages.len());
        let page = harness.send(&request(&query)).await.page();
        pages.extend(page.items().map(<[u8]>::to_vec));
        assert_eq!(page.has_more, pages.len() < whole.len());
    }
    assert!(pages.iter().map(Vec::as_slice).eq(day.page().items()) && harness.calls() == 0);

    // The operator confirms that the field has been corrected.
    let trust = |query: String| TestRequest::post(query, "").path("/api/v1/window-field/trust");
    for (query, status) in [(String::new(), 400), ("account=nobody".to_owned(), 404)] {
        assert_eq!(harness.gateway.send_admin(&trust(query)).await.status, status);
    }
    let trusted = harness.gateway.send_admin(&trust(format!("account={WRONG_FIELD_ACCOUNT}"))).await.json();
    assert_eq!((trusted["account"].as_str(), trusted["was_wrong"].as_bool()), (Some(WRONG_FIELD_ACCOUNT), Some(true)));
    assert_eq!(harness.gateway.readiness().await, "ready");
}

#[tokio::test]
async fn chunks_cut_before_detection_are_dropped() {
    let account = Credential { account_id: "account-found-out-late".to_owned(), ..Credential::default() };
    let profile = Profile { account, ..profile(300, 5) };
    let harness = TestHarness::start(profile, &Settings::default()).await;
    let request = |query: &str| TestRequest::get(query).header("accountId", "account-found-out-late");
    harness.send(&request("from=2026-02-22&to=2026-02-22")).await.page();
    harness.control.change(|profile| profile.api.select_on = SelectOn::End);
    harness.send(&request("from=2026-02-23&to=2026-02-23")).await.page();
    let day = harness.send(&request("from=2026-02-22&to=2026-02-22")).await.page();
    let expected =
        harness.control.expected_until(STREAM, at("2026-02-22"), at("2026-02-23"), false, &ItemFilter::default());
    let mut expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).collect();
    expected.sort_unstable();
    assert!(day.sorted_items() == expected);
}
