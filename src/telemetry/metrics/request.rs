//! What is told of each request. It is told on the way of each hit, so it looks up no metric that it has at hand.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};

use super::sampler::Sampler;
use super::streams;
use super::streams::OTHER;

/// A thread has the metrics of so many kinds of requests at hand.
const AT_HAND: usize = 32;

/// What is told of a request when the body of its answer has ended, or when there will be no answer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asked.
    pub caller: &'a str,
    /// Kore's account; only of requests that were answered, so that nobody can invent labels.
    pub account: &'a str,
    /// Kore's stream; as above.
    pub stream: &'a str,
    /// Whether a window of the stream was answered; what else is told of a stream, as what a window would cost, is told
    /// without a label.
    pub is_window: bool,
    /// How it was answered, the kind of problem, or why the answer has no end.
    pub outcome: &'static str,
    /// The HTTP status; `None` if the request ended before there was one.
    pub status: Option<u16>,
    /// The problem in words, or why the answer broke off.
    pub problem: Option<&'a str>,
    /// Items in the answer.
    pub items: u64,
    /// Bytes of the body, in its content coding.
    pub bytes: u64,
    /// Upstream calls that were made for it.
    pub calls: u32,
    /// Upstream calls that were saved.
    pub saved: u64,
    /// From the request to the head of its answer; `None` if there was none.
    pub time_to_first_byte: Option<Duration>,
    /// From the request to the end of the body.
    pub took: Duration,
}

/// The metrics of one kind of requests.
struct Kind {
    account: String,
    stream: String,
    is_window: bool,
    /// Whether the stream, for now, has no label of its own.
    shares_label: bool,
    caller: String,
    outcome: &'static str,
    requests: Counter,
    took: Histogram,
    /// Made when there is something to count.
    saved: Option<Counter>,
}

impl Kind {
    fn new(told: &Request<'_>) -> Self {
        let Request { account, stream, is_window, caller, outcome, items, .. } = *told;
        let shares_label = is_window && !streams::is_labeled(stream, items > 0);
        let label = match (is_window, shares_label) {
            (false, _) => "-",
            (true, false) => stream,
            (true, true) => OTHER,
        };
        let labels = [
            ("account", account.to_owned()),
            ("stream", label.to_owned()),
            ("caller", caller.to_owned()),
            ("outcome", outcome.to_owned()),
        ];
        Self {
            account: account.to_owned(),
            stream: stream.to_owned(),
            is_window,
            shares_label,
            caller: caller.to_owned(),
            outcome,
            requests: counter!("koregate_requests_total", &labels),
            took: histogram!("koregate_request_duration_seconds"),
            saved: None,
        }
    }

    fn is_of(&self, told: &Request<'_>) -> bool {
        let Request { account, stream, is_window, caller, outcome, .. } = *told;
        self.is_window == is_window
            && self.outcome == outcome
            && self.stream == stream
            && self.caller == caller
            && self.account == account
    }

    fn count(&mut self, told: &Request<'_>) {
        self.requests.increment(1);
        self.took.record(told.took.as_secs_f64());
        if told.saved > 0 {
            let saved = self.saved.get_or_insert_with(|| {
                let labels = [("account", self.account.clone()), ("caller", self.caller.clone())];
                counter!("koregate_upstream_calls_avoided_total", &labels)
            });
            saved.increment(told.saved);
        }
    }
}

thread_local! {
    /// Those that were seen last, the newest at the end. Where requests are of many more kinds, metrics are looked up.
    static KINDS: RefCell<Vec<Kind>> = const { RefCell::new(Vec::new()) };
}

fn count(told: &Request<'_>) {
    KINDS.with_borrow_mut(|kinds| {
        if let Some(kind) = kinds.iter_mut().rev().find(|kind| kind.is_of(told)) {
            if kind.shares_label && told.items > 0 && streams::has_room() {
                *kind = Kind::new(told);
            }
            return kind.count(told);
        }
        if kinds.len() >= AT_HAND {
            kinds.remove(0);
        }
        let mut kind = Kind::new(told);
        kind.count(told);
        kinds.push(kind);
    });
}

/// A request has ended: counts it and writes its line in the access log.
pub fn request(told: &Request<'_>) {
    count(told);
    let Request {
        caller,
        account,
        stream,
        outcome,
        status,
        problem,
        items,
        bytes,
        calls,
        time_to_first_byte,
        took,
        ..
    } = *told;
    let milliseconds = millis(took);
    let is_anonymous = caller == "-" && status.is_some_and(|status| (400..500).contains(&status));
    let Some(suppressed) = (if is_anonymous { admit_anonymous() } else { Some(0) }) else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let Some(first_byte_milliseconds) = time_to_first_byte.map(millis) else {
        return tracing::info!(outcome, caller, milliseconds, "request");
    };
    match problem {
        // A problem document is described by its problem alone.
        Some(problem) if status.is_some_and(|status| status >= 500) => {
            tracing::warn!(status, outcome, caller, problem, bytes, first_byte_milliseconds, milliseconds, "request");
        }
        Some(problem) if status.is_some_and(|status| status >= 400) => {
            tracing::info!(
                status,
                outcome,
                caller,
                problem,
                suppressed,
                bytes,
                first_byte_milliseconds,
                milliseconds,
                "request"
            );
        }
        Some(problem) => tracing::warn!(
            status,
            outcome,
            caller,
            problem,
            account,
            stream,
            items,
            bytes,
            calls,
            first_byte_milliseconds,
            milliseconds,
            "request"
        ),
        None => tracing::info!(
            status,
            outcome,
            caller,
            account,
            stream,
            items,
            bytes,
            calls,
            first_byte_milliseconds,
            milliseconds,
            "request"
        ),
    }
}

/// Whether a line is to be written about a request that nobody needs a key for; see [`Sampler::admit`].
fn admit_anonymous() -> Option<u64> {
    static SAMPLER: Mutex<Sampler> = Mutex::new(Sampler::new());
    SAMPLER.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
