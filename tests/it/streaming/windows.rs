//! Streaming of long windows, run by run: the response begins before the fetch has ended, and an incomplete one is
//! aborted.

use std::io::ErrorKind;

use crate::support::{
    Fault, FaultPlan, Settings, SortOrder, TestHarness, TestRequest, at, exact_profile, read_to_end, until_async,
};

/// Four settled days with 2000 items.
const FOUR_DAYS: &str = "from=2026-02-20&to=2026-02-23";
const FOUR_DAYS_PAGES: u64 = 20;
/// Without parallel runs: where pages come slowly, there are two runs, and the last page of the first need not be full.
const FOUR_DAYS_CALLS: u64 = FOUR_DAYS_PAGES + 1;
/// Sixty pages, which are more than one run.
const TWELVE_DAYS: &str = "from=2026-02-12&to=2026-02-23";
const TWELVE_DAYS_PAGES: u64 = 60;
/// The last page of each of the three runs need not be full.
const TWELVE_DAYS_CALLS: u64 = TWELVE_DAYS_PAGES + 3;
/// A window that is too short to be streamed.
const ONE_DAY: &str = "from=2026-02-20&to=2026-02-20";

async fn start() -> TestHarness {
    TestHarness::start(exact_profile(500, 14), &Settings::one_second_limit()).await
}

/// The same without parallel runs, which would make the number of calls random.
async fn start_sequential() -> TestHarness {
    let settings = Settings::one_second_limit().section("upstream", "max_concurrency = 1");
    TestHarness::start(exact_profile(500, 14), &settings).await
}

fn four_days(harness: &TestHarness) -> Vec<Vec<u8>> {
    harness.items(at("2026-02-20"), at("2026-02-24"))
}

fn twelve_days(harness: &TestHarness) -> Vec<Vec<u8>> {
    harness.items(at("2026-02-12"), at("2026-02-24"))
}

#[tokio::test]
async fn streamed_window_is_complete_and_cached() {
    for (accept, coding) in [("application/json", ""), ("application/x-ndjson", ""), ("application/json", "gzip")] {
        let harness = start_sequential().await;
        let request = TestRequest::get(FOUR_DAYS).header("accept", accept);
        let streamed = harness.send(&request.clone().header("accept-encoding", coding)).await;
        assert_eq!(streamed.cache_status(), "koregate; fwd=miss; ttl=31536000; detail=\"streamed\"");
        let calls = harness.calls();
        assert!((FOUR_DAYS_PAGES..=FOUR_DAYS_CALLS).contains(&calls), "{calls} calls");
        let expected = four_days(&harness);
        if coding == "gzip" {
            let body = streamed.gunzip();
            assert!(body.starts_with(b"{\"data\":[{") && body.ends_with(b"],\"numResults\":2000,\"hasMore\":false}"));
        } else if accept == "application/json" {
            streamed.assert_complete(&expected, "streamed");
        } else {
            assert_eq!(streamed.body, harness.send(&request).await.body, "the streamed body equals the cached one");
        }
        let cached = harness.get(FOUR_DAYS).await;
        cached.assert_hit();
        cached.assert_complete(&expected, "cached");
        assert_eq!(harness.calls(), calls);
    }
}

#[tokio::test]
async fn stream_starts_before_fetch_ends() {
    for order in [SortOrder::Ascending, SortOrder::Descending] {
        let harness = start().await;
        harness.control.set_order(order);
        // The upstream never answers the call for the page in the middle.
        harness.control.set_faults(FaultPlan::always(Fault::Slow).after(TWELVE_DAYS_PAGES / 2));
        let mut response = harness.gateway.open(&TestRequest::get(TWELVE_DAYS)).await;
        let beginning = [b"{\"data\":[", &twelve_days(&harness)[0][..]].concat();
        assert!(response.read(beginning.len()).await.starts_with(&beginning), "{order:?}");
    }
}

