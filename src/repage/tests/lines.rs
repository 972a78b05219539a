//! Runs that wait for a place.

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use super::*;
use crate::upstream::{Class, Waiting};

/// An account with one place for each party, and an upstream that never answers but tells of each call.
struct Rig {
    layer: RepageLayer,
    called: mpsc::UnboundedSender<Arc<Demand>>,
    calls: mpsc::UnboundedReceiver<Arc<Demand>>,
}

impl Rig {
    fn new() -> Self {
        let (called, calls) = mpsc::unbounded_channel();
        let layer = RepageLayer {
            window: window(UpperBound::Exclusive),
            clock: Clock::manual(Moment::from_seconds(0)),
            queue_timeout: Duration::from_secs(30),
            walk_bytes: usize::MAX,
            proven_each: usize::MAX,
            places: Arc::new(HashMap::from([("a".into(), Places::new(1))])),
        };
        Self { layer, called, calls }
    }

    /// A run of this class on its way, and the one who waits for it.
    async fn run(&self, class: Class) -> (Arc<Demand>, Waiting, JoinHandle<Result<(), RepageError>>) {
        let called = self.called.clone();
        let below = service_fn(move |request: PageRequest| {
            request.demand.begin(Duration::ZERO);
            called.send(request.demand).unwrap();
            std::future::pending::<Result<Page, QuotaError>>()
        });
        let series =
            Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false };
        let (deliver, _) = mpsc::unbounded_channel();
        let demand = Demand::new(Asker { class, ..Asker::anyone() });
        let waiting = demand.join(demand.cause().clone(), Span::EVER).unwrap();
        let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(60));
        let run = Run { series: series.into(), span, placed: Placed::Checked, demand: demand.clone(), deliver };
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
async fn what_becomes_urgent_leaves_the_line_of_what_is_not() {
    let mut rig = Rig::new();
    let (first, ..) = rig.run(Class::Background).await;
    assert!(rig.calls_for(&first));
    let (second, _waiting, _running) = rig.run(Class::Background).await;
    let (third, _waiting_too, _running_too) = rig.run(Class::Background).await;
    assert!(rig.calls.is_empty(), "there is one place");
    let urgent = third.join(Asker::anyone(), Span::EVER);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(rig.calls_for(&third), "what somebody waits for has a place of its own");
    assert!(!second.has_begun());
    drop(urgent);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_leaves_the_line_and_makes_no_call() {
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

#[tokio::test(start_paused = true)]
async fn one_for_whom_no_place_comes_free_is_told_so() {
    let rig = Rig::new();
    let (_, _waiting, _running) = rig.run(Class::Interactive).await;
    let (_, _waiting_too, running) = rig.run(Class::Interactive).await;
    let begun = Instant::now();
    assert!(matches!(running.await.unwrap(), Err(RepageError::NoPlace(_))));
    assert_eq!(begun.elapsed().as_secs(), 29);
}
