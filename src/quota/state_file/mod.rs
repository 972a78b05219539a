//! State file: the calls that a killed process had made, for the process after it.
//!
//! The file has one line of text for each call that may still count, all of one width, overwritten in place. So it is
//! never half rewritten, needs no compaction, and is as small as the largest number of calls that counted at once. No
//! line crosses the border of a memory page, and each is written in one call: a process that is killed leaves it old or
//! new, never mixed. The file is not synced to disk, since it protects from the death of a process. After a power
//! failure it may miss calls; if it begins with zeros in place of what was written, every limit counts as spent.
//! Records that a full disk does not take are written as soon as there is room.
//!
//! | file | |
//! | --- | --- |
//! | `record` | the format of a line |
//! | `recovery` | the lines of a process before this one |
//! | `backlog` | records that could not be written yet |
//! | `inspect` | whether a path can be a state file |
//! | `boot_clock` | uptime, which two processes share |
//! | `fuzz` | a fuzz target |

mod backlog;
mod boot_clock;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod inspect;
mod record;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use self::backlog::Backlog;
use self::boot_clock::BootClock;
use self::record::{HEADER, RECORD_BYTES, RecordAccount, RecordStamp, RecordState, StateRecord};
use self::recovery::Recovery;
use crate::clock::Clock;
use crate::config::QuotaLimit;
use crate::environment::Environment;
use crate::telemetry;

/// Largest file that is read: a million calls that count at once.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Resolution of the coarser clock. Ages are reduced by it, so that none is longer than it really is.
const CLOCK_RESOLUTION: Duration = Duration::from_millis(10);

/// Interval at which the backlog is written again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file cannot be opened, read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// Another process has locked the file. Two processes that share a quota must not share its state.
    #[error("{}: another process uses this state file", .0.display())]
    InUse(PathBuf),
    /// The file has another content, and is left as it is.
    #[error("{}: not a state file of koregate's; it is not overwritten", .0.display())]
    NotOurs(PathBuf),
}

/// State file of all accounts of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct StateFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked until the process ends, however it ends.
    file: File,
    clock: Clock,
    boot: BootClock,
    /// Calls of earlier processes, with their ages at the time at which the file was opened.
    restored: Vec<(RecordAccount, RestoredCall)>,
    /// Time since every limit was spent, at that time, if the file is damaged in a way that says no more.
    lost: Option<Duration>,
    /// Uptime at that time.
    opened_at: Duration,
    /// Held for arithmetic only, never while writing: a line belongs to one call.
    lines: Mutex<Lines>,
    /// Held while writing: the backlog comes first.
    backlog: Mutex<Backlog>,
}

/// Use of the lines of the file, by index.
#[derive(Debug, Default)]
struct Lines {
    /// Age at which a call does not count any more.
    keep: Duration,
    /// Number of lines.
    count: u64,
    free: Vec<u64>,
    /// Lines of ended calls, oldest first, with the uptime from which they can be used again.
    ended: VecDeque<(Duration, u64)>,
}

/// Line of a call that has begun. Ended or refunded, it can be used again; dropped, it stays taken.
#[derive(Debug)]
#[must_use = "the line of a dropped slot is never used again"]
pub struct RecordSlot {
    line: u64,
    account: RecordAccount,
}

/// Call of an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredCall {
    /// Time since it ended, at most: never longer than it really is, as far as the clocks tell.
    pub age: Duration,
    /// Time until it counts at the latest, if its process died while it was in flight.
    pub ahead: Duration,
}

impl StateFile {
    /// Opens or creates the state file at `path`, and reads the calls in it. Calls that are older than `keep` (the
    /// longest window of a limit, with its guard) are forgotten. A call whose process died while it was in flight
    /// counts until `call_timeout` after it began.
    ///
    /// # Errors
    /// [`StateFileError`], if another process uses the file, if it has another content, or cannot be read or written.
    pub fn open(
        path: &Path,
        keep: Duration,
        call_timeout: Duration,
        environment: &Environment,
    ) -> Result<Self, StateFileError> {
        let boot = match &environment.uptime {
            None => BootClock::of_this_machine(),
            Some(uptime) => BootClock::manual(Some(0), uptime.clone()),
        };
        Self::open_at(path, keep, call_timeout, &environment.clock, boot)
    }

