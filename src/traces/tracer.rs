//! The tracer, which starts traces.

use std::sync::Arc;

use http::HeaderMap;

use super::context::{SpanId, TraceContext, TraceId, TraceParent};
use super::record::{Recorder, SpanKind, SpanParent};
use super::sampler::Sampler;
use super::span::Span;
use crate::clock::Clock;
use crate::config::TracesConfig;

/// Starts traces. Cheap to clone; the default starts none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<TracerInner>>);

#[derive(Debug)]
struct TracerInner {
    /// `None` if no traces are recorded.
    recorder: Option<(Recorder, Sampler)>,
    /// Whether the caller's context is passed on although its trace is not recorded.
    passes_on: bool,
}

impl Tracer {
    /// A tracer that records what `config` says, and exports it to its collector, from this runtime. Without a collector
    /// it only passes contexts on, if `passes_on`. `tls` is called if the collector is spoken to by TLS.
    ///
    /// # Errors
    /// If the exporter cannot be built.
    pub fn new(
        config: &TracesConfig,
        passes_on: bool,
        clock: &Clock,
        tls: impl FnOnce() -> anyhow::Result<rustls::ClientConfig>,
    ) -> anyhow::Result<Self> {
        let recorder = match &config.collector {
            None if !passes_on => return Ok(Self::default()),
            None => None,
            #[cfg(feature = "otlp")]
            Some(collector) => {
                let (recorder, queue) = Recorder::new(clock);
                super::export::start(config, collector, tls, queue)?;
                Some((recorder, Sampler::new(config.sampling)))
            }
            #[cfg(not(feature = "otlp"))]
            Some(_) => anyhow::bail!("this program was built without the feature `otlp`"),
        };
        Ok(Self(Some(Arc::new(TracerInner { recorder, passes_on }))))
    }

    /// A tracer that records nothing and passes contexts on.
    #[cfg(test)]
    pub(crate) fn passing_on() -> Self {
        Self(Some(Arc::new(TracerInner { recorder: None, passes_on: true })))
    }

    /// The span of a request that has arrived, in the trace that its head names, or in a new one.
    pub fn begin_request(&self, headers: &HeaderMap, name: &'static str) -> Span {
        let Some(inner) = &self.0 else { return Span::NONE };
        let parent = TraceParent::of(headers).and_then(|parent| TraceContext::of(parent, headers));
        let trace = parent.as_ref().map_or_else(TraceId::random, |parent| parent.trace);
        let recorded = inner
            .recorder
            .as_ref()
            .filter(|(_, sampler)| sampler.is_sampled(trace, parent.as_ref().map(|parent| parent.is_sampled)));
        match (recorded, parent) {
            (Some((recorder, _)), Some(parent)) => begin_child(recorder, parent, name),
            (Some((recorder, _)), None) => {
                let context = TraceContext { trace, span: SpanId::random(), is_sampled: true, state: None };
                Span::start(recorder, context, None, SpanKind::Server, name)
            }
            (None, Some(parent)) if inner.passes_on => Span::passed_on(parent),
            (None, _) => Span::NONE,
        }
    }

    /// Whether any request can have a span. Cheap, for the path of a hit.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether spans are recorded and exported.
    pub fn is_exporting(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.recorder.is_some())
    }

    /// The span of work for another replica, in the trace of `parent`; none if that is not recorded.
    pub fn begin_for_replica(&self, parent: Option<&str>, name: &'static str) -> Span {
        let Some((inner, parent)) = self.0.as_ref().zip(parent.and_then(TraceContext::parse)) else {
            return Span::NONE;
        };
        match &inner.recorder {
            Some((recorder, _)) if parent.is_sampled => begin_child(recorder, parent, name),
            _ if inner.passes_on => Span::passed_on(parent),
            _ => Span::NONE,
        }
    }

    /// Waits until the spans that have ended are exported, for at most two seconds. For the end of the process.
    pub async fn flush(&self) {
        if let Some((recorder, _)) = self.0.as_ref().and_then(|inner| inner.recorder.as_ref()) {
            recorder.flush().await;
        }
    }
}

/// A span whose parent is in another process.
fn begin_child(recorder: &Recorder, parent: TraceContext, name: &'static str) -> Span {
    let remote = SpanParent { id: parent.span, is_remote: true };
    let context = TraceContext { span: SpanId::random(), is_sampled: true, ..parent };
    Span::start(recorder, context, Some(remote), SpanKind::Server, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TraceSampling;
    use crate::traces::record::SpanQueue;
    use crate::traces::record::tests::queued;
    use crate::window::Timestamp;

    /// A tracer without an exporter, and its queue.
    fn tracer(ratio: f64, passes_on: bool) -> (Tracer, SpanQueue) {
        let sampler = Sampler::new(TraceSampling { ratio, follows_parent: true });
        let (recorder, queue) = Recorder::new(&Clock::manual(Timestamp::from_seconds(1_800_000_000)));
        let inner = TracerInner { recorder: Some((recorder, sampler)), passes_on };
        (Tracer(Some(Arc::new(inner))), queue)
    }

    fn headers(flags: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        headers.insert("traceparent", parent.parse().unwrap());
        headers.insert("tracestate", "a=1".parse().unwrap());
        headers
    }

    #[test]
    fn unsampled_parent_is_not_recorded_and_passed_on_if_asked_for() {
        for passes_on in [false, true] {
            let (tracer, mut queue) = tracer(1.0, passes_on);
            let span = tracer.begin_request(&headers("00"), "request");
            let child = span.child(SpanKind::Client, "page");
            let sent = child.context().map(TraceContext::to_text);
            let expected = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00 a=1";
            assert_eq!(sent.as_deref(), passes_on.then_some(expected));
            drop((span, child));
            assert!(queued(&mut queue).is_empty());
        }
    }

    #[test]
    fn request_without_a_parent_begins_a_trace_by_the_ratio() {
        let (always, mut queue) = tracer(1.0, false);
        drop(always.begin_request(&HeaderMap::new(), "request"));
        let spans = queued(&mut queue);
        assert!(spans[0].parent.is_none() && spans[0].context.is_sampled);
        let (never, mut queue) = tracer(0.0, true);
        assert!(!never.begin_request(&HeaderMap::new(), "request").is_some());
        assert!(queued(&mut queue).is_empty());
    }

    #[test]
    fn trace_goes_on_at_another_replica() {
        let ((follower, _), (leader, mut queue)) = (tracer(0.0, false), tracer(0.0, false));
        let request = follower.begin_request(&headers("01"), "request");
        let message = request.context().map(TraceContext::to_text);
        drop(leader.begin_for_replica(message.as_deref(), "remote"));
        drop(leader.begin_for_replica(None, "none"));
        drop(leader.begin_for_replica(Some("garbage"), "none"));
        let spans = queued(&mut queue);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].parent.unwrap().id, request.context().unwrap().span);
        assert_eq!(spans[0].context.state.as_deref(), Some("a=1"));
        assert_eq!(spans[0].context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