#[tokio::test]
async fn stream_fault_at_any_page_aborts_or_completes() {
    let faults =
        [Fault::Status500, Fault::Truncated, Fault::Garbage, Fault::EmptyPage, Fault::WrongCount, Fault::Reset];
    let encodings =
        [("application/json", "identity"), ("application/x-ndjson", "gzip"), ("application/x-ndjson", "identity")];
    let harness = start().await;
    let expected = twelve_days(&harness);
    let mut complete = 0;
    for (n, after) in (0..TWELVE_DAYS_CALLS).step_by(7).enumerate() {
        let (accept, coding) = encodings[n % encodings.len()];
        harness.gateway.purge("from=2026-02-01&to=2026-02-28").await;
        harness.control.reset_counts();
        harness.control.set_faults(FaultPlan::always(faults[n % faults.len()]).after(after));
        let request = TestRequest::get(TWELVE_DAYS).header("accept", accept).header("accept-encoding", coding);
        match harness.gateway.try_send(&request).await {
            Err(_) => {}
            Ok(response) if response.status != 200 => assert!(after < 3, "{after}: {}", response.text()),
            Ok(response) => {
                complete += 1;
                let text = response.text();
                assert_eq!(text.matches("\"segmentID\"").count(), expected.len(), "{after}");
            }
        }
        harness.control.clear_faults();
        harness.get(TWELVE_DAYS).await.assert_complete(&expected, "after the fault");
    }
    assert!(complete <= 1, "only a fault behind the last page has no effect");
}

#[tokio::test]
async fn broken_stream_resets_connection() {
    for accept in ["application/json", "application/x-ndjson"] {
        let harness = start().await;
        harness.control.set_faults(FaultPlan::always(Fault::Status500).after(TWELVE_DAYS_PAGES / 2));
        let request = TestRequest::get(TWELVE_DAYS).header("accept", accept);
        let (received, ended) = read_to_end(harness.gateway.addr(), &request.to_bytes(harness.gateway.addr())).await;
        assert!(received.is_empty() || received.starts_with(b"HTTP/1.1 200"), "the error comes after the head");
        assert_eq!(ended, Some(ErrorKind::ConnectionReset), "{accept}");
    }
}

#[tokio::test]
async fn short_or_limited_window_is_not_streamed() {
    let harness = start().await;
    assert!(harness.get(ONE_DAY).await.cache_status().contains("calls=5"));
    let dense = TestHarness::start(exact_profile(1700, 6), &Settings::one_second_limit()).await;
    assert!(dense.get("from=2026-02-22&to=2026-02-22").await.cache_status().contains("calls=17"));
    assert!(harness.get(format!("{FOUR_DAYS}&limit=1500")).await.cache_status().contains("calls=15"));
}

#[tokio::test]
async fn slow_reader_without_memory_costs_no_extra_calls() {
    let settings = Settings::one_second_limit();
    let settings = settings.section("cache", "memory = '1KiB'").section("upstream", "max_concurrency = 1");
    let harness = TestHarness::start(exact_profile(500, 14), &settings).await;
    let response = harness.gateway.open(&TestRequest::get(TWELVE_DAYS)).await;
    let dry_run = TestRequest::get(TWELVE_DAYS).dry_run();
    until_async("the fetch to pause", async || {
        harness.send(&dry_run).await.json()["under_way"].as_array().unwrap().is_empty()
    })
    .await;
    assert!(harness.calls() < TWELVE_DAYS_PAGES, "{} calls for an unread response", harness.calls());
    response.finish().await.assert_complete(&twelve_days(&harness), "the slow reader");
    assert!((TWELVE_DAYS_PAGES..=TWELVE_DAYS_CALLS).contains(&harness.calls()), "{} calls", harness.calls());
}

#[tokio::test]
async fn streamed_and_paged_requests_share_calls() {
    let harness = start_sequential().await;
    let request = TestRequest::get(FOUR_DAYS);
    let (first, last) = (request.clone().and("limit=10"), request.clone().and("offset=1990"));
    harness.gateway.open_connections(4).await;
    let requests = [request.clone(), first, request, last];
    let responses = harness.gateway.send_all(&requests).await;
    let expected = four_days(&harness);
    for (response, items) in responses.iter().zip([&expected[..], &expected[..10], &expected[..], &expected[1990..]]) {
        assert!(response.has_items(items));
    }
    assert!((FOUR_DAYS_PAGES..=FOUR_DAYS_CALLS).contains(&harness.calls()), "{} calls", harness.calls());
}
