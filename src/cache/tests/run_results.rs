//! Runs that are shortened, cut, torn, oversized or failed.

use super::*;

#[tokio::test(start_paused = true)]
async fn shortened_run_leaves_the_rest_to_the_next_run() {
    let mut harness = TestHarness::new();
    let all = harness.request(0, 300, Priority::Interactive).await;
    let first = harness.next_run().await;
    assert_eq!((first.interval(), first.run.planned), ((0, 300), None));
    let late = harness.request(200, 250, Priority::Interactive).await;
    harness.assert_no_run().await;
    first.page();
    first.shorten(100, 4_000.0);
    // The request behind the new end fetches its part; the other one waits for the run that it needs next.
    let second = harness.next_run().await;
    assert_eq!(second.interval(), (200, 250));
    harness.assert_no_run().await;
    second.succeed();
    assert_whole(&answered(late).await, 200, 250);
    first.succeed_up_to(100);
    let third = harness.next_run().await;
    assert_eq!(third.interval(), (100, 300), "open data is not stored without freshness tiers");
    third.succeed();
    assert_whole(&answered(all).await, 0, 300);
    harness.assert_no_run().await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn run_cut_at_checkpoint_serves_its_verified_part() {
    let mut harness = TestHarness::new();
    let (all, part) =
        (harness.request(0, 100, Priority::Interactive).await, harness.request(0, 10, Priority::Interactive).await);
    let run = harness.next_run().await;
    assert_eq!(run.interval(), (0, 100));
    run.call();
    run.succeed_up_to(60);
    let part = answered(part).await;
    let rest = harness.next_run().await;
    assert_eq!(rest.interval(), (60, 100));
    rest.succeed();
    let all = answered(all).await;
    assert_whole(&all, 0, 100);
    assert_eq!(part.calls + all.calls, 2, "calls are reported once");
    harness.assert_idle();
}

/// A run that was cut has learnt that more items follow.
#[tokio::test(start_paused = true)]
async fn run_cut_near_now_leaves_no_empty_chunk_ahead() {
    let mut harness = TestHarness::with_tier(Duration::from_hours(24), Duration::from_secs(30));
    let pending = harness.request(4_000, 5_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    run.succeed_up_to(4_990);
    let rest = harness.next_run().await;
    assert_eq!(rest.interval(), (4_990, 5_000));
    rest.succeed();
    assert_whole(&answered(pending).await, 4_000, 5_000);
    harness.assert_idle();
}

/// A run that starts beside the one that is needed next may fail without failing the answer.
#[tokio::test(start_paused = true)]
async fn failed_additional_run_is_fetched_again() {
    let mut harness = TestHarness::new();
    let late = harness.request(200, 300, Priority::Interactive).await;
    let second = harness.next_run().await;
    second.call();
    let all = harness.request(0, 300, Priority::Interactive).await;
    let first = harness.next_run().await;
    assert_eq!(first.interval(), (0, 200));
    second.finish(Err(PagingError::Torn(Interval::default())));
    assert!(late.await.unwrap().is_err());
    first.succeed();
    let again = harness.next_run().await;
    assert_eq!(again.interval(), (200, 300));
    again.succeed();
    assert_whole(&answered(all).await, 0, 300);
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn oversized_run_is_fetched_again_in_small_runs() {
    let mut harness = TestHarness::new();
    let pending = harness.request(-90_000, -80_000, Priority::Interactive).await;
    let run = harness.next_run().await;
    run.call();
    run.finish(Err(PagingError::Oversized));
    let mut lengths = Vec::new();
    while !pending.is_finished() {
        let run = harness.next_run().await;
        lengths.push(run.interval().1 - run.interval().0);
        run.succeed();
        settle().await;
    }
    assert!(lengths.len() > 1 && lengths[0] <= 3_600, "{lengths:?}");
    assert_whole(&answered(pending).await, -90_000, -80_000);
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn torn_second_is_not_fetched_again_at_once() {
    let mut harness = TestHarness::new();
    let refused = |answer: Result<Result<WindowAnswer, CacheError>, _>| {
        assert!(matches!(answer.unwrap(), Err(CacheError::Paging(PagingError::Torn(_)))));
    };
    for pause in [30, 60] {
        let pending = harness.request(0, 100, Priority::Interactive).await;
        let run = harness.next_run().await;
        run.call();
        run.finish(Err(PagingError::Torn(interval(50, 51))));
        refused(pending.await);
        refused(harness.request(0, 100, Priority::Interactive).await.await);
        refused(harness.request(20, 60, Priority::Interactive).await.await);
        harness.assert_no_run().await;
        let beside = harness.request(51, 100, Priority::Interactive).await;
        harness.next_run().await.succeed();
        assert_whole(&answered(beside).await, 51, 100);
        tokio::time::advance(Duration::from_secs(pause)).await;
    }
    let again = harness.request(0, 100, Priority::Interactive).await;
    harness.next_run().await.succeed();
    assert_whole(&answered(again).await, 0, 100);
}

async fn panic_in_run(_: PackedRun) -> RunOutcome {
    panic!("a defect of the gateway")
}

/// A panic is a defect of the gateway: it is neither the upstream's failure nor a sign of moving rows.
#[tokio::test(start_paused = true)]
async fn panicked_run_fails_its_request_and_counts_as_lost() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (.., cache) = layer(1 << 30, Vec::new());
    let answer =
        cache.layer(service_fn(panic_in_run)).oneshot(query(series(), interval(0, 100), Requester::anyone())).await;
    assert!(matches!(answer, Err(CacheError::FetchLost)), "{answer:?}");
    assert!(metrics.render().contains(r#"koregate_not_stored_total{reason="lost"} 1"#), "{}", metrics.render());
}
