//! Requests for windows of one stream and for their cost. A request that fails for a reason that may pass is repeated
//! before the stall timeout.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::args::SpanArgs;
use super::cost::Cost;
use super::failure::Failure;
use super::local::Local;
use super::parts::Span;
use super::progress::Progress;
use super::retry_policy::{RetryPolicy, Trouble};
use super::transport::{AnswerBody, Remote, Transport};

/// Maximum bytes of an answer that is no window.
const MAX_SMALL_ANSWER: usize = 1 << 20;

/// One stream, behind a gateway.
pub(in crate::cli) struct Gateway {
    transport: Transport,
    /// The stages in this process, if there are any.
    local: Option<Local>,
    /// The path of the stream's windows.
    path: String,
    /// What is behind `from` and `to` in each query.
    query: &'static str,
    account: Option<HeaderValue>,
    /// The longest time without progress.
    stall_timeout: Duration,
    /// Whether the gateway has answered: before that, a URL that nobody serves is an error at once.
    has_answered: AtomicBool,
}

/// Reason why a request has no answer.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The gateway refuses the request, with its status.
    Refused(u16, String),
    /// A failure that may pass.
    Trouble(Trouble, String),
    /// A failure of this process, or the stall timeout.
    Fatal(Failure),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(401, message) => Self::Usage(format!("{message}; set KOREGATE_API_KEY")),
            RequestError::Refused(_, message) => Self::Usage(message),
            RequestError::Trouble(_, message) => Self::Failed(message),
            RequestError::Fatal(failure) => failure,
        }
    }
}

/// Where the items of a window go.
pub(in crate::cli) trait ItemSink {
    /// Discards what came of the window so far.
    async fn restart(&mut self) -> Result<(), Failure>;
    /// Takes the next bytes of the items, each of which is a line.
    async fn push(&mut self, lines: Bytes) -> Result<(), Failure>;
}

impl Gateway {
    /// The stream that `args` name: behind a running gateway, or behind the stages in this process.
    ///
    /// # Errors
    /// [`Failure`] if there is no way to the stream; see [`Local::start`].
    pub(in crate::cli) fn new(args: &SpanArgs) -> Result<Self, Failure> {
        let gateway = &args.gateway;
        let usage = |message: String| Failure::Usage(message);
        let (transport, local) = if let Some(url) = &gateway.url {
            let key = std::env::var("KOREGATE_API_KEY").ok().filter(|key| !key.is_empty());
            let remote = Remote::new(url, gateway.ca_file.as_deref(), key.as_deref());
            let remote = remote.map_err(|error| usage(format!("{error:#}")))?;
            (Transport::Remote(Box::new(remote)), None)
        } else {
            let local = Local::start(gateway.config.as_deref())?;
            (Transport::Local(local.service.clone()), Some(local))
        };
        let account = args.account.as_deref().map(HeaderValue::from_str).transpose();
        let stream = utf8_percent_encode(&args.stream, NON_ALPHANUMERIC);
        Ok(Self {
            transport,
            local,
            path: format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions"),
            query: if args.agentic { "&includeAgenticData=true" } else { "" },
            account: account.map_err(|_| usage("--account: not a header's value".to_owned()))?,
            stall_timeout: gateway.stall_timeout,
            has_answered: AtomicBool::new(false),
        })
    }

    /// Whether what is fetched is still cached when this process has ended.
    pub(in crate::cli) fn keeps_what_it_fetches(&self) -> bool {
        self.local.as_ref().is_none_or(|local| local.has_lasting_cache)
    }

    /// Ends what runs in this process.
    pub(in crate::cli) async fn close(&self) {
        if let Some(local) = &self.local {
            local.leave().await;
        }
    }

    /// The cost of a window. Makes no upstream call.
    ///
    /// # Errors
    /// [`RequestError`] if the window is refused, or there is no answer before the stall timeout.
    pub(super) async fn cost(&self, window: Span, progress: &Progress) -> Result<Cost, RequestError> {
        let ask = async || {
            let response = self.send(self.request(window, "").header("prefer", "dry-run")).await?;
            let body = small_body(response.into_body()).await?;
            Cost::parse(&body).ok_or_else(|| {
                let message = "the answer is not the cost of a window: --url is no koregate".to_owned();
                RequestError::Fatal(Failure::Usage(message))
            })
        };
        self.repeat(ask, progress).await
    }

