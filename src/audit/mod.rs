//! The audit log: one line of JSON for each answer that delivered items, which says who read which span of which stream.
//!
//! - `record` is what a line says,
//! - `writer` is the thread that appends lines to a file or to the standard output.
//!
//! A request never waits for the log: its line goes into a bounded queue, and is lost, counted and reported if that is
//! full. While the destination cannot be written, the lines in the queue wait.

mod record;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use self::writer::{AuditDestination, AuditMessage, AuditWriter};
use crate::config::AuditTarget;
use crate::telemetry;

pub use self::record::{AuditCaller, AuditRecord};

/// Most lines that wait to be written: a few megabytes.
const MAX_QUEUED_LINES: usize = 8192;
/// The longest that the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The audit log. Cheap to clone; the default writes nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditLog(Option<Arc<AuditQueue>>);

#[derive(Debug)]
struct AuditQueue {
    lines: SyncSender<AuditMessage>,
    /// Whether the last line was lost.
    is_losing: AtomicBool,
    /// Tells the writer that no line follows.
    is_closed: Arc<AtomicBool>,
}

impl AuditLog {
    /// The log that is written to `target`, by a thread of its own; without a target, nothing is.
    ///
    /// # Errors
    /// If the file cannot be opened, or the thread cannot be started.
    pub fn open(target: Option<&AuditTarget>) -> io::Result<Self> {
        let Some(target) = target else { return Ok(Self::default()) };
        Self::start(AuditDestination::open(target)?, MAX_QUEUED_LINES)
    }

    fn start(destination: AuditDestination, most: usize) -> io::Result<Self> {
        let (lines, queue) = sync_channel(most);
        let is_closed = Arc::new(AtomicBool::new(false));
        let writer = AuditWriter::new(destination, is_closed.clone());
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(Self(Some(Arc::new(AuditQueue { lines, is_losing: AtomicBool::new(false), is_closed }))))
    }

    /// Whether anything is written.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line. Never waits.
    pub fn write(&self, record: &AuditRecord<'_>) {
        let Some(queue) = &self.0 else { return };
        let is_lost = match queue.lines.try_send(AuditMessage::Line(record.to_line())) {
            Ok(()) => false,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
        };
        let was_losing = queue.is_losing.swap(is_lost, Ordering::Relaxed);
        if is_lost {
            telemetry::audit_lost(!was_losing);
        }
    }

    /// Waits until the lines so far are written, for at most five seconds. Blocks; for the end of the process.
    pub fn flush(&self) {
        let Some(queue) = &self.0 else { return };
        let (done, flushed) = sync_channel(1);
        if queue.lines.try_send(AuditMessage::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for AuditQueue {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
