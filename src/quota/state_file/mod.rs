//! The state file: what a process that was killed has spent, for the one that comes after it.
//!
//! One line of text for each call that may still count, all of one width, overwritten in place. So the file is never
//! half rewritten, needs no clearing up, and is as small as the most calls that ever counted at once. No line crosses
//! the border of a memory page, and each is written in one go: a process that is killed leaves it old or new, never
//! mixed. It is not synced to disk: what dies is the process. After a power failure it may know less than it should; if it
//! begins with zeros in place of what was written, everything counts as spent. Lines that a full disk does not take are
//! written as soon as there is room.

mod backlog;
mod boot_clock;
mod record;
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
use self::record::{HEADER, RecordAccount, RecordStamp, State, StateRecord, WIDTH};

use crate::clock::Clock;
use crate::config::QuotaLimit;
use crate::telemetry;
use crate::window::Timestamp;

/// A million calls that count at once.
const MOST_BYTES: u64 = 64 << 20;

/// Both clocks tell time in steps; no age is taken for longer than it is by one of them.
const STEP: Duration = Duration::from_millis(10);

/// How often lines that the disk did not take are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be opened, read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// Two processes that share a quota must not share its state.
    #[error("{}: another process uses this state file", .0.display())]
    InUse(PathBuf),
    /// It is left as it is.
    #[error("{}: not a state file of koregate's; it is not overwritten", .0.display())]
    NotOurs(PathBuf),
}

/// The state file, for all accounts of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct StateFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked until the process ends, however it ends.
    file: File,
    keep: Duration,
    clock: Clock,
    boot: BootClock,
    /// The calls of processes before this one, as they stood when the file was opened.
    found: Vec<(RecordAccount, RestoredCall)>,
    /// How long ago, at that moment, every limit was spent, as far as a damaged file can tell.
    lost: Option<Duration>,
    /// The uptime at that moment.
    opened: Duration,
    /// Held for arithmetic only, never while writing: a slot belongs to one call.
    slots: Mutex<Slots>,
    /// Held while writing: what could not be written comes first.
    backlog: Mutex<Backlog>,
}

/// Which lines are whose, by their place in the file.
#[derive(Debug, Default)]
struct Slots {
    /// How many there are.
    count: u64,
    free: Vec<u64>,
    /// Those of ended calls, oldest first, with the uptime at which they may be used again.
    ended: VecDeque<(Duration, u64)>,
}

/// A call that has begun, and its line. It must be ended or refunded; else its line stays taken.
#[derive(Debug)]
#[must_use = "a slot that is dropped is never used again"]
pub struct RecordSlot {
    place: u64,
    account: RecordAccount,
}

/// A call of a process before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredCall {
    /// How long ago it ended, at most: never longer than is true, as far as the clocks can tell.
    pub age: Duration,
    /// How long it may yet be until it counts: its process died with it under way.
    pub ahead: Duration,
}

impl StateFile {
    /// Opens the state file at `path`, or makes it, and reads what it knows. Calls are forgotten when they are older
    /// than `keep`: the longest limit, and what the ledger adds to it. One whose process died with it under way may have
    /// counted until `linger` after it began.
    ///
    /// # Errors
    /// [`StateFileError`], if another process uses the file, if it is something else, or cannot be read and written.
    pub fn open(path: &Path, keep: Duration, linger: Duration, clock: &Clock) -> Result<Self, StateFileError> {
        Self::open_at(path, keep, linger, clock, BootClock::of_this_machine())
    }