    /// Has the gateway cache a window. Returns the number of upstream calls.
    ///
    /// # Errors
    /// [`RequestError`] if the window is refused, or there is no answer before the stall timeout.
    pub(super) async fn fetch(&self, window: Span, progress: &Progress) -> Result<u64, RequestError> {
        let ask = async || {
            // A window is fetched as a whole, whatever part of it is asked for.
            let response = self.send(self.request(window, "&limit=0")).await?;
            let calls = calls_of(response.headers());
            small_body(response.into_body()).await?;
            Ok(calls)
        };
        self.repeat(ask, progress).await
    }

    /// Reads the items of a window into `sink`. Returns the number of upstream calls, as far as it is known.
    ///
    /// # Errors
    /// [`RequestError`] if the window is refused, there is no answer before the stall timeout, or the sink fails.
    pub(super) async fn read(
        &self,
        window: Span,
        sink: &mut impl ItemSink,
        progress: &Progress,
    ) -> Result<u64, RequestError> {
        let ask = async || {
            sink.restart().await.map_err(RequestError::Fatal)?;
            let response = self.send(self.request(window, "").header(header::ACCEPT, "application/x-ndjson")).await?;
            let (calls, mut body) = (calls_of(response.headers()), response.into_body());
            while let Some(frame) = self.in_time(body.frame()).await? {
                let frame = frame.map_err(|error| disconnected(&format!("the answer broke off: {error}")))?;
                if let Ok(lines) = frame.into_data() {
                    sink.push(lines).await.map_err(RequestError::Fatal)?;
                }
            }
            Ok(calls)
        };
        self.repeat(ask, progress).await
    }

    fn request(&self, window: Span, more: &str) -> Builder {
        let (path, query) = (&self.path, self.query);
        let builder = Request::get(format!("{path}?{window}{query}{more}")).header("priority", "u=7");
        match &self.account {
            Some(account) => builder.header("accountid", account),
            None => builder,
        }
    }

    /// Sends a request; any answer but a success is an error.
    async fn send(&self, builder: Builder) -> Result<Response<AnswerBody>, RequestError> {
        let request = builder.body(Full::default()).map_err(|error| RequestError::Refused(400, error.to_string()))?;
        let sent = self.in_time(self.transport.send(request)).await?;
        let response = sent.map_err(|error| disconnected(&cause(&*error)))?;
        self.has_answered.store(true, Ordering::Relaxed);
        if response.status().is_success() { Ok(response) } else { Err(failure_of(response).await) }
    }

    /// The output of `future`, unless the stall timeout ends before.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, RequestError> {
        let limited = tokio::time::timeout(self.stall_timeout, future).await;
        limited.map_err(|_| disconnected("the gateway does not answer"))
    }

    /// Repeats `ask` before the stall timeout.
    async fn repeat<T>(
        &self,
        ask: impl AsyncFnMut() -> Result<T, RequestError>,
        progress: &Progress,
    ) -> Result<T, RequestError> {
        repeat(self.stall_timeout, &self.has_answered, ask, progress).await
    }
}

/// Repeats what fails for a reason that may pass, for at most `limit`. A gateway that cannot be reached and has not
/// answered before is not waited for.
async fn repeat<T>(
    limit: Duration,
    has_answered: &AtomicBool,
    mut ask: impl AsyncFnMut() -> Result<T, RequestError>,
    progress: &Progress,
) -> Result<T, RequestError> {
    let (mut policy, started) = (RetryPolicy::new(limit), Instant::now());
    loop {
        let (trouble, message) = match ask().await {
            Err(RequestError::Trouble(trouble, message)) => (trouble, message),
            other => return other,
        };
        let is_stranger = trouble == Trouble::Disconnected && !has_answered.load(Ordering::Relaxed);
        let pause = if is_stranger { None } else { policy.pause(trouble, started.elapsed()) };
        let Some(pause) = pause else { return Err(RequestError::Trouble(trouble, message)) };
        progress.note(&format!("again in {} s: {message}", pause.as_secs()));
        tokio::time::sleep(pause).await;
    }
}

fn disconnected(message: &str) -> RequestError {
    RequestError::Trouble(Trouble::Disconnected, message.to_owned())
}

