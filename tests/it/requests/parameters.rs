//! Parameters of a request: invalid ones, `limit`, `offset`, and the stream in the path.

use crate::support::{SETTLED_DAY, STREAM, TestHarness, TestRequest, assert_items, at};

async fn start() -> TestHarness {
    TestHarness::start_exact(250, 4).await
}

#[tokio::test]
async fn invalid_parameter_is_named_in_problem() {
    let harness = start().await;
    for (query, parameter) in [
        ("", "from"),
        ("to=2026-02-23", "from"),
        ("from=2026-02-23", "to"),
        ("from=yesterday&to=2026-02-23", "from"),
        ("from=2026-02-23&to=2026-02-30", "to"),
        ("from=2026-02-23&to=2026-02-23Z", "to"),
        ("from=2026-02-23&to=2026-02-23T00:00:00%2B25:00", "to"),
        ("from=2026-02-23&to=2026-02-22", "from"),
        ("from=2026-02-23T10:00:00&to=2026-02-23T09:59:59", "from"),
        ("from=2025-02-01&to=2026-02-23", "to"),
        ("from=2026-02-23&to=2026-02-23&limit=-1", "limit"),
        ("from=2026-02-23&to=2026-02-23&limit=1.5", "limit"),
        ("from=2026-02-23&to=2026-02-23&offset=ten", "offset"),
        ("from=2026-02-23&to=2026-02-23&offset=", "offset"),
        ("from=2026-02-23&to=2026-02-23&to=2026-02-24", "to"),
    ] {
        let response = harness.get(query).await;
        response.assert_problem_names(400, &format!("{parameter}: "));
        assert_eq!(response.json()["errors"][0]["code"], 412, "Kore's own code for bad arguments");
    }
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn offsets_and_fractions_name_exact_times() {
    let harness = start().await;
    let hour = harness.get("from=2026-02-23T10:00:00&to=2026-02-23T11:00:00").await;
    assert!(hour.page().num_results > 5);
    harness.control.reset_counts();
    for same in [
        "from=2026-02-23T10:00:00Z&to=2026-02-23T11:00:00Z",
        "from=2026-02-23T12:00:00%2B02:00&to=2026-02-23T11:00:00.000-00:00",
        "from=2026-02-23+10:00:00+00:00&to=2026-02-23T06:00:00-05:00",
    ] {
        assert_eq!(harness.get(same).await.body, hour.body, "{same}");
    }
    assert_eq!(harness.calls(), 0);
    // A window that nothing is cached of is cut as exactly.
    let (from, end) = (at("2026-02-22T10:00:00.5Z"), at("2026-02-22T17:30:00.25Z").next_tick());
    let fractions = harness.get("from=2026-02-22T10:00:00.5&to=2026-02-22-17:30:00.250").await;
    assert_items(&fractions.page(), &harness.items(from, end), "fractions of a second");
    // Each item alone is the window from its own time to its own time.
    let mut found = 0;
    for item in hour.page().items() {
        let item: serde_json::Value = serde_json::from_slice(item).unwrap();
        let start = item["segmentStartTime"].as_str().unwrap();
        found += harness.get(format!("from={start}&to={start}")).await.page().num_results;
    }
    assert_eq!(found, hour.page().num_results);
}

#[tokio::test]
async fn limit_zero_reports_has_more() {
    let harness = start().await;
    for (query, more) in [
        (format!("{SETTLED_DAY}&limit=0"), true),
        (format!("{SETTLED_DAY}&limit=0&offset=249"), true),
        (format!("{SETTLED_DAY}&limit=0&offset=250"), false),
        ("from=2026-01-01&to=2026-01-01&limit=0".to_owned(), false),
        ("from=2027-01-01&to=2027-01-01&limit=0".to_owned(), false),
    ] {
        let page = harness.get(&query).await.page();
        assert_eq!((page.num_results, page.has_more), (0, more), "{query}");
    }
}

#[tokio::test]
async fn offset_beyond_end_is_empty_page() {
    let harness = start().await;
    let expected = harness.settled_day();
    for (offset, items) in
        [("249", 1), ("250", 0), ("251", 0), ("18446744073709551615", 0), ("99999999999999999999999", 0)]
    {
        let page = harness.get(format!("{SETTLED_DAY}&limit=10&offset={offset}")).await.page();
        assert_items(&page, &expected[expected.len() - items..], offset);
        assert!(!page.has_more, "{offset}");
    }
}

#[tokio::test]
async fn escaped_stream_name_is_same_stream() {
    let harness = start().await;
    let plain = harness.get(SETTLED_DAY).await;
    harness.control.reset_counts();
    let escaped = harness.send(&TestRequest::get(SETTLED_DAY).stream(&STREAM.replace('-', "%2D"))).await;
    assert!(escaped.body == plain.body && harness.calls() == 0);
}
