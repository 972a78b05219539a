//! Buffer of log lines, which a thread writes out. Thousands of requests a second must not make a system call each for
//! their lines, nor wait for the reader of the log.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The longest that a line waits for others that are written with it.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes in the buffer from which on the logging thread writes them out itself, so that no line is lost and memory is
/// bounded.
const MAX_BUFFERED_BYTES: usize = 1 << 20;

/// A writer of lines that are written out together. Clones share the buffer.
#[derive(Clone)]
pub(super) struct BufferedWriter(Arc<Shared>);

struct Shared {
    /// Complete lines that are not written yet. Locked to add or take lines, never during a write.
    buffer: Mutex<Vec<u8>>,
    /// Notified when a line is added to the empty buffer.
    has_lines: Condvar,
    /// The destination. Locked from taking lines until they are written, so that lines keep their order.
    out: Mutex<Box<dyn Write + Send>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BufferedWriter {
    /// A writer to `out` without a thread.
    fn new(out: impl Write + Send + 'static) -> Self {
        let out = Mutex::new(Box::new(out) as Box<_>);
        Self(Arc::new(Shared { buffer: Mutex::default(), has_lines: Condvar::new(), out }))
    }

    /// A writer to `out` whose thread lives as long as the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn spawn(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::new(out);
        let thread_writer = writer.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || thread_writer.run())?;
        Ok(writer)
    }

    /// Waits for lines, and writes out all that came within [`BATCH_INTERVAL`].
    fn run(&self) -> ! {
        loop {
            let buffer = lock(&self.0.buffer);
            let guard = self.0.has_lines.wait_while(buffer, |buffer| buffer.is_empty());
            drop(guard);
            std::thread::sleep(BATCH_INTERVAL);
            self.flush_buffer();
        }
    }

    /// Writes out the buffer.
    pub(super) fn flush_buffer(&self) {
        let mut out = lock(&self.0.out);
        let lines = std::mem::take(&mut *lock(&self.0.buffer));
        // A failure cannot be reported anywhere.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    /// Adds a line. An urgent one is written out at once, with the lines before it.
    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut buffer = lock(&self.0.buffer);
        let was_empty = buffer.is_empty();
        buffer.extend_from_slice(line);
        let is_full = buffer.len() >= MAX_BUFFERED_BYTES;
        drop(buffer);
        if is_urgent || is_full {
            self.flush_buffer();
        } else if was_empty {
            self.0.has_lines.notify_one();
        }
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
    use super::*;

    /// The writes so far.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl Write for Written {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if !text.is_empty() {
                lock(&self.0).push(String::from_utf8(text.to_vec()).unwrap());
            }
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_batched_and_an_urgent_one_flushes_them() {
        let written = Written::default();
        let lines = BufferedWriter::new(written.clone());
        lines.add(b"one\n", false);
        lines.add(b"two\n", false);
        assert!(lock(&written.0).is_empty());
        lines.add(b"three\n", true);
        lines.add(b"four\n", false);
        lines.flush_buffer();
        assert_eq!(*lock(&written.0), ["one\ntwo\nthree\n", "four\n"]);
    }

    #[test]
    fn full_buffer_is_written_out_by_the_logging_thread() {
        let written = Written::default();
        let lines = BufferedWriter::new(written.clone());
        let line = [b'x'; 1 << 10];
        (0..=(MAX_BUFFERED_BYTES >> 10)).for_each(|_| lines.add(&line, false));
        assert_eq!(lock(&written.0).iter().map(String::len).sum::<usize>(), MAX_BUFFERED_BYTES);
        assert_eq!(lock(&lines.0.buffer).len(), line.len());
    }

    struct ChannelWriter(std::sync::mpsc::Sender<Vec<u8>>);
    impl Write for ChannelWriter {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writer_thread_writes_lines_out() {
        let (sender, written) = std::sync::mpsc::channel();
        let lines = BufferedWriter::spawn(ChannelWriter(sender)).unwrap();
        for line in [b"one\n", b"two\n"] {
            lines.add(line, false);
            assert_eq!(written.recv().unwrap(), line);
        }
    }
}
