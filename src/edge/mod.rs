//! The edge stage: names each request, lets in who may, and turns every failure into a response.

mod caller;
mod fields;
mod problem;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt as _};
use tracing::Instrument as _;
use uuid::Builder;

use self::caller::Visit;
use crate::api::{ApiBody, ApiError, Report};
use crate::clock::Clock;
use crate::config;
use crate::telemetry::{self, Request as Told};
use crate::window::Moment;

pub use self::caller::Callers;
pub use self::problem::{EdgeError, Kind};

/// So many requests may be under way at once; each costs little while it waits.
const MOST_REQUESTS: usize = 16_384;
const REQUEST_ID: &str = "x-request-id";

/// A window's body, or a problem.
pub type EdgeBody = Either<ApiBody, Full<Bytes>>;

/// Stands between the socket and the api.
#[derive(Clone, Debug)]
pub struct EdgeLayer {
    callers: Callers,
    room: Arc<Semaphore>,
    clock: Clock,
}

impl EdgeLayer {
    /// Lets in these callers; anybody, if there are none.
    pub fn new(callers: &[config::Caller], clock: Clock) -> Self {
        Self { callers: Callers::new(callers), room: Arc::new(Semaphore::new(MOST_REQUESTS)), clock }
    }

    /// The callers, to look at how their limits stand.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeStage<S>;

    fn layer(&self, below: S) -> EdgeStage<S> {
        EdgeStage { edge: self.clone(), below }
    }
}

/// See [`EdgeLayer`].
#[derive(Clone, Debug)]
pub struct EdgeStage<S> {
    edge: EdgeLayer,
    below: S,
}

impl<S, B> Service<Request<B>> for EdgeStage<S>
where
    S: Service<Request<B>, Response = Response<ApiBody>, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<EdgeBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<EdgeBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let EdgeStage { edge, below } = self.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let id = request_id(request.headers(), || edge.clock.now());
            let span = tracing::info_span!("request", request_id = id);
            let (visit, result) = edge.answer(below, request).instrument(span.clone()).await;
            let (mut response, problem) = match result {
                Ok(response) => (response.map(Either::Left), None),
                Err(error) => {
                    let (response, kind) = problem::respond(&error, &id);
                    (response.map(Either::Right), Some((kind, error.to_string())))
                }
            };
            if let Ok(id) = HeaderValue::try_from(id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            if let Some(visit) = &visit {
                fields::tell(response.headers_mut(), visit.standing);
            }
            let report = response.extensions().get::<Report>();
            span.in_scope(|| {
                telemetry::request(&Told {
                    caller: visit.as_ref().map_or("-", |visit| &visit.caller.name),
                    account: report.map_or("-", |report| &report.account),
                    stream: report.map_or("-", |report| &report.stream),
                    outcome: problem
                        .as_ref()
                        .map_or_else(|| report.map_or("-", |report| report.outcome), |(kind, _)| kind.label()),
                    status: response.status().as_u16(),
                    problem: problem.as_ref().map(|(_, words)| words.as_str()),
                    items: report.map_or(0, |report| report.items),
                    calls: report.map_or(0, |report| report.calls),
                    avoided: report.map_or(0, |report| report.avoided),
                    took: begun.elapsed(),
                });
            });
            Ok(response)
        })
    }
}

impl EdgeLayer {
    /// The answer, and the caller if it is known, whatever became of its request.
    async fn answer<S, B>(
        self,
        below: S,
        mut request: Request<B>,
    ) -> (Option<Visit>, Result<Response<ApiBody>, EdgeError>)
    where
        S: Service<Request<B>, Response = Response<ApiBody>, Error = ApiError>,
    {
        let (visit, admitted) = self.callers.admit(request.headers());
        if let Err(error) = admitted {
            return (visit, Err(error));
        }
        let Ok(_room) = self.room.try_acquire() else { return (visit, Err(EdgeError::Overloaded)) };
        if let Some(Visit { caller, standing }) = visit.clone() {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(standing);
        }
        // A defect must cost one answer, not the connection: what was under way in it is dropped whole.
        let result = match AssertUnwindSafe(below.oneshot(request)).catch_unwind().await {
            Ok(result) => result.map_err(EdgeError::Api),
            Err(_) => Err(EdgeError::Internal),
        };
        (visit, result)
    }
}

/// The caller's own name for the request if it is harmless, or a new one.
fn request_id(headers: &HeaderMap, now: impl FnOnce() -> Moment) -> String {
    let harmless = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let own = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(harmless);
    own.map_or_else(|| new_id(now()), ToOwned::to_owned)
}

/// A UUID of version 7. Nobody gains by guessing it, so its random bits need no call of the system.
fn new_id(now: Moment) -> String {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let millis = u64::try_from(now.as_nanos() / 1_000_000).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use tower::service_fn;

    use super::*;
    use crate::api::Caller;
    use crate::config::Names;
    use crate::quota::Standing;

    #[tokio::test]
    async fn a_defect_costs_one_answer() {
        let below = service_fn(|request: Request<Full<Bytes>>| async move {
            assert!(request.uri().path() == "/sound", "a defect");
            Err::<Response<ApiBody>, ApiError>(ApiError::NotFound)
        });
        let request = Request::builder().header(REQUEST_ID, "mine-1").body(Full::<Bytes>::default()).unwrap();
        let response = EdgeLayer::new(&[], Clock::system()).layer(below).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[REQUEST_ID], "mine-1");
    }

    #[tokio::test(start_paused = true)]
    async fn below_it_is_known_who_asks_and_how_it_stands_and_a_defect_does_not_hide_it() {
        let below = service_fn(|request: Request<Full<Bytes>>| async move {
            assert!(request.uri().path() == "/sound", "a defect");
            assert_eq!(request.extensions().get::<Caller>().unwrap().weight, 3);
            assert_eq!(request.extensions().get::<Standing>().unwrap().left, 8);
            Err::<Response<ApiBody>, ApiError>(ApiError::NotFound)
        });
        let caller = config::Caller {
            name: "bi".into(),
            api_key_sha256: vec![digest(&SHA256, b"key").as_ref().try_into().unwrap()],
            accounts: Names::All,
            streams: Names::All,
            requests_per_minute: 10.try_into().unwrap(),
            weight: 3,
        };
        let mut edge = EdgeLayer::new(&[caller], Clock::system()).layer(below);
        for (path, status, left) in [("/", 500, "\"caller\";r=9;t=6"), ("/sound", 404, "\"caller\";r=8;t=12")] {
            let request =
                Request::builder().uri(path).header("x-api-key", "key").body(Full::<Bytes>::default()).unwrap();
            let response = edge.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.headers()["ratelimit"].to_str().unwrap()), (status, left));
        }
    }

    #[test]
    fn a_name_that_could_forge_a_log_line_is_not_taken() {
        for id in ["a b", "", "x\u{7f}", &"x".repeat(129)] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(id.as_bytes()) {
                headers.insert(REQUEST_ID, value);
            }
            assert_ne!(request_id(&headers, Moment::default), id);
        }
    }
}
