//! The primitives of shuttle, and the exploration of schedules.

use std::time::Duration;

pub(crate) use shuttle::future::{JoinHandle, spawn};
pub(crate) use shuttle::sync::atomic::AtomicBool;
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock};

/// A `OnceLock`. Another task may run before and after each access.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    cell: std::sync::OnceLock<T>,
    /// Its accesses are the points at which the schedule chooses.
    point: AtomicBool,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { cell: std::sync::OnceLock::new(), point: AtomicBool::new(false) }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.choose();
        let value = self.cell.get();
        self.choose();
        value
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.choose();
        let result = self.cell.set(value);
        self.choose();
        result
    }

    fn choose(&self) {
        self.point.load(std::sync::atomic::Ordering::SeqCst);
    }
}

/// A task in place of a thread for work that blocks.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn(async move { work() })
}

/// Ends at any time: the schedule says when.
pub(crate) async fn sleep(_: Duration) {
    shuttle::future::yield_now().await;
}

#[cfg(test)]
pub(crate) use self::explore::explore;

#[cfg(test)]
mod explore {
    use std::panic;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};

    /// Schedules of each kind that one test runs, unless `INTERLEAVINGS` says otherwise.
    const DEFAULT_SCHEDULES: usize = 3_000;
    /// Depth of the bugs that are looked for: how many steps must come in a certain order. Most bugs need no more.
    const BUG_DEPTH: usize = 3;
    /// Bytes of the stack of a task: unoptimised, a request of the whole stage needs more than shuttle's 32 KiB.
    const STACK_SIZE: usize = 1 << 20;

    /// Runs `scenario` with schedules in which each task runs as long as it can but for a few forced switches
    /// (probabilistic concurrency testing; Burckhardt et al., 2010), and with as many random ones. Panics with the
    /// first schedule that fails.
    pub(crate) fn explore(scenario: impl Fn() + Send + Sync + 'static) {
        // Timers of tokio need a runtime. Nothing drives it, so they never expire.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let schedules = std::env::var("INTERLEAVINGS").map_or(DEFAULT_SCHEDULES, |count| count.parse().unwrap());
        let number = Arc::new(AtomicUsize::new(0));
        number_panics(number.clone());
        let scenario = Arc::new(move || {
            number.fetch_add(1, Ordering::Relaxed);
            scenario();
        });
        let random = scenario.clone();
        let mut config = Config::new();
        config.stack_size = STACK_SIZE;
        Runner::new(PctScheduler::new(BUG_DEPTH, schedules), config.clone()).run(move || scenario());
        Runner::new(RandomScheduler::new(schedules), config).run(move || random());
    }

    /// Has each panic say in which schedule it is. Unwinding may end in an abort, as destructors take locks.
    fn number_panics(number: Arc<AtomicUsize>) {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            eprintln!("In schedule {}:", number.load(Ordering::Relaxed));
            report(panicked);
        }));
    }
}