/// An error with its causes, the innermost last.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn small_body(body: AnswerBody) -> Result<Bytes, RequestError> {
    let body = Limited::new(body, MAX_SMALL_ANSWER).collect().await;
    Ok(body.map_err(|error| disconnected(&format!("the answer broke off: {error}")))?.to_bytes())
}

/// The failure that an answer states.
async fn failure_of(response: Response<AnswerBody>) -> RequestError {
    let (head, body) = response.into_parts();
    let body = small_body(body).await.unwrap_or_default();
    let detail = serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.detail);
    let message = match detail {
        Some(detail) => format!("the gateway answers {}: {detail}", head.status.as_u16()),
        None => format!("the gateway answers {}", head.status),
    };
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let trouble = match head.status.as_u16() {
        429 | 503 => Trouble::Busy { retry_after: retry_after.map(Duration::from_secs) },
        408 => Trouble::Disconnected,
        status @ 400..500 => return RequestError::Refused(status, message),
        500.. => Trouble::Upstream,
        _ => return RequestError::Fatal(Failure::Failed(message)),
    };
    RequestError::Trouble(trouble, message)
}

/// The number of upstream calls that `Cache-Status` states; zero if it states none.
fn calls_of(headers: &HeaderMap) -> u64 {
    let calls = headers.get("cache-status").and_then(|status| {
        let (_, calls) = status.to_str().ok()?.split_once("calls=")?;
        calls.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    calls.unwrap_or_default()
}

/// The members of a problem document that are read.
#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_cache_status() {
        for (status, calls) in [
            ("koregate; fwd=miss; detail=\"chunks=18 hits=17 calls=12\"", 12),
            ("koregate; hit; detail=\"chunks=18 hits=18 calls=0\"", 0),
            ("koregate; fwd=miss; detail=\"streamed\"", 0),
        ] {
            let headers = HeaderMap::from_iter([("cache-status".parse().unwrap(), HeaderValue::from_static(status))]);
            assert_eq!(calls_of(&headers), calls, "{status}");
        }
    }

    /// The result of requests that fail `failures` times, their number, and the seconds that they took.
    async fn repeated(failures: u32, trouble: Trouble, has_answered: bool) -> (bool, u32, u64) {
        let (started, mut asked) = (Instant::now(), 0);
        let ask = async || {
            asked += 1;
            if asked > failures { Ok(()) } else { Err(RequestError::Trouble(trouble, String::new())) }
        };
        let progress = Progress::new(1, 0, None);
        let result = repeat(Duration::from_mins(2), &AtomicBool::new(has_answered), ask, &progress).await;
        (result.is_ok(), asked, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn failed_request_is_repeated_until_the_stall_timeout() {
        let busy = Trouble::Busy { retry_after: Some(Duration::from_secs(50)) };
        assert_eq!(repeated(2, Trouble::Disconnected, true).await, (true, 3, 1 + 2));
        assert_eq!(repeated(2, busy, true).await, (true, 3, 100));
        assert_eq!(repeated(9, busy, true).await, (false, 4, 120));
        assert_eq!(repeated(9, Trouble::Disconnected, false).await, (false, 1, 0), "a URL that nobody serves");
    }

    async fn failure(status: u16, retry_after: Option<&'static str>) -> RequestError {
        let body = r#"{"title": "x", "detail": "why"}"#;
        let mut response = Response::builder().status(status);
        if let Some(after) = retry_after {
            response = response.header("retry-after", after);
        }
        let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
        failure_of(response.body(body).unwrap()).await
    }

    #[tokio::test]
    async fn status_decides_whether_a_request_is_repeated() {
        for (status, retry_after, expected) in [
            (429, Some("7"), Trouble::Busy { retry_after: Some(Duration::from_secs(7)) }),
            (503, None, Trouble::Busy { retry_after: None }),
            (502, None, Trouble::Upstream),
            (504, None, Trouble::Upstream),
        ] {
            let RequestError::Trouble(trouble, message) = failure(status, retry_after).await else { panic!() };
            assert_eq!((trouble, message), (expected, format!("the gateway answers {status}: why")));
        }
        for status in [400, 401, 403, 404] {
            assert!(matches!(Failure::from(failure(status, None).await), Failure::Usage(_)), "{status}");
        }
    }
}
