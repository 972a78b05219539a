//! Tests of the segment log as a whole.

mod erasure;
mod faults;
mod model;
mod operations;
mod threads;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::files::{FileOperations, SystemFiles};
use super::{LogSettings, SegmentLog, Slot};

/// Bytes of a segment in these tests.
const SEGMENT_BYTES: u32 = 1024;
const MAX_BYTES: u64 = 8 * SEGMENT_BYTES as u64;

/// Codes of the operating system.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn settings(path: &Path) -> LogSettings {
    LogSettings { path: path.to_owned(), max_bytes: MAX_BYTES, segment_bytes: SEGMENT_BYTES }
}

fn open(directory: &TempDir) -> SegmentLog {
    SegmentLog::open(&settings(directory.path())).unwrap()
}

/// The live records by a scan.
fn scan(log: &SegmentLog) -> Vec<(Vec<u8>, Slot)> {
    let mut found = Vec::new();
    log.scan(&mut |meta, slot| found.push((meta.to_vec(), slot))).unwrap();
    found
}

/// Appends a record that fills a segment, and so begins another.
fn fill_segment(log: &SegmentLog, meta: &[u8]) -> Slot {
    log.append(meta, &vec![b'x'; log.max_batch_bytes() - SegmentLog::record_bytes(meta.len(), 0)]).unwrap()
}

/// The files of the log, in the order of their names.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

/// Whether any file of the directory has these bytes.
fn is_on_disk(directory: &Path, bytes: &[u8]) -> bool {
    let has = |path: &PathBuf| fs::read(path).unwrap().windows(bytes.len()).any(|part| part == bytes);
    files_of(directory).iter().any(has)
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Create,
    Open,
    Read,
    Write,
    SetLen,
    Sync,
    Remove,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Success,
    /// Only so many bytes are transferred.
    Short(usize),
    /// A failure with this code.
    Failure(i32),
}

/// The faults of a file system; its clones have the same.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<FaultTable>>);

#[derive(Debug, Default)]
struct FaultTable {
    next: BTreeMap<Call, VecDeque<Outcome>>,
    lasting: BTreeMap<Call, Outcome>,
    calls: BTreeMap<Call, usize>,
}

impl Faults {
    /// Sets what becomes of the next calls of a kind.
    fn next(&self, call: Call, outcomes: &[Outcome]) {
        self.0.lock().unwrap().next.entry(call).or_default().extend(outcomes);
    }

    /// Lets all calls of a kind fail.
    fn lasting(&self, calls: &[Call], code: i32) {
        let lasting = calls.iter().map(|call| (*call, Outcome::Failure(code)));
        self.0.lock().unwrap().lasting.extend(lasting);
    }

    /// Ends all faults.
    fn clear(&self) {
        *self.0.lock().unwrap() = FaultTable::default();
    }

    /// Number of calls of a kind since the faults were cleared.
    fn calls(&self, call: Call) -> usize {
        self.0.lock().unwrap().calls.get(&call).copied().unwrap_or_default()
    }

    /// The number of bytes that a call may transfer of `len`.
    fn check(&self, call: Call, len: usize) -> io::Result<usize> {
        let mut table = self.0.lock().unwrap();
        *table.calls.entry(call).or_default() += 1;
        let next = table.next.get_mut(&call).and_then(VecDeque::pop_front);
        match next.or_else(|| table.lasting.get(&call).copied()).unwrap_or(Outcome::Success) {
            Outcome::Success => Ok(len),
            Outcome::Short(bytes) => Ok(bytes.min(len)),
            Outcome::Failure(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn open(&self, directory: &TempDir) -> SegmentLog {
        SegmentLog::open_with(&settings(directory.path()), Box::new(self.clone())).unwrap()
    }
}

impl FileOperations for Faults {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.check(Call::Create, 0)?;
        SystemFiles.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.check(Call::Open, 0)?;
        SystemFiles.open(path)
    }

    fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        self.check(Call::Open, 0)?;
        SystemFiles.open_for_writing(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.check(Call::Read, buffer.len())?;
        SystemFiles.read_at(file, &mut buffer[..len], offset)
    }

    // Whether a page is cached is decided by the table, not by the machine.
    fn read_cached_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(file, buffer, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.check(Call::Write, bytes.len())?;
        SystemFiles.write_at(file, &bytes[..len], offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.check(Call::SetLen, 0)?;
        SystemFiles.set_len(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check(Call::Sync, 0)?;
        SystemFiles.sync(file)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Call::Remove, 0)?;
        SystemFiles.remove(path)
    }
}
