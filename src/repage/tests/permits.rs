//! Runs that wait for a permit.

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::upstream::{Class, Waiting};

/// An account with one permit for each party, and an upstream that never answers but tells of each call.
struct Rig {
    layer: RepageLayer,
    called: mpsc::UnboundedSender<Arc<Demand>>,
    calls: mpsc::UnboundedReceiver<Arc<Demand>>,
}

impl Rig {
    fn new() -> Self {
        let (called, calls) = mpsc::unbounded_channel();
        let limiters = RunLimiters::single("a", RunLimiter::new(1));
        let clock = Clock::manual(Moment::from_seconds(0));
        let layer = RepageLayer::new(&window(UpperBound::Exclusive), &limiters, &clock);
        Self { layer, called, calls }
    }

    /// A run of this class on its way, and the one who waits for it.
    async fn run(&self, class: Class) -> (Arc<Demand>, Waiting, JoinHandle<Result<Fetched<RunPart>, RepageError>>) {
        let called = self.called.clone();
        let below = service_fn(move |request: PageRequest| {
            request.demand.begin(Duration::ZERO);
            called.send(request.demand).unwrap();
            std::future::pending::<Result<Page, QuotaError>>()
        });
        let demand = Demand::new(Asker { class, ..Asker::anyone() });
        let waiting = demand.join(demand.cause().clone(), None).unwrap();
        // Long enough not to be short.
        let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(2 * 24 * 3600));
        let (run, _told) = new_run(span, Placed::Checked, demand.clone());
        let running = tokio::spawn(self.layer.layer(below).oneshot(run));
        tokio::time::sleep(Duration::from_millis(1)).await;
        (demand, waiting, running)
    }

    /// Whether the next call is one for this run.
    fn calls_for(&mut self, demand: &Arc<Demand>) -> bool {
        self.calls.recv().now_or_never().flatten().is_some_and(|called| Arc::ptr_eq(&called, demand))
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_run_leaves_the_line_of_background_runs() {
    let mut rig = Rig::new();
    let (first, ..) = rig.run(Class::Background).await;
    assert!(rig.calls_for(&first));
    let (second, _waiting, _running) = rig.run(Class::Background).await;
    let (third, _waiting_too, _running_too) = rig.run(Class::Background).await;
    assert!(rig.calls.is_empty(), "there is one permit");
    let urgent = third.join(Asker::anyone(), None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(rig.calls_for(&third), "what somebody waits for has a permit of its own");
    assert!(!second.has_begun());
    drop(urgent);
}

#[tokio::test(start_paused = true)]
async fn abandoned_run_leaves_the_line_without_a_call() {
    let mut rig = Rig::new();
    let (first, _, running) = rig.run(Class::Interactive).await;
    assert!(rig.calls_for(&first));
    let (_, waiting, left) = rig.run(Class::Interactive).await;
    let (third, _waiting, _running) = rig.run(Class::Interactive).await;
    drop(waiting);
    let ended = left.await.unwrap();
    assert!(matches!(ended, Err(RepageError::Quota(QuotaError::Unwanted))), "{ended:?}");
    running.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(rig.calls_for(&third));
}
