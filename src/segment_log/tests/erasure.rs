//! Erasure.

use std::fs;

use super::super::ReadError;
use super::super::directory::{index_path, segment_path};
use super::*;

/// A log with records in three segments; those with `secret` as a part of their meta bytes have it in the payload too.
fn filled(faults: &Faults, directory: &TempDir) -> (SegmentLog, Vec<Slot>) {
    let log = faults.open(directory);
    let append = |n: usize| {
        let (meta, text) =
            if n.is_multiple_of(3) { (format!("secret{n}"), "secret") } else { (format!("open{n}"), "plain") };
        log.append(meta.as_bytes(), text.repeat(20).as_bytes()).unwrap()
    };
    let slots = (0..18).map(append).collect();
    assert_eq!(log.segments().len(), 3);
    (log, slots)
}

fn erase(log: &SegmentLog) -> io::Result<u64> {
    log.erase(&mut |meta| meta.starts_with(b"secret"))
}

/// Compares what is there: all other records, and no byte of the erased ones.
fn check_erased(log: &SegmentLog, directory: &TempDir, slots: &[Slot]) {
    assert!(!is_on_disk(directory.path(), b"secret"));
    for (n, slot) in slots.iter().enumerate() {
        match log.read(*slot) {
            Err(ReadError::Damaged) if n.is_multiple_of(3) => {}
            Ok(record) if !n.is_multiple_of(3) => assert_eq!(record.meta, format!("open{n}")),
            other => panic!("record {n}: {other:?}"),
        }
    }
    let metas: Vec<_> = scan(log).into_iter().map(|(meta, _)| meta).collect();
    let wanted = (0..slots.len()).filter(|n| !n.is_multiple_of(3)).map(|n| format!("open{n}").into_bytes());
    assert_eq!(metas, wanted.collect::<Vec<_>>());
}

#[test]
fn erased_records_are_in_no_file_and_others_stay() {
    let directory = TempDir::new().unwrap();
    let faults = Faults::default();
    let (log, slots) = filled(&faults, &directory);
    assert!(is_on_disk(directory.path(), b"secret"));
    assert_eq!(erase(&log).unwrap(), 6);
    check_erased(&log, &directory, &slots);
    let syncs = faults.calls(Call::Sync);
    assert!(syncs >= 6, "{syncs}");
    assert_eq!(erase(&log).unwrap(), 0);
    assert_eq!(faults.calls(Call::Sync), syncs, "nothing is written where nothing matches");
    log.append(b"secret", b"secret").unwrap();
    assert_eq!(erase(&log).unwrap(), 1);
    drop(log);
    let log = open(&directory);
    check_erased(&log, &directory, &slots);
    // The segment that was continued gets its index file later.
    let (first, second) = (fill_segment(&log, b"a"), fill_segment(&log, b"b"));
    assert_eq!([first, second].map(|slot| slot.segment), [3, 4]);
    assert_eq!(scan(&log).len(), 14);
}

#[test]
fn damaged_parts_are_erased_with_any_record() {
    for index in [true, false] {
        let directory = TempDir::new().unwrap();
        let (log, slots) = filled(&Faults::default(), &directory);
        drop(log);
        let path = segment_path(directory.path(), 0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[slots[0].offset as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
        if !index {
            fs::remove_file(index_path(directory.path(), 0)).unwrap();
        }
        let log = open(&directory);
        // By its heads, the damaged record cannot be told from others, and is not counted.
        assert_eq!(erase(&log).unwrap(), if index { 6 } else { 5 });
        check_erased(&log, &directory, &slots);
        assert_eq!(erase(&log).unwrap(), 0);
    }
}

#[test]
fn invalid_index_file_is_wiped() {
    let directory = TempDir::new().unwrap();
    let (log, slots) = filled(&Faults::default(), &directory);
    drop(log);
    let path = index_path(directory.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5] ^= 1;
    fs::write(&path, bytes).unwrap();
    let log = open(&directory);
    assert_eq!(erase(&log).unwrap(), 6);
    assert!(!path.exists());
    check_erased(&log, &directory, &slots);
}

#[test]
fn file_that_cannot_be_told_is_deleted() {
    let directory = TempDir::new().unwrap();
    let (log, slots) = filled(&Faults::default(), &directory);
    drop(log);
    fs::write(segment_path(directory.path(), 8), b"kgs9 secret").unwrap();
    let log = open(&directory);
    fs::write(segment_path(directory.path(), 9), b"kgs1 secret").unwrap();
    fs::write(index_path(directory.path(), 9), b"secret").unwrap();
    fs::write(directory.path().join("purges"), b"not of the log").unwrap();
    assert_eq!(erase(&log).unwrap(), 6);
    check_erased(&log, &directory, &slots);
    assert!(directory.path().join("purges").exists());
}

#[test]
fn segment_that_cannot_be_overwritten_is_deleted() {
    for call in [Call::Write, Call::Sync, Call::Read] {
        let directory = TempDir::new().unwrap();
        let faults = Faults::default();
        let (log, slots) = filled(&faults, &directory);
        faults.lasting(&[call], EIO);
        erase(&log).unwrap();
        faults.clear();
        assert!(!is_on_disk(directory.path(), b"secret"), "{call:?}");
        assert!(!log.contains(slots[0]));
        let slot = log.append(b"next", b"").unwrap();
        assert_eq!(scan(&log), [(b"next".to_vec(), slot)]);
    }
}

#[test]
fn erasure_that_fails_is_finished_by_the_next() {
    // The number of writes and syncs that succeed before the disk is read-only.
    for (call, successes) in (0..12).flat_map(|n| [(Call::Write, n), (Call::Sync, n), (Call::SetLen, n)]) {
        let directory = TempDir::new().unwrap();
        let faults = Faults::default();
        let (log, slots) = filled(&faults, &directory);
        faults.next(call, &vec![Outcome::Success; successes]);
        faults.lasting(&[call, Call::Remove], EROFS);
        let interrupted = erase(&log);
        faults.clear();
        if let Ok(count) = interrupted {
            assert_eq!(count, 6);
            assert!(call != Call::Write, "there are more writes than {successes}");
        } else {
            erase(&log).unwrap();
        }
        check_erased(&log, &directory, &slots);
    }
}
