//! Limits on clients that do not keep what is cached from being served.

use crate::support::{SETTLED_DAY, Settings, TestHarness, TestRequest, at, exact_profile};

#[tokio::test]
async fn cached_windows_are_served_while_other_requests_fill_the_limit() {
    let settings = Settings::default().section("server", "max_requests = 1");
    let harness = TestHarness::start(exact_profile(250, 4), &Settings::default()).await;
    let proxy = harness.start_proxy().await;
    let gateway = harness.add_replica_behind(&proxy, &settings).await;
    gateway.get(SETTLED_DAY).await.page();
    proxy.hold_requests();
    let calls = proxy.calls();
    let waiting = TestRequest::get("from=2026-02-22&to=2026-02-22");
    let (answer, ()) = tokio::join!(gateway.send(&waiting), async {
        proxy.until_calls_exceed(calls).await;
        let page = TestRequest::get(format!("{SETTLED_DAY}&offset=100&limit=7"));
        let hit = gateway.send(&page).await;
        assert!(hit.has_items(&harness.settled_day()[100..107]), "{}", hit.text());
        hit.assert_hit();
        let refused = gateway.get("from=2026-02-21&to=2026-02-21").await;
        refused.assert_problem(503, "not cached");
        assert_eq!(refused.header("retry-after"), Some("1"));
        proxy.release();
    });
    answer.assert_complete(&harness.items(at("2026-02-22"), at("2026-02-23")), "the window that was waited for");
}
