//! Runs that wait for a permit.

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::request::Priority;
use crate::request::WaiterGuard;

/// An account with one permit for each party, and an upstream that never answers but tells of each call.
struct PermitHarness {
    layer: PagingLayer,
    called: mpsc::UnboundedSender<Arc<RunWaiters>>,
    calls: mpsc::UnboundedReceiver<Arc<RunWaiters>>,
}

impl PermitHarness {
    fn new() -> Self {
        let (called, calls) = mpsc::unbounded_channel();
        let limiters = RunLimiters::single("a", RunLimiter::new(1));
        let clock = Clock::manual(Timestamp::from_seconds(0));
        let layer = PagingLayer::new(&window(UpperBound::Exclusive), &limiters, &clock);
        Self { layer, called, calls }
    }

    /// A run of this class on its way, and the one who waits for it.
    async fn run(
        &self,
        priority: Priority,
    ) -> (Arc<RunWaiters>, WaiterGuard, JoinHandle<Result<FetchedRun<RunPart>, PagingError>>) {
        let called = self.called.clone();
        let below = service_fn(move |request: PageRequest| {
            request.waiters.begin(Duration::ZERO);
            called.send(request.waiters).unwrap();
            std::future::pending::<Result<Page, QuotaError>>()
        });
        let waiters = RunWaiters::new(Requester { priority, ..Requester::anyone() });
        let waiting = waiters.join(waiters.cause().clone(), None).unwrap();
        // Long enough not to be short.
        let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(2 * 24 * 3600));
        let (run, _told) = new_run(interval, PlacementCheck::Checked, waiters.clone());
        let running = tokio::spawn(self.layer.layer(below).oneshot(run));
        tokio::time::sleep(Duration::from_millis(1)).await;
        (waiters, waiting, running)
    }

    /// Whether the next call is one for this run.
    fn calls_for(&mut self, waiters: &Arc<RunWaiters>) -> bool {
        self.calls.recv().now_or_never().flatten().is_some_and(|called| Arc::ptr_eq(&called, waiters))
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_run_leaves_the_line_of_background_runs() {
    let mut harness = PermitHarness::new();
    let (first, ..) = harness.run(Priority::Background).await;
    assert!(harness.calls_for(&first));
    let (second, _waiting, _running) = harness.run(Priority::Background).await;
    let (third, _waiting_too, _running_too) = harness.run(Priority::Background).await;
    assert!(harness.calls.is_empty(), "there is one permit");
    let urgent = third.join(Requester::anyone(), None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(harness.calls_for(&third), "what somebody waits for has a permit of its own");
    assert!(!second.has_begun());
    drop(urgent);
}

#[tokio::test(start_paused = true)]
async fn abandoned_run_leaves_the_line_without_a_call() {
    let mut harness = PermitHarness::new();
    let (first, _, running) = harness.run(Priority::Interactive).await;
    assert!(harness.calls_for(&first));
    let (_, waiting, left) = harness.run(Priority::Interactive).await;
    let (third, _waiting, _running) = harness.run(Priority::Interactive).await;
    drop(waiting);
    let ended = left.await.unwrap();
    assert!(matches!(ended, Err(PagingError::Quota(QuotaError::Abandoned))), "{ended:?}");
    running.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(harness.calls_for(&third));
}
