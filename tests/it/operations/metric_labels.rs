//! Labels of the metrics: a caller with access to all streams cannot add labels by inventing stream names.

use crate::support::{SETTLED_DAY, STREAM, Settings, TestHarness, TestRequest, exact_profile, exact_stream};

const FUTURE: &str = "from=2027-02-23&to=2027-02-23";

/// Three streams with items, configured by name only if `settings` does so.
async fn start(settings: &Settings) -> TestHarness {
    let mut profile = exact_profile(50, 4);
    profile.streams.extend(["st-2", "st-3"].map(|id| exact_stream(id, 50)));
    TestHarness::start(profile, settings).await
}

/// The distinct stream labels of all metrics.
async fn labels(harness: &TestHarness) -> Vec<String> {
    let metrics = harness.gateway.metrics().await;
    let of_line = |line: &str| Some(line.split_once("stream=\"")?.1.split_once('"')?.0.to_owned());
    let mut labels: Vec<String> = metrics.text().lines().filter_map(of_line).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

#[tokio::test]
async fn invented_stream_gets_no_label() {
    let harness = start(&Settings::default()).await;
    for number in 0..40 {
        let stream = format!("invented-{number}");
        for request in [TestRequest::get(SETTLED_DAY).dry_run(), TestRequest::get(FUTURE)] {
            assert_eq!(harness.send(&request.stream(&stream)).await.status, 200);
        }
    }
    assert_eq!(harness.calls(), 0);
    assert_eq!(labels(&harness).await, ["-", "other"]);
    let long = "x".repeat(8 << 10);
    let refused = harness.send(&TestRequest::get(SETTLED_DAY).stream(&long)).await;
    assert!(refused.status == 400 && refused.text().contains("streamId"), "{}", refused.text());
}

#[tokio::test]
async fn streams_over_bound_share_label() {
    let settings = Settings::default().section("admin", "metric_streams = 1").account("streams = ['*']");
    let harness = start(&settings).await;
    for stream in [STREAM, "st-2", "st-3", STREAM] {
        // A stream without items gets no label yet.
        for window in [FUTURE, SETTLED_DAY] {
            harness.send(&TestRequest::get(window).stream(stream)).await.page();
        }
    }
    assert_eq!(labels(&harness).await, ["other", STREAM]);
}

#[tokio::test]
async fn configured_stream_always_has_label() {
    let settings = Settings::default().section("admin", "metric_streams = 0");
    let harness = start(&settings.account("streams = ['st-2', 'st-3', 'st-test']")).await;
    for stream in ["st-2", "st-3"] {
        harness.send(&TestRequest::get(FUTURE).stream(stream)).await.page();
    }
    assert_eq!(labels(&harness).await, ["st-2", "st-3"]);
}