    fn open_at(
        path: &Path,
        keep: Duration,
        linger: Duration,
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
        // A device would be read for ever, and no state file grows so large.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MOST_BYTES {
            return Err(StateFileError::NotOurs(path.to_owned()));
        }
        let mut text = read_all(&file).map_err(failed)?;
        if is_zeroed(&text) {
            telemetry::state_file_damaged(path);
            text = begin_lost(&file, stamp(&boot, clock)).map_err(failed)?;
        }
        let lines = match text.split_at_checked(WIDTH) {
            Some((header, lines)) if header == HEADER => lines,
            // Killed while it was made.
            None if HEADER.starts_with(&text) => {
                file.write_all_at(HEADER, 0).map_err(failed)?;
                &[]
            }
            _ => return Err(StateFileError::NotOurs(path.to_owned())),
        };
        let mut reading =
            Reading { now: stamp(&boot, clock), boot: &boot, clock, keep, linger, ended: Vec::new(), lost: None };
        let mut slots = Slots::default();
        // What is left over is a line that was being added when the process was killed. Its call never began, for it
        // waited for the line.
        for chunk in lines.chunks_exact(WIDTH) {
            if let Some(rewritten) = reading.take(slots.count, chunk, &mut slots.free) {
                file.write_all_at(&rewritten.text(), offset(slots.count)).map_err(failed)?;
            }
            slots.count += 1;
        }
        let opened = boot.uptime();
        let usable = |call: &RestoredCall| (opened + keep + call.ahead).saturating_sub(call.age);
        reading.ended.sort_by_key(|(call, ..)| usable(call));
        slots.ended = reading.ended.iter().map(|(call, _, place)| (usable(call), *place)).collect();
        let found = reading.ended.into_iter().map(|(call, account, _)| (account, call)).collect();
        let (lost, clock, slots, backlog) = (reading.lost, clock.clone(), Mutex::new(slots), Mutex::default());
        Ok(Self(Arc::new(Inner { file, keep, clock, boot, found, lost, opened, slots, backlog })))
    }

    /// The calls of `account` that processes before this one made, and that may still count.
    pub fn restored(&self, account: &str) -> Vec<RestoredCall> {
        let since = self.0.boot.uptime().saturating_sub(self.0.opened);
        let account = RecordAccount::of(account);
        let calls = self.0.found.iter().filter(|(of, _)| of.may_be(account));
        let aged = calls.map(|(_, call)| RestoredCall {
            age: (call.age + since).saturating_sub(call.ahead),
            ahead: call.ahead.saturating_sub(call.age + since),
        });
        aged.filter(|call| call.age <= self.0.keep).collect()
    }

    /// As many calls as spend all of `limits`, if that is what a damaged file has to be taken for; otherwise none.
    pub fn lost(&self, limits: &[QuotaLimit]) -> impl Iterator<Item = RestoredCall> + use<> {
        let since = self.0.boot.uptime().saturating_sub(self.0.opened);
        let call = self.0.lost.map(|age| RestoredCall { age: age + since, ahead: Duration::ZERO });
        let most = limits.iter().map(|limit| limit.requests).max().unwrap_or_default();
        call.into_iter().flat_map(move |call| std::iter::repeat_n(call, most as usize))
    }

    /// How many calls are missing in the file, and why; `None` if none are.
    pub fn problem(&self) -> Option<(usize, String)> {
        self.0.backlog().problem().map(|(calls, why)| (calls, why.to_owned()))
    }

    /// A call of `account` begins: that stands in the file before this returns, unless the disk does not take it.
    pub fn begin(&self, account: &str) -> RecordSlot {
        let slot = RecordSlot { place: self.lock().next(self.0.boot.uptime()), account: RecordAccount::of(account) };
        self.write(&slot, State::Open);
        slot
    }

    /// The call ended, and counts from now on until it is too old.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is given back once")]
    pub fn end(&self, slot: RecordSlot) {
        self.write(&slot, State::Ended);
        let reusable = self.0.boot.uptime() + self.0.keep + STEP;
        self.lock().ended.push_back((reusable, slot.place));
    }

    /// The call never reached the upstream.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is given back once")]
    pub fn refund(&self, slot: RecordSlot) {
        self.write(&slot, State::Free);
        self.lock().free.push(slot.place);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, slot: &RecordSlot, state: State) {
        let line = StateRecord { state, account: slot.account, stamp: stamp(&self.0.boot, &self.0.clock) };
        let mut backlog = self.0.backlog();
        let is_first = backlog.problem().is_none();
        match backlog.put(slot.place, line, |place, line| self.0.write(place, line)) {
            Ok(()) if is_first => {}
            Ok(()) => telemetry::state_file_recovered(),
            Err(error) => {
                // The quota is still kept by this process; only the next one may not know.
                telemetry::state_file_failed(&error, is_first);
                if let (true, Ok(runtime)) = (is_first, Handle::try_current()) {
                    runtime.spawn(catch_up(Arc::downgrade(&self.0)));
                }
            }
        }
    }
}

impl Inner {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, place: u64, line: &StateRecord) -> io::Result<()> {
        self.file.write_all_at(&line.text(), offset(place))
    }
}

