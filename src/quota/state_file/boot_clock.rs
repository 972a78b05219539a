//! Uptime of the machine: a clock that two processes share, and that steps of the wall clock do not affect.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Clock that starts with a boot of the machine.
#[derive(Debug)]
pub(super) struct BootClock {
    /// Identifies the boot.
    mark: Option<u32>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// `/proc/uptime`, which advances while the machine sleeps, as the clock of a process does not. `first` is the
    /// uptime at `read`, from which it is computed if the file cannot be read any more.
    Machine { file: File, first: Duration, read: Instant },
    /// Time since the start of the process, on a machine without uptime. It has no meaning for another process.
    Process(Instant),
    #[cfg(any(test, feature = "fuzzing"))]
    Manual(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl BootClock {
    /// Clock of this machine; without a mark if the machine states no boot id or no uptime.
    pub(super) fn of_this_machine() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let mark = id.as_deref().map(str::trim).filter(|id| !id.is_empty()).map(mark_of);
        let uptime = File::open("/proc/uptime").ok().and_then(|file| Some((read(&file)?, file)));
        match (mark, uptime) {
            (Some(mark), Some((first, file))) => {
                Self { mark: Some(mark), source: Source::Machine { file, first, read: Instant::now() } }
            }
            _ => Self { mark: None, source: Source::Process(Instant::now()) },
        }
    }

    /// A clock that a test sets, in milliseconds.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn manual(mark: Option<u32>, uptime: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { mark, source: Source::Manual(uptime) }
    }

    /// Mark of this boot; `None` if it is unknown, so that only the wall clock can be compared between processes.
    pub(super) fn mark(&self) -> Option<u32> {
        self.mark
    }

    /// Uptime of the machine; without a mark, of this process.
    pub(super) fn uptime(&self) -> Duration {
        match &self.source {
            Source::Machine { file, first, read: at } => read(file).unwrap_or_else(|| *first + at.elapsed()),
            Source::Process(start) => start.elapsed(),
            #[cfg(any(test, feature = "fuzzing"))]
            Source::Manual(uptime) => Duration::from_millis(uptime.load(std::sync::atomic::Ordering::SeqCst)),
        }
    }
}

/// Uptime in `/proc/uptime`: its first number, in seconds with two decimals.
fn read(file: &File) -> Option<Duration> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    let number = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().next()?;
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}

/// Mark of a boot in a record: a hash of its id.
fn mark_of(id: &str) -> u32 {
    u32::try_from(xxhash_rust::xxh3::xxh3_64(id.as_bytes()) >> 32).unwrap_or_default()
}