    fn open_at(
        path: &Path,
        keep: Duration,
        call_timeout: Duration,
        clock: &Clock,
        boot: BootClock,
    ) -> Result<Self, StateFileError> {
        let failed = |error| StateFileError::Io { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateFileError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Reading a device would not end.
        if !is_regular(&file).map_err(failed)? {
            return Err(StateFileError::NotOurs(path.to_owned()));
        }
        let mut text = read_all(&file).map_err(failed)?;
        if is_zeroed(&text) {
            telemetry::state_file_damaged(path);
            text = initialize_as_lost(&file, stamp(&boot, clock)).map_err(failed)?;
        }
        let records = match text.split_at_checked(RECORD_BYTES) {
            Some((header, records)) if header == HEADER => records,
            // The process that created the file was killed while it wrote the header.
            None if HEADER.starts_with(&text) => {
                file.write_all_at(HEADER, 0).map_err(failed)?;
                &[]
            }
            _ => return Err(StateFileError::NotOurs(path.to_owned())),
        };
        let mut recovery = Recovery::new(&boot, clock, keep, call_timeout);
        let mut lines = Lines { keep, ..Lines::default() };
        // A rest that is no whole line was being written when the process was killed. Its call was not made: it would
        // have begun after the write.
        for chunk in records.chunks_exact(RECORD_BYTES) {
            if let Some(rewritten) = recovery.read(lines.count, chunk, &mut lines.free) {
                file.write_all_at(&rewritten.encode(), offset(lines.count)).map_err(failed)?;
            }
            lines.count += 1;
        }
        let opened_at = boot.uptime();
        let (lost, restored) = recovery.finish(opened_at, &mut lines.ended);
        let (clock, lines, backlog) = (clock.clone(), Mutex::new(lines), Mutex::default());
        Ok(Self(Arc::new(Inner { file, clock, boot, restored, lost, opened_at, lines, backlog })))
    }

    /// Keeps calls for at least as long as `keep` from now on, because a limit with a longer window holds. The lines that
    /// have been used again by then are lost.
    pub fn keep_for(&self, keep: Duration) {
        let mut lines = self.lines();
        let longer = keep.saturating_sub(lines.keep);
        lines.keep += longer;
        lines.ended.iter_mut().for_each(|(reusable_at, _)| *reusable_at += longer);
    }

    /// Calls of `account` that earlier processes made, and that may still count.
    pub fn restored(&self, account: &str) -> Vec<RestoredCall> {
        let since = self.0.boot.uptime().saturating_sub(self.0.opened_at);
        let account = RecordAccount::of(account);
        let calls = self.0.restored.iter().filter(|(recorded, _)| recorded.counts_for(account));
        let aged = calls.map(|(_, call)| RestoredCall {
            age: (call.age + since).saturating_sub(call.ahead),
            ahead: call.ahead.saturating_sub(call.age + since),
        });
        let keep = self.lines().keep;
        aged.filter(|call| call.age <= keep).collect()
    }

    /// As many calls as spend all of `limits`, if the file was damaged in a way that says no more; otherwise none.
    pub fn lost(&self, limits: &[QuotaLimit]) -> impl Iterator<Item = RestoredCall> + use<> {
        let since = self.0.boot.uptime().saturating_sub(self.0.opened_at);
        let call = self.0.lost.map(|age| RestoredCall { age: age + since, ahead: Duration::ZERO });
        let largest = limits.iter().map(|limit| limit.requests).max().unwrap_or_default();
        call.into_iter().flat_map(move |call| std::iter::repeat_n(call, largest as usize))
    }

    /// Number of records that are missing in the file, and the reason; `None` if none are.
    pub fn problem(&self) -> Option<(usize, String)> {
        self.0.backlog().problem().map(|(records, error)| (records, error.to_owned()))
    }

    /// Records that a call of `account` begins. The record is in the file when this returns, unless the disk does not
    /// take it.
    pub fn begin(&self, account: &str) -> RecordSlot {
        let slot = RecordSlot { line: self.lines().next(self.0.boot.uptime()), account: RecordAccount::of(account) };
        self.write(&slot, RecordState::Open);
        slot
    }

    /// Records that the call ended. It counts from now on, until it is too old.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is given back once")]
    pub fn end(&self, slot: RecordSlot) {
        self.write(&slot, RecordState::Ended);
        let mut lines = self.lines();
        let reusable_at = self.0.boot.uptime() + lines.keep + CLOCK_RESOLUTION;
        lines.ended.push_back((reusable_at, slot.line));
    }

    /// Records that the call did not reach the upstream.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is given back once")]
    pub fn refund(&self, slot: RecordSlot) {
        self.write(&slot, RecordState::Free);
        self.lines().free.push(slot.line);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, slot: &RecordSlot, state: RecordState) {
        let record = StateRecord { state, account: slot.account, stamp: stamp(&self.0.boot, &self.0.clock) };
        let mut backlog = self.0.backlog();
        let was_empty = backlog.problem().is_none();
        match backlog.write(slot.line, record, |line, record| self.0.write(line, record)) {
            Ok(()) if was_empty => {}
            Ok(()) => telemetry::state_file_recovered(),
            Err(error) => {
                // This process still keeps the quota; only the next one may not know of the call.
                telemetry::state_file_failed(&error, was_empty);
                if let (true, Ok(runtime)) = (was_empty, Handle::try_current()) {
                    runtime.spawn(retry_backlog(Arc::downgrade(&self.0)));
                }
            }
        }
    }
}

impl Inner {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, line: u64, record: &StateRecord) -> io::Result<()> {
        self.file.write_all_at(&record.encode(), offset(line))
    }
}

