//! Log lines on standard error: text at a terminal, JSON otherwise, unless a form is chosen.
//!
//! - `json` formats a line as JSON,
//! - `buffered_writer` has a thread write many lines with one system call.

mod buffered_writer;
mod json;

use std::io::{IsTerminal as _, stderr};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use self::buffered_writer::BufferedWriter;
use self::json::JsonLayer;

/// The longest that the end of the process waits for the reader of the log.
const WRITE_OUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The writer of lines, once it is in use.
static WRITER: OnceLock<BufferedWriter> = OnceLock::new();

/// The filter of the logger, once it is installed.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines of JSON, each an object.
    Json,
    /// Text for people.
    Text,
}

/// Installs the logger of this process; later calls change nothing. Without a `format`, lines are text at a terminal and
/// JSON otherwise.
///
/// `level` is that of koregate's own events. Events of libraries are logged from the level `warn` on only, because
/// their debug and trace events contain headers and bodies.
pub fn init(level: LevelFilter, format: Option<LogFormat>) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let _ = FILTER.set(handle);
    let is_terminal = stderr().is_terminal();
    let format = format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    // A person sees each line of text at once.
    let is_buffered = format == LogFormat::Json || !is_terminal;
    let writer = if is_buffered { BufferedWriter::spawn(stderr()).ok() } else { None };
    let writer = writer.map(|writer| WRITER.get_or_init(|| writer).clone());
    let text = || tracing_subscriber::fmt::layer().with_target(false).with_ansi(is_terminal);
    let layer = match (format, writer) {
        (LogFormat::Text, Some(writer)) => text().with_writer(writer).boxed(),
        (LogFormat::Text, None) => text().with_writer(stderr).boxed(),
        (LogFormat::Json, Some(writer)) => JsonLayer(writer).boxed(),
        (LogFormat::Json, None) => JsonLayer(stderr).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_target("koregate", level).with_default(LevelFilter::WARN.min(level))
}

/// Changes the level of an installed logger; see [`init`].
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = FILTER.get() {
        // It fails only if the logger is gone, which lasts as long as the process.
        let _ = handle.reload(filter(level));
    }
}

/// Writes out all buffered lines, if their reader takes them within a few seconds. To be called before the process ends.
pub fn write_out() {
    if let Some(writer) = WRITER.get() {
        writer.write_out(WRITE_OUT_TIMEOUT);
    }
}