/// Tries again to write what the disk did not take, until all is written.
async fn catch_up(journal: Weak<Inner>) {
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        let Some(journal) = journal.upgrade() else { return };
        let mut backlog = journal.backlog();
        if backlog.problem().is_none() {
            return;
        }
        if backlog.flush(|place, line| journal.write(place, line)).is_ok() {
            return telemetry::state_file_recovered();
        }
    }
}

impl Slots {
    /// The line for the next call.
    fn next(&mut self, now: Duration) -> u64 {
        let aged = || self.ended.pop_front_if(|(reusable, _)| *reusable <= now).map(|(_, place)| place);
        self.free.pop().or_else(aged).unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }
}

/// What is made of the lines of a process before this one.
struct Reading<'a> {
    now: RecordStamp,
    boot: &'a BootClock,
    clock: &'a Clock,
    keep: Duration,
    linger: Duration,
    /// The calls that may still count, with their account and place.
    ended: Vec<(RestoredCall, RecordAccount, u64)>,
    /// How long ago every limit was spent, at the least.
    lost: Option<Duration>,
}

impl Reading<'_> {
    /// Takes in one line. Returns what it is to be replaced by, if what it says now would be misread next time.
    fn take(&mut self, place: u64, text: &[u8], free: &mut Vec<u64>) -> Option<StateRecord> {
        let (state, account, age, linger) = match StateRecord::read(text) {
            Some(StateRecord { state: State::Free, .. }) => {
                free.push(place);
                return None;
            }
            Some(StateRecord { state: State::Ended, account, stamp }) => {
                (State::Ended, account, self.age(stamp), Duration::ZERO)
            }
            // Whoever made it is dead, but the upstream may have taken it in until it would have timed out.
            Some(StateRecord { state: State::Open, account, stamp }) => {
                (State::Open, account, self.age(stamp), self.linger)
            }
            Some(StateRecord { state: State::Lost, account, stamp }) => {
                (State::Lost, account, self.age(stamp), Duration::ZERO)
            }
            // Somebody's call, most likely. To count one too many for an hour costs less than to miss one.
            None => (State::Ended, RecordAccount::ANY, None, Duration::ZERO),
        };
        if age.is_some_and(|age| age > self.keep + linger) {
            free.push(place);
            return None;
        }
        let since = age.unwrap_or_default();
        if state == State::Lost {
            self.lost = Some(self.lost.map_or(since, |lost| lost.min(since)));
        }
        let call = RestoredCall { age: since.saturating_sub(linger), ahead: linger.saturating_sub(since) };
        self.ended.push((call, account, place));
        age.is_none().then_some(StateRecord { state, account, stamp: self.now })
    }

    /// How old what was written at `stamp` is; `None` if it would be from the future.
    fn age(&self, stamp: RecordStamp) -> Option<Duration> {
        let age = if stamp.boot == self.boot.mark() && stamp.boot.is_some() {
            self.now.uptime.checked_sub(stamp.uptime)
        } else {
            let wall = Timestamp::from_millis(stamp.wall);
            (wall <= self.clock.now()).then(|| self.clock.now().since(wall))
        };
        age.map(|age| age.saturating_sub(STEP))
    }
}

fn stamp(boot: &BootClock, clock: &Clock) -> RecordStamp {
    RecordStamp { wall: clock.now().as_nanos().div_euclid(1_000_000), uptime: boot.uptime(), boot: boot.mark() }
}

fn offset(place: u64) -> u64 {
    (place + 1) * WIDTH as u64
}

/// Whether the file begins with zeros: after a power failure, a file system may know how long a file was, but not what
/// was written last.
fn is_zeroed(text: &[u8]) -> bool {
    let header = &text[..text.len().min(WIDTH)];
    !header.is_empty() && header.iter().all(|byte| *byte == 0)
}

/// Makes a file that says only that everything was spent at `now`; its text. The header comes last: a process that is
/// killed in between leaves a file that begins with zeros still.
fn begin_lost(file: &File, now: RecordStamp) -> io::Result<Vec<u8>> {
    let line = StateRecord { state: State::Lost, account: RecordAccount::ANY, stamp: now }.text();
    file.write_all_at(&line, offset(0))?;
    file.set_len(offset(1))?;
    file.write_all_at(HEADER, 0)?;
    Ok([HEADER.as_slice(), &line].concat())
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut &*file, &mut text)?;
    Ok(text)
}
