//! Spans: what is done for a request, from when to when, and in which order of causes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::context::{SpanId, TraceContext};
use super::record::{AttributeValue, EndedSpan, Recorder, SpanData, SpanKind, SpanParent, SpanStatus};
use crate::window::{Interval, Timestamp};

/// Most links of a span.
const MAX_LINKS: usize = 128;

tokio::task_local! {
    /// The span under which the running task uses Redis and the disk.
    static CURRENT: Span;
}

/// A span, or none. Clones are the same span, which ends by [`Span::end`] or with its last clone.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Arc<SpanInner>>);

#[derive(Debug)]
struct SpanInner {
    context: TraceContext,
    /// `None` if the span belongs to another process, is not recorded, and is only passed on.
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    recorder: Recorder,
    parent: Option<SpanParent>,
    kind: SpanKind,
    started_at: Timestamp,
    /// Measures the duration, whatever the wall clock does meanwhile.
    started: Instant,
    /// `None` if the span has ended. Locked for bookkeeping only.
    data: Mutex<Option<SpanData>>,
}

impl Span {
    /// No span.
    pub const NONE: Self = Self(None);

    /// A span that begins now.
    pub(super) fn start(
        recorder: &Recorder,
        context: TraceContext,
        parent: Option<SpanParent>,
        kind: SpanKind,
        name: &'static str,
    ) -> Self {
        let (attributes, links, dropped_links) = Default::default();
        let data = SpanData { name, attributes, links, dropped_links, status: SpanStatus::Unset };
        let (recorder, started_at, started) = (recorder.clone(), recorder.now(), Instant::now());
        let recording = Recording { recorder, parent, kind, started_at, started, data: Mutex::new(Some(data)) };
        Self(Some(Arc::new(SpanInner { context, recording: Some(recording) })))
    }

    /// The span of another process, which is not recorded here and only passed on.
    pub(super) fn passed_on(context: TraceContext) -> Self {
        Self(Some(Arc::new(SpanInner { context, recording: None })))
    }

    /// A span of work that is done for this one, and begins now; without a record, the same context.
    #[must_use]
    pub fn child(&self, kind: SpanKind, name: &'static str) -> Self {
        let Some(inner) = &self.0 else { return Self::NONE };
        let Some(recording) = &inner.recording else { return self.clone() };
        let context = TraceContext { span: SpanId::random(), ..inner.context.clone() };
        let parent = SpanParent { id: inner.context.span, is_remote: false };
        Self::start(&recording.recorder, context, Some(parent), kind, name)
    }

    fn recording(&self) -> Option<&Recording> {
        self.0.as_ref()?.recording.as_ref()
    }

    /// Whether there is a span, recorded or not.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// The identity, for other processes.
    pub fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(|inner| &inner.context)
    }

    /// Changes the name.
    pub fn rename(&self, name: &'static str) {
        self.with_data(|data| data.name = name);
    }

    /// Adds an attribute. Its value must be no item, no secret, no id of a conversation and no value of a filter.
    #[expect(private_bounds, reason = "the types of values are listed in `record.rs`")]
    pub fn set(&self, name: &'static str, value: impl Into<AttributeValue>) {
        self.with_data(|data| data.attributes.push((name, value.into())));
    }

    /// Adds the interval that the work is about.
    pub fn set_interval(&self, interval: Interval) {
        if self.recording().is_some() {
            self.set("koregate.from", interval.start.to_string().as_str());
            self.set("koregate.to", interval.end.to_string().as_str());
        }
    }

    /// Marks the work as failed with this kind of error.
    pub fn fail(&self, error: &'static str) {
        self.with_data(|data| data.status = SpanStatus::Failed(error));
    }

    /// Links a span whose work this one waits for, unless it is a child of this one.
    pub fn link(&self, other: &Self) {
        let (Some(context), Some(parent)) = (other.context(), other.recording().map(|recording| recording.parent))
        else {
            return;
        };
        if parent.map(|parent| parent.id) == self.context().map(|own| own.span) {
            return;
        }
        self.with_data(|data| {
            if data.links.len() < MAX_LINKS {
                data.links.push(context.clone());
            } else {
                data.dropped_links += 1;
            }
        });
    }

    fn with_data(&self, change: impl FnOnce(&mut SpanData)) {
        if let Some(recording) = self.recording()
            && let Some(data) = &mut *recording.data.lock().unwrap_or_else(PoisonError::into_inner)
        {
            change(data);
        }
    }

    /// Ends the span now; later calls change nothing.
    pub fn end(&self) {
        if let Some(inner) = &self.0 {
            inner.end();
        }
    }

    /// Runs `work` with this as the current span.
    pub fn scope<F: Future>(&self, work: F) -> SpanScope<F> {
        SpanScope { span: self.clone(), work }
    }

    /// The span under which the running task works; none outside of [`Span::scope`].
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }
}

