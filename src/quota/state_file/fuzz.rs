//! Fuzz target of the state file.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::boot_clock::BootClock;
use super::record::{HEADER, RECORD_BYTES, RecordAccount, RecordStamp, RecordState, StateRecord};
use super::{CLOCK_RESOLUTION, StateFile, StateFileError};
use crate::clock::Clock;
use crate::config::QuotaLimit;
use crate::fuzz_targets::Input;
use crate::window::Timestamp;

const KEEP: Duration = Duration::from_hours(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The wall clock when the file is opened, in milliseconds.
const NOW: i64 = 1_795_341_600_000;
/// The uptime then, and the mark of the boot.
const UPTIME: Duration = Duration::from_hours(50);
const BOOT: u32 = 1;

/// A file of arbitrary bytes, or of records that were changed, is either left as it is, or restores each call that may
/// still count, and one for each damaged line. Opened again, it restores the same.
///
/// # Panics
/// If a property does not hold.
pub fn state_file(data: &[u8]) {
    let mut input = Input::new(data);
    let bytes = if input.flag() { changed_records(&mut input) } else { input.rest().to_vec() };
    let path = path();
    fs::write(&path, &bytes).expect("a file in the folder of temporary files");
    let opened = open(&path);
    let header = &bytes[..bytes.len().min(RECORD_BYTES)];
    let is_zeroed = !header.is_empty() && header.iter().all(|byte| *byte == 0);
    let is_ours = header == HEADER || is_zeroed || HEADER.starts_with(&bytes);
    match opened {
        Err(StateFileError::NotOurs(_)) => {
            assert!(!is_ours, "a file of this format is refused");
            assert_eq!(fs::read(&path).expect("the file"), bytes, "another file was changed");
        }
        Err(error) => panic!("{error}"),
        Ok(file) if is_zeroed => {
            assert!(lost(&file), "a zeroed file is taken for an empty one");
            drop(file);
            assert!(lost(&open(&path).expect("the same file")));
        }
        Ok(file) => {
            assert!(is_ours, "another file is taken for a state file");
            let records = bytes.get(RECORD_BYTES..).unwrap_or_default();
            check_calls(&file, records);
            let before = ages(&file);
            drop(file);
            assert_eq!(ages(&open(&path).expect("the same file")), before, "opened again");
        }
    }
    let _ = fs::remove_file(&path);
}

/// A file in the folder of temporary files, which no other thread or process uses.
fn path() -> PathBuf {
    thread_local! {
        static PATH: RefCell<PathBuf> = RefCell::new(std::env::temp_dir().join(format!(
            "koregate-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()
        )));
    }
    PATH.with_borrow(Clone::clone)
}

fn open(path: &Path) -> Result<StateFile, StateFileError> {
    let uptime = Arc::new(AtomicU64::new(u64::try_from(UPTIME.as_millis()).unwrap_or_default()));
    let clock = Clock::manual(Timestamp::from_millis(NOW));
    StateFile::open_at(path, KEEP, CALL_TIMEOUT, &clock, BootClock::manual(Some(BOOT), uptime))
}

/// The header and some records, changed as the input says.
fn changed_records(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for _ in 0..input.byte() % 24 {
        let state = input.byte();
        let age = input.number() % (2 * 3_600_000) / if state & 4 == 0 { 1 } else { 1000 };
        let age_ms = i64::try_from(age).unwrap_or_default();
        let stamp = RecordStamp {
            wall: if state & 8 == 0 { NOW - age_ms } else { NOW + age_ms },
            uptime: UPTIME.saturating_sub(Duration::from_millis(age)),
            boot: [Some(BOOT), Some(BOOT + 1), None][usize::from(state >> 4 & 3) % 3],
        };
        let state_of_call = [RecordState::Open, RecordState::Ended, RecordState::Free][usize::from(state & 3) % 3];
        let account = RecordAccount::of(if state & 64 == 0 { "a" } else { "b" });
        bytes.extend(StateRecord { state: state_of_call, account, stamp }.encode());
    }
    while !input.is_at_end() {
        let (operation, place) = (input.byte(), input.below(bytes.len().clamp(1, 1 << 16)));
        match operation % 4 {
            0 => bytes.truncate(place),
            1 => bytes.get_mut(place..).into_iter().flatten().take(input.below(300)).for_each(|byte| *byte = 0),
            2 => bytes.extend(input.part(64)),
            _ => bytes.get_mut(place).into_iter().for_each(|byte| *byte ^= input.byte()),
        }
    }
    bytes
}

/// Each whole line counts for an account unless it says that there is no call, that the call is of another account, or
/// that the call is too old.
fn check_calls(file: &StateFile, records: &[u8]) {
    let mut is_lost = false;
    let mut wanted = [0, 0];
    for line in records.chunks_exact(RECORD_BYTES) {
        let record = StateRecord::decode(line);
        let counts =
            record.is_none_or(|record| record.state != RecordState::Free && age(record) <= oldest(record.state));
        is_lost |= counts && record.is_some_and(|record| record.state == RecordState::Lost);
        for (wanted, account) in wanted.iter_mut().zip(["a", "b"]) {
            let is_its = record.is_none_or(|record| record.account.counts_for(RecordAccount::of(account)));
            *wanted += usize::from(counts && is_its);
        }
    }
    let found = ["a", "b"].map(|account| file.restored(account).len());
    assert_eq!(found, wanted, "restored calls");
    assert_eq!(lost(file), is_lost);
}

/// The age of a record, in milliseconds, by the clock that it shares with this process; negative in the future.
fn age(StateRecord { stamp, .. }: StateRecord) -> i128 {
    if stamp.boot == Some(BOOT) {
        UPTIME.as_millis().cast_signed() - stamp.uptime.as_millis().cast_signed()
    } else {
        i128::from(NOW) - i128::from(stamp.wall)
    }
}

/// The largest age at which a call counts.
fn oldest(state: RecordState) -> i128 {
    let in_flight = if state == RecordState::Open { CALL_TIMEOUT } else { Duration::ZERO };
    (KEEP + CLOCK_RESOLUTION + in_flight).as_millis().cast_signed()
}

/// Whether the file says that every limit was spent.
fn lost(file: &StateFile) -> bool {
    let limit = QuotaLimit { requests: 7, per: Duration::from_mins(1) };
    let calls = file.lost(&[limit]).count();
    assert!(calls == 0 || calls == 7);
    calls == 7
}

/// The ages of the restored calls of both accounts.
fn ages(file: &StateFile) -> [Vec<(Duration, Duration)>; 2] {
    ["a", "b"].map(|account| {
        let mut ages: Vec<_> = file.restored(account).iter().map(|call| (call.age, call.ahead)).collect();
        ages.sort_unstable();
        assert!(ages.iter().all(|(age, ahead)| *age <= KEEP && *ahead <= CALL_TIMEOUT));
        ages
    })
}
