//! Events of traces and of the audit log.

use std::fmt::Display;

use metrics::counter;

/// Makes the counters of lost spans begin at 0, so that their first increase is seen.
pub fn register_traces() {
    trace_spans_exported(0);
    trace_spans_dropped(0);
}

/// A collector has taken spans.
pub fn trace_spans_exported(count: u64) {
    counter!("koregate_trace_spans_exported_total").increment(count);
}

/// Spans were dropped, because the collector does not take them.
pub fn trace_spans_dropped(count: u64) {
    counter!("koregate_trace_spans_dropped_total").increment(count);
}

/// The collector does not take spans.
pub fn trace_export_failed(error: &dyn Display) {
    tracing::warn!(%error, "the collector of traces does not take spans: they are dropped when the queue is full");
}

/// The collector takes spans again.
pub fn trace_export_recovered() {
    tracing::info!("the collector of traces takes spans again");
}

/// Makes the counters of the audit log begin at 0.
pub fn register_audit() {
    counter!("koregate_audit_lines_total").increment(0);
    counter!("koregate_audit_lines_lost_total").increment(0);
}

/// Lines were written to the audit log.
pub fn audit_written(lines: u64) {
    counter!("koregate_audit_lines_total").increment(lines);
}

/// A line of the audit log was lost, because too many wait to be written. Only the `first` in a row is logged.
pub fn audit_lost(first: bool) {
    counter!("koregate_audit_lines_lost_total").increment(1);
    if first {
        tracing::error!("lines of the audit log are lost: they cannot be written as fast as answers are delivered");
    }
}

/// The audit log cannot be written.
pub fn audit_failed(destination: &str, error: &dyn Display) {
    tracing::error!(destination, %error, "the audit log cannot be written: it is tried again each second");
}

/// The audit log is written again.
pub fn audit_recovered(destination: &str) {
    tracing::info!(destination, "the audit log is written again");
}
