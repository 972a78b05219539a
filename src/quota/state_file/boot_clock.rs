//! Time since the machine was started, which two processes share and no step of the wall clock bends.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// The clock of one boot of the machine.
#[derive(Debug)]
pub(super) struct BootClock {
    mark: Option<u32>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// `/proc/uptime`, which goes on while the machine sleeps; a process's own clock would not.
    Machine { file: File, first: Duration, read: Instant },
    /// The machine has none. What this tells means nothing to another process.
    Process(Instant),
    #[cfg(test)]
    Manual(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl BootClock {
    /// Of this machine; without a mark where it does not tell.
    pub(super) fn of_this_machine() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let mark = id.as_deref().map(str::trim).filter(|id| !id.is_empty()).map(short);
        let uptime = File::open("/proc/uptime").ok().and_then(|file| Some((read(&file)?, file)));
        match (mark, uptime) {
            (Some(mark), Some((first, file))) => {
                Self { mark: Some(mark), source: Source::Machine { file, first, read: Instant::now() } }
            }
            _ => Self { mark: None, source: Source::Process(Instant::now()) },
        }
    }

    /// A boot that a test sets, in milliseconds.
    #[cfg(test)]
    pub(super) fn manual(mark: Option<u32>, uptime: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { mark, source: Source::Manual(uptime) }
    }

    /// Which boot this is; `None` if the machine does not tell, and then only the wall clock is left.
    pub(super) fn mark(&self) -> Option<u32> {
        self.mark
    }

    /// How long the machine has been up; without a mark, how long this process has.
    pub(super) fn uptime(&self) -> Duration {
        match &self.source {
            Source::Machine { file, first, read: at } => read(file).unwrap_or_else(|| *first + at.elapsed()),
            Source::Process(start) => start.elapsed(),
            #[cfg(test)]
            Source::Manual(uptime) => Duration::from_millis(uptime.load(std::sync::atomic::Ordering::SeqCst)),
        }
    }
}

/// The first number of `/proc/uptime`: seconds, with two decimals.
fn read(file: &File) -> Option<Duration> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    let number = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().next()?;
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}

/// What stands for a boot's id in a line.
fn short(id: &str) -> u32 {
    u32::try_from(xxhash_rust::xxh3::xxh3_64(id.as_bytes()) >> 32).unwrap_or_default()
}
