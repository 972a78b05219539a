//! Simulated machines. Each has a tokio runtime of one thread with a paused clock, and all take turns on one thread of
//! the test, so that the order of events depends on the seed only.

use std::cell::Cell;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// How the code that runs finds the time.
#[derive(Clone, Copy)]
enum CurrentTime {
    /// By the clock of the machine that runs, on which the simulation began at this instant.
    Since(Instant),
    /// No machine runs.
    At(Duration),
}

thread_local! {
    static CURRENT: Cell<CurrentTime> = const { Cell::new(CurrentTime::At(Duration::ZERO)) };
}

/// Time since the simulation began, on the machine whose code runs.
pub(super) fn now() -> Duration {
    match CURRENT.get() {
        CurrentTime::Since(epoch) => Instant::now().saturating_duration_since(epoch),
        CurrentTime::At(at) => at,
    }
}

/// Waits until a time since the simulation began.
pub(super) async fn sleep_until(at: Duration) {
    tokio::time::sleep(at.saturating_sub(now())).await;
}

/// A machine.
pub(super) struct Host {
    runtime: Runtime,
    epoch: Instant,
    suspended_until: Duration,
}

impl Host {
    /// A machine that starts `at` this time since the simulation began.
    pub(super) fn start(at: Duration) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // A runtime's paused clock begins somewhere; `at` makes it begin late enough for the epoch to be before it.
        let epoch = runtime.block_on(async {
            let begun = Instant::now();
            tokio::time::advance(at).await;
            begun
        });
        Self { runtime, epoch, suspended_until: Duration::ZERO }
    }

    /// Suspends all tasks until `until`, while time goes on.
    pub(super) fn suspend(&mut self, until: Duration) {
        self.suspended_until = self.suspended_until.max(until);
    }

    /// Whether the machine is suspended `at` this time.
    pub(super) fn is_suspended(&self, at: Duration) -> bool {
        self.suspended_until > at
    }

    /// Runs `work` within the machine at its present time.
    pub(super) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        self.block_on(async { work() })
    }

    /// Runs all tasks up to `target`. After a suspension, the clock jumps.
    pub(super) fn run_until(&self, target: Duration) {
        if self.is_suspended(target) {
            return;
        }
        self.block_on(async {
            if let Some(missed) = self.suspended_until.checked_sub(now())
                && !missed.is_zero()
            {
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep_until(self.epoch + target).await;
        });
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.set(CurrentTime::Since(self.epoch));
        let (result, at) = self.runtime.block_on(async { (work.await, now()) });
        CURRENT.set(CurrentTime::At(at));
        result
    }

    /// Ends all tasks at once.
    pub(super) fn kill(self, at: Duration) {
        CURRENT.set(CurrentTime::At(at));
        drop(self.runtime);
    }
}
