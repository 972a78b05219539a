//! The thread that appends lines to their destination; and what happens when the audit log cannot be written.
//!
//! A file is opened again when its path leads elsewhere, so that it may be renamed by logrotate; and as it is opened for
//! appending, it may also be truncated (`copytruncate`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use crate::config::AuditTarget;
use crate::telemetry;

/// Most lines of one write.
const MAX_BATCH_LINES: usize = 256;
/// Pause between two attempts to write to a destination that fails.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Permissions of a new file: its owner writes, its group reads.
const MODE: u32 = 0o640;

/// An entry of the queue.
#[derive(Debug)]
pub(super) enum AuditMessage {
    /// A line, with its line feed.
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

/// Where lines are written.
#[derive(Debug)]
pub(super) enum AuditDestination {
    Stdout,
    /// A file, which is open unless it failed.
    File(PathBuf, Option<File>),
}

impl AuditDestination {
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(target: &AuditTarget) -> io::Result<Self> {
        Ok(match target {
            AuditTarget::Stdout => Self::Stdout,
            AuditTarget::File(path) => Self::File(path.clone(), Some(append_to(path)?)),
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Stdout => AuditTarget::Stdout.to_string(),
            Self::File(path, _) => path.display().to_string(),
        }
    }

    /// Opens the file if its path leads elsewhere by now. Returns whether it did.
    fn follow_path(&mut self) -> io::Result<bool> {
        let Self::File(path, file) = self else { return Ok(false) };
        if file.as_ref().is_some_and(|file| is_at(path, file)) {
            return Ok(false);
        }
        *file = Some(append_to(path)?);
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()?;
                Ok(bytes.len())
            }
            Self::File(_, Some(file)) => file.write(bytes),
            Self::File(_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

/// Whether `path` leads to `file`.
fn is_at(path: &Path, file: &File) -> bool {
    let [here, open] =
        [path.metadata(), file.metadata()].map(|found| found.map(|found| (found.dev(), found.ino())).ok());
    here.is_some() && here == open
}

/// Writes what comes out of the queue.
pub(super) struct AuditWriter {
    destination: AuditDestination,
    /// Whether no line follows any more.
    is_closed: Arc<AtomicBool>,
    /// Lines that are being written, and how many of their bytes are.
    batch: Vec<u8>,
    written: usize,
    is_failing: bool,
}

impl AuditWriter {
    pub(super) fn new(destination: AuditDestination, is_closed: Arc<AtomicBool>) -> Self {
        Self { destination, is_closed, batch: Vec::new(), written: 0, is_failing: false }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Receiver<AuditMessage>) {
        while let Ok(first) = queue.recv() {
            let (mut lines, mut flush) = (0, None);
            for queued in std::iter::once(first).chain(queue.try_iter()) {
                match queued {
                    AuditMessage::Line(line) => {
                        self.batch.extend_from_slice(&line);
                        lines += 1;
                    }
                    AuditMessage::Flush(done) => flush = Some(done),
                }
                if lines >= MAX_BATCH_LINES || flush.is_some() {
                    break;
                }
            }
            if self.write_batch() {
                telemetry::audit_written(lines as u64);
            } else {
                (0..lines).for_each(|line| telemetry::audit_lost(line == 0));
            }
            if let Some(flush) = flush {
                let _ = flush.send(());
            }
        }
    }

    /// Writes the batch, however long it takes. Returns whether it is written: it is given up at the end of the process.
    fn write_batch(&mut self) -> bool {
        loop {
            match self.try_write() {
                Ok(()) => {
                    if std::mem::take(&mut self.is_failing) {
                        telemetry::audit_recovered(&self.destination.name());
                    }
                    return true;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        telemetry::audit_failed(&self.destination.name(), &error);
                    }
                    if self.is_closed.load(Ordering::Relaxed) {
                        self.batch.clear();
                        self.written = 0;
                        return false;
                    }
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
    }

    /// Goes on with a batch of which some bytes are written.
    #[cfg(test)]
    pub(super) fn resume(&mut self, batch: &[u8], written: usize) {
        (self.batch, self.written) = (batch.to_vec(), written);
        self.try_write().unwrap();
    }

    /// Goes on with the batch. A line of which a part is in a file that is not there any more is written as a whole.
    fn try_write(&mut self) -> io::Result<()> {
        if self.destination.follow_path()? {
            let begun = &self.batch[..self.written];
            self.written = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        }
        while self.written < self.batch.len() {
            match self.destination.write(&self.batch[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.batch.clear();
        self.written = 0;
        Ok(())
    }
}