pin_project! {
    /// See [`Span::scope`].
    pub struct SpanScope<F> {
        span: Span,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for SpanScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !this.span.is_some() {
            return this.work.poll(context);
        }
        CURRENT.sync_scope(this.span.clone(), || this.work.poll(context))
    }
}

impl SpanInner {
    fn end(&self) {
        let Some(Recording { recorder, parent, kind, started_at, started, data }) = &self.recording else { return };
        let Some(data) = data.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (context, ended_at) = (self.context.clone(), *started_at + started.elapsed());
        recorder.export(EndedSpan { context, parent: *parent, kind: *kind, started_at: *started_at, ended_at, data });
    }
}

impl Drop for SpanInner {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::traces::record::tests::queued;

    fn root(recorder: &Recorder, name: &'static str) -> Span {
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let parent = SpanParent { id: context.span, is_remote: true };
        let context = TraceContext { span: SpanId::random(), ..context };
        Span::start(recorder, context, Some(parent), SpanKind::Server, name)
    }

    fn recorder() -> (Recorder, crate::traces::record::SpanQueue) {
        Recorder::new(&Clock::manual(Timestamp::from_seconds(1_800_000_000)))
    }

    #[test]
    fn span_ends_once_with_its_last_clone_or_before() {
        let (recorder, mut queue) = recorder();
        let root = root(&recorder, "request");
        let run = root.child(SpanKind::Internal, "run");
        run.set("koregate.calls", 3_u32);
        run.end();
        run.set("koregate.late", 1_u32);
        drop(run.clone());
        drop(run);
        let page = root.child(SpanKind::Client, "page");
        let clone = page.clone();
        drop(page);
        assert_eq!(queued(&mut queue).iter().map(|span| span.data.name).collect::<Vec<_>>(), ["run"]);
        clone.fail("timeout");
        drop((clone, root));
        let spans = queued(&mut queue);
        assert_eq!(spans.iter().map(|span| span.data.name).collect::<Vec<_>>(), ["page", "request"]);
        assert_eq!(spans[0].data.status, SpanStatus::Failed("timeout"));
        assert_eq!(spans[0].parent.unwrap().id, spans[1].context.span);
        assert!(spans[1].parent.unwrap().is_remote && !spans[0].parent.unwrap().is_remote);
    }

    #[test]
    fn waiting_span_links_only_what_others_began() {
        let (recorder, mut queue) = recorder();
        let (first, second) = (root(&recorder, "first"), root(&recorder, "second"));
        let run = first.child(SpanKind::Internal, "run");
        first.link(&run);
        (0..MAX_LINKS + 2).for_each(|_| second.link(&run));
        Span::NONE.link(&run);
        second.link(&Span::NONE);
        let run_context = run.context().unwrap().clone();
        drop((first, second, run));
        let spans = queued(&mut queue);
        assert!(spans[0].data.links.is_empty());
        assert_eq!((spans[1].data.links.len(), spans[1].data.dropped_links), (MAX_LINKS, 2));
        assert_eq!(spans[1].data.links[0], run_context);
    }

    #[tokio::test]
    async fn current_span_is_that_of_the_scope() {
        let (recorder, _queue) = recorder();
        let root = root(&recorder, "request");
        assert!(!Span::current().is_some());
        let inside = root.scope(async { Span::current().context().cloned() }).await;
        assert_eq!(inside.as_ref(), root.context());
        assert!(!Span::NONE.scope(async { Span::current() }).await.is_some());
    }
}
