//! Callers that use the quota up with windows that nobody has requested before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::support::{
    Control, HttpClient, ItemFilter, Profile, STREAM, StreamProfile, TestRequest, TestResponse, UpperBound, Window, at,
    exact_stream, pause, until_polled,
};

/// Days of data.
const DAYS: u32 = 40;
/// The first of them.
const FIRST_DAY: &str = "2026-01-17";
/// Windows of all days: eight of each ten minutes, so that no two are fetched together.
const WINDOWS: u32 = DAYS * 144;
/// From one window to the next, so that windows in flight together lie far apart.
const STRIDE: u32 = 1009;
/// Longest wait for answers.
const SERVING_LIMIT: Duration = Duration::from_mins(3);

/// The upstream's data.
pub(super) fn profile() -> Profile {
    Profile {
        streams: vec![StreamProfile { flat: true, ..exact_stream(STREAM, 480) }],
        days: DAYS,
        ..Profile::default()
    }
}

/// What callers have asked for, and how it was answered.
pub(super) struct Load {
    control: Control,
    next: AtomicU32,
    /// The number of the present phase, by which a request is known to have begun after an event.
    phase: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    /// Requests whose connection broke.
    broken: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// The numbers of a [`Load`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) broken: u64,
}

/// The callers of one replica.
#[derive(Clone)]
pub(super) struct Callers {
    /// The address of the replica while it runs.
    pub(super) addr: watch::Receiver<Option<SocketAddr>>,
    /// The newest phase of which a request was served.
    pub(super) newest: Arc<AtomicU64>,
}

impl Load {
    pub(super) fn new(control: Control) -> Self {
        let [served, refused, broken, phase] = Default::default();
        let (next, wrong) = Default::default();
        Self { control, next, phase, served, refused, broken, wrong }
    }

    /// One caller: asks for a window until it has it, and then for the next one.
    pub(super) async fn call_repeatedly(self: Arc<Self>, mut callers: Callers) {
        let client = HttpClient::default();
        let mut window = self.next_window();
        loop {
            let Ok(addr) = callers.addr.wait_for(Option::is_some).await.map(|addr| addr.unwrap()) else { return };
            let phase = self.phase.load(Ordering::Relaxed);
            match client.try_send(addr, &TestRequest::get(&window.query)).await {
                Err(_) => drop(self.broken.fetch_add(1, Ordering::Relaxed)),
                Ok(response) if [502, 503, 504].contains(&response.status.as_u16()) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response) => {
                    self.compare(&window, &response);
                    self.served.fetch_add(1, Ordering::Relaxed);
                    callers.newest.fetch_max(phase, Ordering::Relaxed);
                    window = self.next_window();
                    continue;
                }
            }
            pause().await;
        }
    }

    fn next_window(&self) -> Window {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < WINDOWS, "all windows have been requested");
        let from = at(FIRST_DAY) + Duration::from_mins(10) * (number * STRIDE % WINDOWS);
        Window::formatted(from, from + Duration::from_mins(8), UpperBound::Inclusive, "%Y-%m-%dT%H:%M:%S")
    }

    fn compare(&self, window: &Window, response: &TestResponse) {
        let expected = self.control.expected_until(STREAM, window.from, window.end, false, &ItemFilter::default());
        let expected: Vec<_> = expected.into_iter().map(|(_, item)| item).collect();
        if response.status != 200 || !response.has_items(&expected) || response.page().has_more {
            self.wrong.lock().unwrap().push(format!("{}: {} {}", window.query, response.status, response.text()));
        }
    }

    /// Requests that begin from now on belong to the phase that is returned.
    pub(super) fn begin_phase(&self) -> u64 {
        self.phase.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until `more` further windows have been served.
    pub(super) async fn until_served(&self, more: u64) {
        let wanted = self.answers().served + more;
        until_polled("windows are served", SERVING_LIMIT, async || self.answers().served >= wanted).await;
    }

    pub(super) fn answers(&self) -> Answers {
        let [served, refused, broken] =
            [&self.served, &self.refused, &self.broken].map(|count| count.load(Ordering::Relaxed));
        Answers { served, refused, broken }
    }

    /// Asserts that all items of all answers so far were those of the upstream.
    #[track_caller]
    pub(super) fn assert_correct(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} wrong answers, the first: {:?}", wrong.len(), wrong.first());
    }
}
