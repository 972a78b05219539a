//! Counters of requests, and the fields and spelling of a line of the access log, which `edge/access.rs` has made. Both
//! are on the path of each hit, so metrics are counted with registered handles.

mod facts;
mod stream_labels;
mod window_parameters;

use std::borrow::Cow;
use std::cell::LazyCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashMap};
use metrics::{Counter, Histogram, counter, gauge, histogram};

use self::stream_labels::OTHER_STREAMS;
use self::window_parameters::window_parameters;
use super::log_sampler::LogSampler;

pub use self::facts::RequestFacts;
pub use self::stream_labels::label_streams;

/// A request whose answer has ended, or that ended without an answer.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// The caller's name; `-` if it is unknown or none are configured.
    pub caller: &'a str,
    /// Kore's account; `-` except for requests that were answered, so that nobody can invent labels.
    pub account: &'a str,
    /// Kore's stream; `-` as for `account`.
    pub stream: &'a str,
    /// Whether a window of the stream was answered. Metrics of other answers, such as dry runs, have no stream.
    pub is_window: bool,
    /// The outcome: the kind of answer, the type of problem, or the reason for which the answer broke off.
    pub outcome: &'static str,
    /// The HTTP status; `None` if the request ended before there was one.
    pub status: Option<u16>,
    /// Detail of the problem, or of the reason for which the answer broke off.
    pub problem: Option<&'a str>,
    /// Items in the answer.
    pub items: u64,
    /// Bytes of the body, in its content coding.
    pub bytes: u64,
    /// Upstream calls made for the request, and saved.
    pub calls: RequestCalls,
    /// Facts of the request itself.
    pub asked: RequestFacts<'a>,
    /// How long it took.
    pub times: RequestTimes,
}

/// Times of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTimes {
    /// Sum of the queueing times of upstream calls that the request waited for.
    pub waited: Duration,
    /// Time from the request to the head of its answer; `None` if there was no answer.
    pub first_byte: Option<Duration>,
    /// Time from the request to the end of the body.
    pub last_byte: Duration,
}

/// Upstream calls of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestCalls {
    /// Calls made for the request that no other record counts.
    pub made: u32,
    /// Calls that the caller would have made without the gateway, beyond those made.
    pub saved: u64,
}

/// Values of the labels of a request's metrics.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RequestLabels<T> {
    account: T,
    stream: T,
    caller: T,
    outcome: &'static str,
}

impl RequestLabels<&str> {
    fn into_owned(self) -> RequestLabels<String> {
        let Self { account, stream, caller, outcome } = self;
        RequestLabels { account: account.to_owned(), stream: stream.to_owned(), caller: caller.to_owned(), outcome }
    }
}

// A lookup by borrowed values.
impl Equivalent<RequestLabels<String>> for RequestLabels<&str> {
    fn equivalent(&self, key: &RequestLabels<String>) -> bool {
        let RequestLabels { account, stream, caller, outcome } = key;
        *self == RequestLabels { account, stream, caller, outcome }
    }
}

/// Handles of the metrics of requests with the same labels.
struct RequestHandles {
    requests: Counter,
    duration: Histogram,
    items: Counter,
    bytes: Counter,
    /// Registered at the first call saved, because a metric appears with its first value.
    calls_saved: OnceLock<Counter>,
}

impl RequestHandles {
    fn register(labels: RequestLabels<&str>) -> Self {
        let RequestLabels { account, stream, caller, outcome } = labels.into_owned();
        let sent = [("account", account.clone()), ("caller", caller.clone())];
        let labels = [("account", account), ("stream", stream), ("caller", caller), ("outcome", outcome.to_owned())];
        Self {
            requests: counter!("koregate_requests_total", &labels),
            duration: histogram!("koregate_request_duration_seconds"),
            items: counter!("koregate_sent_items_total", &sent),
            bytes: counter!("koregate_sent_bytes_total", &sent),
            calls_saved: OnceLock::new(),
        }
    }

    fn count(&self, request: &RequestRecord<'_>) {
        self.requests.increment(1);
        self.duration.record(request.times.last_byte.as_secs_f64());
        self.items.increment(request.items);
        self.bytes.increment(request.bytes);
        if request.calls.saved > 0 {
            let register = || {
                let labels = [("account", request.account.to_owned()), ("caller", request.caller.to_owned())];
                counter!("koregate_upstream_calls_avoided_total", &labels)
            };
            self.calls_saved.get_or_init(register).increment(request.calls.saved);
        }
    }
}

/// Registered handles. The number of entries is that of the series in the registry.
static HANDLES: LazyLock<RwLock<HashMap<RequestLabels<String>, RequestHandles>>> = LazyLock::new(RwLock::default);

/// Counts `request` if its metrics are registered with these labels.
fn count_registered(labels: RequestLabels<&str>, request: &RequestRecord<'_>) -> bool {
    let handles = HANDLES.read().unwrap_or_else(PoisonError::into_inner);
    handles.get(&labels).map(|handles| handles.count(request)).is_some()
}

