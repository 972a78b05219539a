//! A gateway whose clock differs from the upstream's.

use std::time::Duration;

use crate::support::{Clock, DAY, Settings, TestHarness, TestRequest, at, profile};

const TODAY: &str = "from=2026-02-25&to=2026-02-25";

#[tokio::test]
async fn clock_briefly_ahead_settles_nothing() {
    let harness = TestHarness::start(profile(400, 5), &Settings::default()).await;
    harness.clock.set(at("2026-02-25T12:00:00Z"));
    let clock = Clock::manual(harness.clock.now() + 2 * DAY);
    let gateway = harness.add_replica_with_clock(&Settings::default(), &clock).await;
    let at_noon = gateway.get(TODAY).await.page().items().count();
    let (start, end) = (at("2026-02-25"), at("2026-02-26"));

    // The clock is corrected; the day ends, and settles.
    for now in [harness.clock.now() + DAY, harness.clock.now() + 3 * DAY] {
        harness.clock.set(now);
        clock.set(now);
        let items: Vec<_> = gateway.get(TODAY).await.page().items().map(<[u8]>::to_vec).collect();
        assert!(items.len() > at_noon && items == harness.items(start, end), "{at_noon}, then {}", items.len());
    }
    assert_eq!(gateway.readiness().await, "ready");
}

#[tokio::test]
async fn clock_wrong_degrades_until_corrected() {
    let harness = TestHarness::start(profile(400, 5), &Settings::default()).await;
    let clock = Clock::manual(harness.clock.now() - Duration::from_mins(10));
    let gateway = harness.add_replica_with_clock(&Settings::default(), &clock).await;
    for hour in 10..13 {
        gateway
            .send(&TestRequest::get(format!("from=2026-02-20T{hour}:00:00&to=2026-02-20T{hour}:59:59")))
            .await
            .page();
    }
    let readiness = gateway.get_admin("/readyz").await.json();
    assert_eq!(readiness["status"], "degraded");
    assert!(readiness["problems"][0].as_str().unwrap().contains("clock"), "{readiness}");
    assert!(gateway.metrics().await.text().contains("koregate_clock_wrong 1"));
    let settled = || TestRequest::get("from=2026-02-20T15:00:00&to=2026-02-20T15:59:59");
    harness.control.reset_counts();
    gateway.send(&settled()).await.page();
    gateway.send(&settled()).await.page();
    assert_eq!(harness.calls(), 2, "no response is cached as settled");
    clock.set(harness.clock.now());
    // The first response shows that the clock is right.
    gateway.send(&settled()).await.page();
    gateway.send(&settled()).await.page();
    assert_eq!((harness.calls(), gateway.get_admin("/readyz").await.json()["status"].clone()), (3, "ready".into()));
}
