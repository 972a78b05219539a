//! What happened in a run. Two runs of the same seed have the same trace.

use std::fmt::{Debug, Write as _};
use std::time::Duration;

/// The lines of a run, in their order.
#[derive(Debug, Default)]
pub(super) struct Trace(String);

impl Trace {
    pub(super) fn add(&mut self, at: Duration, kind: &str, what: &impl Debug) {
        writeln!(self.0, "{:>9.3} {kind:8} {what:?}", at.as_secs_f64()).unwrap();
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}
