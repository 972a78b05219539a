//! Tests of a scheduler whose limits are changed by a reload.

use super::*;

fn limits(requests: u32) -> [QuotaLimit; 1] {
    [QuotaLimit { requests, per: Duration::from_mins(1) }]
}

#[tokio::test(start_paused = true)]
async fn waiting_call_begins_when_the_limit_is_raised() {
    let scheduler = scheduler(&[(1, 60)], 120);
    call(&scheduler, &sole_run()).await.unwrap();
    let waiting = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { call(&scheduler, &sole_run()).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(scheduler.queue_length(), 1);
    scheduler.configure(&limits(2), 0.0);
    assert!(waiting.await.unwrap().unwrap() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn calls_from_before_count_against_a_lowered_limit() {
    let scheduler = scheduler(&[(10, 60)], 120);
    for _ in 0..4 {
        call(&scheduler, &sole_run()).await.unwrap();
    }
    let last = Instant::now();
    scheduler.configure(&limits(3), 0.0);
    let usage: Vec<_> = scheduler.limit_usage().iter().map(|usage| (usage.limit.requests, usage.remaining)).collect();
    assert_eq!(usage, [(3, 0)]);
    call(&scheduler, &sole_run()).await.unwrap();
    // Two of the four have left the window by then.
    assert!(last.elapsed() > Duration::from_secs(59), "{:?}", last.elapsed());
}
