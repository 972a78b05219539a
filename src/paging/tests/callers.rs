//! Runs whose callers have spent their own upstream calls.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::quota::CallerLimitExceeded;

/// The second page is refused until `is_free`: the callers that wait for the run have spent their calls for an hour.
fn limited(rows: Upstream, is_free: &Arc<AtomicBool>) -> impl Fn(PageRequest) -> Result<Page, QuotaError> + use<> {
    let (rows, is_free) = (Mutex::new(rows), is_free.clone());
    move |request: PageRequest| {
        let mut rows = rows.lock().unwrap();
        if rows.calls > 0 && !is_free.load(Ordering::Relaxed) {
            return Err(QuotaError::CallerLimit(CallerLimitExceeded::an_hour(Duration::from_mins(50))));
        }
        Ok(rows.answer(&request))
    }
}

#[tokio::test(start_paused = true)]
async fn begun_run_pauses_until_a_caller_may_pay() {
    let rows = (0..150).map(|second| (Timestamp::from_seconds(second), format!("ac-{second:06}"))).collect();
    let upstream = upstream(rows, Rows::Ascending, UpperBound::Exclusive);
    let is_free = Arc::new(AtomicBool::new(false));
    let answer = Arc::new(limited(upstream, &is_free));
    let below = service_fn(move |request| {
        let page = answer(request);
        async move { page }
    });
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(150));
    let waiters = RunWaiters::new(Requester::anyone());
    let (mut run, mut told) = new_run(interval, PlacementCheck::Checked, waiters.clone());
    run.planned = Some(150.0);
    let layer = PagingLayer::new(&window(UpperBound::Exclusive), &RunLimiters::default(), &settled());
    let running = tokio::spawn(layer.layer(below).oneshot(run));
    let spent = |status: &RunStatus| matches!(status.phase, RunPhase::CallersSpent { .. });
    let status = told.wait_for(spent).await.unwrap().clone();
    let RunPhase::CallersSpent { callers, .. } = status.phase else { panic!("{status:?}") };
    assert_eq!((status.pages, callers.iter().map(|name| &**name).collect::<Vec<_>>()), (1, vec!["c"]));
    // Another request joins, long before the hour is over.
    is_free.store(true, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let _joined = waiters.join(Requester { caller: "d".into(), ..Requester::anyone() }, None);
    let fetched = running.await.unwrap().unwrap();
    assert_eq!((together(fetched).len(), begun.elapsed()), (150, Duration::ZERO), "the first page was not lost");
}
