//! Buffer of log lines, which a thread writes out. Thousands of requests a second must not make a system call each for
//! their lines, nor wait for the reader of the log: the thread alone waits for it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::log_lines_lost;

/// The longest that a line waits for others that are written with it.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum bytes of lines that wait while the reader of the log has stalled; further lines are lost. The lines that are
/// being written come on top.
const MAX_BUFFERED_BYTES: usize = 8 << 20;

/// A writer of lines that are written out together. Clones share the buffer.
#[derive(Clone)]
pub(super) struct BufferedWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Locked to add or take lines, never during a write.
    buffer: Mutex<Buffer>,
    /// Notified when there is a line to write, and when an urgent one has come.
    has_lines: Condvar,
    /// Notified when lines have been written.
    has_written: Condvar,
}

#[derive(Default)]
struct Buffer {
    /// Complete lines that no write has begun with.
    lines: Vec<u8>,
    /// Whether the thread writes without waiting for further lines.
    is_urgent: bool,
    /// Whether the thread is writing lines that it has taken.
    is_writing: bool,
    /// Lines that had no room since the thread has last taken some.
    lost: u64,
}

impl BufferedWriter {
    /// A writer without a thread.
    fn new() -> Self {
        Self(Arc::default())
    }

    /// A writer to `out` whose thread lives as long as the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn spawn(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::new();
        let thread_writer = writer.clone();
        let write_forever = move || {
            loop {
                thread_writer.wait_for_batch();
                thread_writer.write_batch(&mut out);
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(write_forever)?;
        Ok(writer)
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, without waiting for the reader of the log. An urgent one is written without a delay, with the lines
    /// before it.
    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut buffer = self.lock();
        if buffer.lines.len() + line.len() > MAX_BUFFERED_BYTES {
            buffer.lost += 1;
            drop(buffer);
            log_lines_lost().increment(1);
            return;
        }
        let is_first = buffer.lines.is_empty();
        buffer.lines.extend_from_slice(line);
        buffer.is_urgent |= is_urgent;
        drop(buffer);
        if is_urgent || is_first {
            self.0.has_lines.notify_one();
        }
    }

    /// Waits for lines, and then until [`BATCH_INTERVAL`] is over or an urgent line has come.
    fn wait_for_batch(&self) {
        let guard = self.0.has_lines.wait_while(self.lock(), |buffer| buffer.lines.is_empty());
        let guard = guard.unwrap_or_else(PoisonError::into_inner);
        drop(self.0.has_lines.wait_timeout_while(guard, BATCH_INTERVAL, |buffer| !buffer.is_urgent));
    }

    /// Writes out the lines so far. If some were lost, a line that says so is the first of the next ones.
    fn write_batch(&self, out: &mut impl Write) {
        let Buffer { lines, lost, .. } =
            std::mem::replace(&mut *self.lock(), Buffer { is_writing: true, ..Buffer::default() });
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost, because nothing read standard error");
        }
        // A failure cannot be reported anywhere.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
        self.lock().is_writing = false;
        self.0.has_written.notify_all();
    }

    /// Has all lines written, and waits for that. Returns whether it was done within `timeout`.
    pub(super) fn write_out(&self, timeout: Duration) -> bool {
        let mut buffer = self.lock();
        buffer.is_urgent = true;
        self.0.has_lines.notify_one();
        let is_pending = |buffer: &mut Buffer| buffer.is_writing || !buffer.lines.is_empty();
        let (buffer, result) =
            self.0.has_written.wait_timeout_while(buffer, timeout, is_pending).unwrap_or_else(PoisonError::into_inner);
        drop(buffer);
        !result.timed_out()
    }
}

/// The writer of one line.
pub(super) struct BufferedLine<'a> {
    writer: &'a BufferedWriter,
    is_urgent: bool,
}

impl Write for BufferedLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.writer.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BufferedWriter {
    type Writer = BufferedLine<'a>;

    fn make_writer(&'a self) -> BufferedLine<'a> {
        BufferedLine { writer: self, is_urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> BufferedLine<'a> {
        // A warning may be the last line before a crash.
        BufferedLine { writer: self, is_urgent: *metadata.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Longer than any test takes.
    const TIMEOUT: Duration = Duration::from_mins(1);

    /// Hands each write over, which its reader must allow.
    struct SlowReader {
        allowed: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for SlowReader {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.allowed.recv().map_err(io::Error::other)?;
            self.written.send(String::from_utf8(text.to_vec()).unwrap()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn spawn() -> (BufferedWriter, Sender<()>, Receiver<String>) {
        let ((allow, allowed), (written, read)) = (channel(), channel());
        (BufferedWriter::spawn(SlowReader { allowed, written }).unwrap(), allow, read)
    }

    #[test]
    fn lines_of_a_batch_are_written_together() {
        let (lines, mut out) = (BufferedWriter::new(), Vec::new());
        lines.add(b"one\n", false);
        lines.add(b"two\n", true);
        lines.wait_for_batch();
        lines.write_batch(&mut out);
        assert_eq!(out, b"one\ntwo\n");
    }

    #[test]
    fn thread_writes_lines_of_each_urgency() {
        let (lines, allow, read) = spawn();
        for (line, is_urgent) in [("one\n", false), ("two\n", true), ("three\n", false)] {
            lines.add(line.as_bytes(), is_urgent);
            allow.send(()).unwrap();
            assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), line);
        }
    }

    #[test]
    fn stalled_reader_delays_no_logging_thread_and_loses_lines() {
        let (lines, allow, read) = spawn();
        let line = [[b'x'; (1 << 10) - 1].as_slice(), b"\n"].concat();
        lines.add(b"first\n", true);
        // More than fit, even if the thread has taken some before its write stalls.
        let added = 2 * (MAX_BUFFERED_BYTES >> 10) + 7;
        (0..added).for_each(|_| lines.add(&line, true));
        assert!(!lines.write_out(Duration::from_millis(1)), "nothing reads");
        assert!(lines.lock().lines.len() <= MAX_BUFFERED_BYTES);
        (0..2).for_each(|_| allow.send(()).unwrap());
        assert!(lines.write_out(TIMEOUT));
        let text: String = read.try_iter().collect();
        assert!(text.starts_with("first\n") && text.len() <= 2 * MAX_BUFFERED_BYTES);
        assert!(text.lines().skip(1).all(|read| read.len() + 1 == line.len()), "only whole lines are lost");
    }

    #[test]
    fn lost_lines_are_counted_in_the_log() {
        let (lines, mut out) = (BufferedWriter::new(), Vec::new());
        lines.add(&vec![b'x'; MAX_BUFFERED_BYTES], false);
        (0..3).for_each(|_| lines.add(b"lost\n", false));
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || lines.write_batch(&mut out));
        assert_eq!(out.len(), MAX_BUFFERED_BYTES);
        out.clear();
        lines.write_batch(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("log lines were lost") && text.contains("lost=3") && text.lines().count() == 1, "{text}");
    }
}
