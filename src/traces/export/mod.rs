//! Export of ended spans to a collector, in batches. A collector that is away delays nothing but its own batches: spans
//! that do not fit into the queue meanwhile are dropped and counted.

mod collector;
mod protobuf;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::uri::Scheme;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use self::collector::{Collector, ExportError};
use super::record::{EndedSpan, ExportMessage, SpanQueue};
use crate::config::{TraceCollector, TracesConfig};
use crate::telemetry;

/// Most spans of one call.
const MAX_BATCH_SPANS: usize = 512;
/// The longest that a span waits for others that are exported with it.
const BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Calls that are made for one batch.
const MAX_ATTEMPTS: u32 = 4;
/// Pause after the first failed call, doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Starts the task that exports what comes out of `queue`, until that is closed.
///
/// # Errors
/// If the trust anchors for the collector cannot be loaded.
pub(super) fn start(
    config: &TracesConfig,
    collector: &TraceCollector,
    tls: impl FnOnce() -> anyhow::Result<rustls::ClientConfig>,
    queue: SpanQueue,
) -> anyhow::Result<()> {
    let TraceCollector { endpoint, headers, .. } = collector;
    let tls = if endpoint.scheme() == Some(&Scheme::HTTPS) { Some(tls()?) } else { None };
    let collector = Collector::new(endpoint.clone(), config.protocol, headers.clone(), tls);
    let version = ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let mut resource = vec![("service.name".to_owned(), config.service_name.clone()), version];
    resource.extend(config.resource.iter().cloned());
    tokio::spawn(Exporter { collector, resource, is_failing: false }.run(queue));
    Ok(())
}

struct Exporter {
    collector: Collector,
    /// The attributes of this process.
    resource: Vec<(String, String)>,
    /// Whether the last batch was not taken; only the first failure in a row is logged.
    is_failing: bool,
}

impl Exporter {
    async fn run(mut self, mut queue: SpanQueue) {
        while let Some((spans, flush)) = next_batch(&mut queue).await {
            if !spans.is_empty() {
                self.export(&spans).await;
            }
            if let Some(flush) = flush {
                let _ = flush.send(());
            }
        }
    }

    /// Exports a batch, or drops it after [`MAX_ATTEMPTS`].
    async fn export(&mut self, spans: &[EndedSpan]) {
        let (message, count) = (protobuf::encode(&self.resource, spans), spans.len() as u64);
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=MAX_ATTEMPTS {
            match self.collector.send(message.clone()).await {
                Ok(rejected) => {
                    telemetry::trace_spans_exported(count.saturating_sub(rejected));
                    telemetry::trace_spans_dropped(rejected.min(count));
                    self.report(None);
                    return;
                }
                Err(error) if attempt < MAX_ATTEMPTS && error.is_retryable() => {
                    self.report(Some(&error));
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    self.report(Some(&error));
                    telemetry::trace_spans_dropped(count);
                    return;
                }
            }
        }
    }

    fn report(&mut self, error: Option<&ExportError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, error.is_some());
        match error {
            Some(error) if !was_failing => telemetry::trace_export_failed(error),
            None if was_failing => telemetry::trace_export_recovered(),
            Some(_) | None => {}
        }
    }
}

/// The spans of the next call, and who waits for them to be exported; `None` at the end of the queue.
async fn next_batch(queue: &mut SpanQueue) -> Option<(Vec<EndedSpan>, Option<oneshot::Sender<()>>)> {
    let mut spans = Vec::new();
    let mut next = queue.recv().await?;
    let deadline = Instant::now() + BATCH_INTERVAL;
    loop {
        match next {
            ExportMessage::Span(span) => spans.push(span),
            ExportMessage::Flush(done) => return Some((spans, Some(done))),
        }
        if spans.len() >= MAX_BATCH_SPANS {
            return Some((spans, None));
        }
        next = match timeout_at(deadline, queue.recv()).await {
            Ok(Some(next)) => next,
            Ok(None) | Err(_) => return Some((spans, None)),
        };
    }
}
