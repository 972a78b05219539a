//! Log lines on their way out. One who answers thousands of requests a second must not make a system call for each of
//! their lines, nor wait for whoever reads them.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// A line waits so long for others to go with it.
const GATHER: Duration = Duration::from_millis(50);
/// When so much waits, whoever logs writes it out itself: no line is lost, and memory is bounded.
const MOST_WAITING: usize = 1 << 20;

/// Lines that go out together. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct BufferedWriter(Arc<Shared>);

struct Shared {
    /// Whole lines that have not been written yet; held to add one or to take them, never while they are written.
    waiting: Mutex<Vec<u8>>,
    /// Some have come where there were none.
    some: Condvar,
    /// Where they go; held while they are written, so that they keep their order.
    out: Mutex<Box<dyn Write + Send>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BufferedWriter {
    /// Lines that go to `out`.
    fn new(out: impl Write + Send + 'static) -> Self {
        let out = Mutex::new(Box::new(out) as Box<_>);
        Self(Arc::new(Shared { waiting: Mutex::default(), some: Condvar::new(), out }))
    }

    /// The same, by a thread of their own that lives as long as the process.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::new(out);
        let writing = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_on())?;
        Ok(lines)
    }

    fn write_on(&self) -> ! {
        loop {
            let waiting = lock(&self.0.waiting);
            let some = self.0.some.wait_while(waiting, |waiting| waiting.is_empty());
            drop(some);
            std::thread::sleep(GATHER);
            self.write_out();
        }
    }

    /// Writes out what waits.
    pub(super) fn write_out(&self) {
        let mut out = lock(&self.0.out);
        let lines = std::mem::take(&mut *lock(&self.0.waiting));
        // Nobody can be told that it fails.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut waiting = lock(&self.0.waiting);
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_much = waiting.len() >= MOST_WAITING;
        drop(waiting);
        if is_urgent || is_much {
            self.write_out();
        } else if was_empty {
            self.0.some.notify_one();
        }
    }
}

/// Takes one line.
pub(super) struct BufferedLine<'a> {
    lines: &'a BufferedWriter,
    is_urgent: bool,
}

impl Write for BufferedLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BufferedWriter {
    type Writer = BufferedLine<'a>;

    fn make_writer(&'a self) -> BufferedLine<'a> {
        BufferedLine { lines: self, is_urgent: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> BufferedLine<'a> {
        // A warning may be the last thing that a process says.
        BufferedLine { lines: self, is_urgent: *of.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has been written, write by write.
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
    fn lines_go_together_and_a_warning_takes_those_before_it_along() {
        let written = Written::default();
        let lines = BufferedWriter::new(written.clone());
        lines.add(b"one\n", false);
        lines.add(b"two\n", false);
        assert!(lock(&written.0).is_empty());
        lines.add(b"three\n", true);
        lines.add(b"four\n", false);
        lines.write_out();
        assert_eq!(*lock(&written.0), ["one\ntwo\nthree\n", "four\n"]);
    }

    #[test]
    fn no_line_is_lost_when_nobody_writes_them_out() {
        let written = Written::default();
        let lines = BufferedWriter::new(written.clone());
        let line = [b'x'; 1 << 10];
        (0..=(MOST_WAITING >> 10)).for_each(|_| lines.add(&line, false));
        assert_eq!(lock(&written.0).iter().map(String::len).sum::<usize>(), MOST_WAITING);
        assert_eq!(lock(&lines.0.waiting).len(), line.len());
    }

    struct Tell(std::sync::mpsc::Sender<Vec<u8>>);
    impl Write for Tell {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_thread_writes_them_out_by_itself() {
        let (told, written) = std::sync::mpsc::channel();
        let lines = BufferedWriter::to(Tell(told)).unwrap();
        for line in [b"one\n", b"two\n"] {
            lines.add(line, false);
            assert_eq!(written.recv().unwrap(), line);
        }
    }
}
