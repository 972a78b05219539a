//! Distributed traces: spans of requests and of the work that is done for them, exported by OTLP.
//!
//! - `context` reads and writes the identity of a span (W3C Trace Context: `traceparent`, `tracestate`),
//! - `sampler` decides which traces are recorded (pure),
//! - `span` has the spans, and the task-local span under which Redis and the disk are used,
//! - `record` has what is recorded of a span, and the bounded queue of ended spans,
//! - `tracer` starts traces,
//! - `export` sends them to a collector, with the feature `otlp`.
//!
//! A span that is not recorded is `None` inside: all its methods return at once. Attributes hold names, counts and times,
//! and never items, secrets, ids of conversations or values of filters.

#![cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, unused_variables, reason = "spans are recorded only where they can be exported")
)]

mod context;
#[cfg(feature = "otlp")]
mod export;
mod record;
mod sampler;
mod span;
mod tracer;

pub use self::context::{TRACEPARENT, TraceContext, TraceParent};
pub use self::record::SpanKind;
pub use self::span::Span;
pub use self::tracer::Tracer;