fn count(request: &RequestRecord<'_>) {
    let RequestRecord { account, stream, is_window, caller, outcome, items, .. } = *request;
    let mut labels = RequestLabels { account, stream: if is_window { stream } else { "-" }, caller, outcome };
    if count_registered(labels, request) {
        return;
    }
    if is_window && !stream_labels::admit(stream, items > 0) {
        labels.stream = OTHER_STREAMS;
        if count_registered(labels, request) {
            return;
        }
    }
    let mut handles = HANDLES.write().unwrap_or_else(PoisonError::into_inner);
    handles.entry(labels.into_owned()).or_insert_with(|| RequestHandles::register(labels)).count(request);
}

/// Outcome of a request for the page of a problem type.
pub const PROBLEM_PAGE: &str = "problem_page";

/// Outcome of a request whose answer broke off because of the gateway or the upstream.
const ABORTED: &str = "aborted";

/// Requests whose answers have not ended.
static IN_FLIGHT: AtomicU64 = AtomicU64::new(0);

/// A request has arrived. [`request`] must follow once.
pub fn request_begun() {
    IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
}

/// Sets the gauge of requests whose answers have not ended.
pub(super) fn set_in_flight() {
    #[expect(clippy::cast_precision_loss, reason = "requests at a time are far fewer than 2^52")]
    gauge!("koregate_requests_in_flight").set(IN_FLIGHT.load(Ordering::Relaxed) as f64);
}

/// Counts answers that broke off.
pub(super) fn broken_answers() -> Counter {
    counter!("koregate_broken_answers_total")
}

/// A request has ended: counts it and writes its line of the access log.
pub fn request(request: &RequestRecord<'_>) {
    IN_FLIGHT.fetch_sub(1, Ordering::Relaxed);
    count(request);
    if request.outcome == ABORTED {
        broken_answers().increment(1);
    }
    let RequestRecord { caller, outcome, status, .. } = *request;
    let is_refused = status.is_some_and(|status| (400..500).contains(&status));
    let needs_no_key = is_refused || outcome == PROBLEM_PAGE;
    let suppressed = if caller == "-" && needs_no_key { admit_anonymous() } else { Some(0) };
    if let Some(suppressed) = suppressed {
        log(request, suppressed);
    }
}

/// Writes the line of a request; `suppressed` lines were left out before it. Members without a value are left out.
fn log(request: &RequestRecord<'_>, suppressed: u64) {
    let RequestRecord { caller, outcome, status, problem, asked, times, .. } = *request;
    let suppressed = (suppressed > 0).then_some(suppressed);
    let known = |label| Some(label).filter(|label| *label != "-");
    // A problem document has no items, and its calls are unknown.
    let is_answer = status.is_some_and(|status| status < 400) && outcome != PROBLEM_PAGE;
    let (items, calls) = (is_answer.then_some(request.items), is_answer.then_some(request.calls.made));
    let bytes = status.map(|_| request.bytes);
    let peer = asked.peer.map(tracing::field::display);
    let (wait_milliseconds, milliseconds) = (millis(times.waited), millis(times.last_byte));
    let first_byte_milliseconds = times.first_byte.map(millis);
    // Fields are evaluated only if the line is written.
    let window = LazyCell::new(|| window_parameters(asked.query()));
    let stream = LazyCell::new(|| known(request.stream).map(Cow::from).or_else(|| asked.stream()));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                status,
                outcome,
                caller,
                problem,
                suppressed,
                peer,
                method = asked.method(),
                account = known(request.account).or_else(|| asked.account()),
                stream = stream.as_deref(),
                from = window[0].as_deref(),
                to = window[1].as_deref(),
                offset = window[2].as_deref(),
                limit = window[3].as_deref(),
                items,
                bytes,
                calls,
                wait_milliseconds,
                first_byte_milliseconds,
                milliseconds,
                "request"
            )
        };
    }
    let is_refusal = status.is_some_and(|status| (400..500).contains(&status));
    if problem.is_some() && !is_refusal { line!(warn) } else { line!(info) }
}

/// Whether a request without a valid key is logged; see [`LogSampler::admit`].
fn admit_anonymous() -> Option<u64> {
    static SAMPLER: Mutex<LogSampler> = Mutex::new(LogSampler::new());
    SAMPLER.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrape_stays_small_whatever_streams_callers_invent() {
        let recorder = super::super::recorder();
        let handle = recorder.handle();
        stream_labels::label_streams(["st-1"], 100);
        metrics::with_local_recorder(&recorder, || {
            for number in 0..100_000_usize {
                let stream = format!("invented-{number}-{}", "x".repeat(40));
                count(&RequestRecord {
                    caller: "caller-of-the-test-of-size",
                    account: "664b33a620bd0892e0000001",
                    stream: &stream,
                    is_window: true,
                    outcome: ["hit", "miss", "partial", "stale", "collapsed"][number % 5],
                    status: Some(200),
                    problem: None,
                    items: (number % 3) as u64,
                    bytes: 100,
                    calls: RequestCalls { made: 1, saved: 1 },
                    asked: RequestFacts::default(),
                    times: RequestTimes::default(),
                });
            }
        });
        let text = handle.render();
        assert!(text.len() < 200_000, "{} bytes", text.len());
        let all: u64 = text
            .lines()
            .filter(|line| line.starts_with("koregate_requests_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(all, 100_000);
        assert!(text.contains("stream=\"other\"") && text.contains("koregate_sent_bytes_total"));
    }
}
