use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::config::TraceProtocol;
use crate::traces::context::TraceContext;
use crate::traces::record::{Recorder, SpanKind};
use crate::traces::span::Span;
use crate::window::Timestamp;

fn recorder() -> (Recorder, SpanQueue) {
    Recorder::new(&Clock::manual(Timestamp::from_seconds(1_800_000_000)))
}

fn record(recorder: &Recorder, name: &'static str) {
    let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    Span::start(recorder, context, None, SpanKind::Internal, name).end();
}

fn exporter(endpoint: &str, protocol: TraceProtocol) -> Exporter {
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-key"), "k".parse().unwrap())]);
    let collector = Collector::new(endpoint.parse().unwrap(), protocol, headers, None);
    Exporter { collector, resource: vec![("service.name".to_owned(), "test".to_owned())], is_failing: false }
}

#[tokio::test(start_paused = true)]
async fn batch_ends_with_its_size_its_time_or_a_flush() {
    let (recorder, mut queue) = recorder();
    (0..=MAX_BATCH_SPANS).for_each(|_| record(&recorder, "n"));
    assert_eq!(next_batch(&mut queue).await.unwrap().0.len(), MAX_BATCH_SPANS);
    let started = Instant::now();
    assert_eq!(next_batch(&mut queue).await.unwrap().0.len(), 1);
    assert_eq!(started.elapsed(), BATCH_INTERVAL);
    record(&recorder, "n");
    let flushing = tokio::spawn(async move { recorder.flush().await });
    let (spans, flush) = next_batch(&mut queue).await.unwrap();
    assert_eq!((spans.len(), started.elapsed()), (1, BATCH_INTERVAL));
    flush.unwrap().send(()).unwrap();
    flushing.await.unwrap();
    assert!(next_batch(&mut queue).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn collector_that_is_away_holds_up_only_the_exporter() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", closed.local_addr().unwrap());
    drop(closed);
    let (recorder, queue) = recorder();
    tokio::spawn(exporter(&endpoint, TraceProtocol::Http).run(queue));
    let started = Instant::now();
    record(&recorder, "n");
    assert!(started.elapsed().is_zero());
    recorder.flush().await;
    assert!(started.elapsed().as_secs() <= 2, "{:?}", started.elapsed());
}

/// Names of the spans that a collector has taken, and how many requests it has answered.
type Received = Arc<Mutex<(Vec<String>, usize)>>;

/// A collector over HTTP whose answers have these statuses, and then 200.
async fn collector(statuses: &'static [u16]) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let received = Received::default();
    let seen = received.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    assert_eq!(request.uri().path(), "/v1/traces");
                    assert_eq!(request.headers()["x-key"], "k");
                    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let message = ExportTraceServiceRequest::decode(body).unwrap();
                    let spans = message.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
                    let names = spans.flat_map(|spans| spans.spans).map(|span| span.name);
                    let (taken, answered) = &mut *seen.lock().unwrap();
                    let status = statuses.get(*answered).copied().unwrap_or(200);
                    *answered += 1;
                    if status == 200 {
                        taken.extend(names);
                    }
                    Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (endpoint, received)
}

#[tokio::test]
async fn batch_is_repeated_only_if_it_may_be_taken_later() {
    for (statuses, taken, answered) in [(&[][..], &["a"][..], 1), (&[503], &["a"], 2), (&[400], &[], 1)] {
        let (endpoint, received) = collector(statuses).await;
        let (recorder, queue) = recorder();
        record(&recorder, "a");
        let task = tokio::spawn(exporter(&endpoint, TraceProtocol::Http).run(queue));
        drop(recorder);
        task.await.unwrap();
        let received = received.lock().unwrap();
        assert_eq!(
            (received.0.as_slice(), received.1),
            (&taken.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..], answered)
        );
    }
}
