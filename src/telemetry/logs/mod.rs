//! Log lines, on standard error: text for a person at a terminal, JSON for a machine.

mod buffered_writer;
mod json;

use std::io::{IsTerminal as _, stderr};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::buffered_writer::BufferedWriter;
use self::json::Json;

/// The lines that have not been written yet.
static LINES: OnceLock<BufferedWriter> = OnceLock::new();

/// Begins to log at `level`. Once a process; later calls change nothing.
///
/// The level is koregate's own. Of the libraries below only warnings are let through at any level, for in their traces
/// stand headers and bodies.
pub fn init(level: LevelFilter) {
    let filter = Targets::new().with_target("koregate", level).with_default(LevelFilter::WARN.min(level));
    let lines = if stderr().is_terminal() {
        // Whoever watches sees each at once.
        tracing_subscriber::fmt::layer().with_target(false).with_writer(stderr).boxed()
    } else {
        match BufferedWriter::to(stderr()) {
            Ok(lines) => Json(LINES.get_or_init(|| lines).clone()).boxed(),
            Err(_) => Json(stderr).boxed(),
        }
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// Writes out what has been logged. To be called before the process ends.
pub fn write_out() {
    if let Some(lines) = LINES.get() {
        lines.write_out();
    }
}