/// Writes the backlog again at intervals, until it is empty.
async fn retry_backlog(state_file: Weak<Inner>) {
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        let Some(state_file) = state_file.upgrade() else { return };
        let mut backlog = state_file.backlog();
        if backlog.problem().is_none() {
            return;
        }
        if backlog.flush(|line, record| state_file.write(line, record)).is_ok() {
            return telemetry::state_file_recovered();
        }
    }
}

impl Lines {
    /// Takes a line for a call that begins: a free one, one whose call is too old, or a new one.
    fn next(&mut self, uptime: Duration) -> u64 {
        let aged = || self.ended.pop_front_if(|(reusable_at, _)| *reusable_at <= uptime).map(|(_, line)| line);
        self.free.pop().or_else(aged).unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }
}

fn stamp(boot: &BootClock, clock: &Clock) -> RecordStamp {
    RecordStamp { wall: clock.now().as_nanos().div_euclid(1_000_000), uptime: boot.uptime(), boot: boot.mark() }
}

/// Position of a line in the file, in bytes. The header comes before line 0.
fn offset(line: u64) -> u64 {
    (line + 1) * RECORD_BYTES as u64
}

/// Whether the file can be read to its end, and is not too long.
fn is_regular(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.len() <= MAX_FILE_BYTES)
}

/// Whether the file begins with zeros: after a power failure, a file system may know the length of a file, but not what
/// was written last.
fn is_zeroed(text: &[u8]) -> bool {
    let header = &text[..text.len().min(RECORD_BYTES)];
    !header.is_empty() && header.iter().all(|byte| *byte == 0)
}

/// Makes the file say only that everything was spent at `now`, and returns its text. The header is written last: a
/// process that is killed in between leaves a file that still begins with zeros.
fn initialize_as_lost(file: &File, now: RecordStamp) -> io::Result<Vec<u8>> {
    let record = StateRecord { state: RecordState::Lost, account: RecordAccount::ANY, stamp: now }.encode();
    file.write_all_at(&record, offset(0))?;
    file.set_len(offset(1))?;
    file.write_all_at(HEADER, 0)?;
    Ok([HEADER.as_slice(), &record].concat())
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut &*file, &mut text)?;
    Ok(text)
}
