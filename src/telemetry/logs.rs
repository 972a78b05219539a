//! Log lines, on standard error: text for a person at a terminal, JSON for a machine.

use std::io::{IsTerminal as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins to log at `level`. Once a process; later calls change nothing.
///
/// The level is koregate's own. Of the libraries below only warnings are let through at any level, for in their traces
/// stand headers and bodies.
pub fn init(level: LevelFilter) {
    let filter = Targets::new().with_target("koregate", level).with_default(LevelFilter::WARN.min(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_target(false);
    let lines = if stderr().is_terminal() {
        lines.boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
