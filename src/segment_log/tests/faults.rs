//! Failures of the disk.

use super::*;

#[test]
fn full_disk_refuses_a_record_and_the_next_evicts_a_segment() {
    let directory = TempDir::new().unwrap();
    let faults = Faults::default();
    let log = faults.open(&directory);
    let slots = [b"a", b"b", b"c"].map(|meta| fill_segment(&log, meta));
    let first = log.append(b"d", b"first").unwrap();
    faults.next(Call::Write, &[Outcome::Short(10), Outcome::Failure(ENOSPC)]);
    assert_eq!(log.append(b"d", b"second").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(log.contains(slots[0]));
    assert_eq!(log.reserve(100).unwrap(), first.segment);
    assert!(!log.contains(slots[0]) && log.contains(slots[1]));
    let second = log.append(b"d", b"second").unwrap();
    assert_eq!(second.segment, first.segment, "the segment was cut, and is continued");
    assert!(log.contains(slots[1]), "one was evicted");
    assert_eq!(log.read(second).unwrap().payload, "second");
    drop(log);
    assert_eq!(scan(&open(&directory)).len(), 4);
}

#[test]
fn segment_that_finds_the_disk_full_is_begun_after_an_eviction() {
    for call in [Call::Create, Call::Write] {
        let directory = TempDir::new().unwrap();
        let faults = Faults::default();
        let log = faults.open(&directory);
        let slots = [b"a", b"b"].map(|meta| fill_segment(&log, meta));
        // The first call is that of the index file, which can be done without.
        faults.next(call, &[Outcome::Failure(ENOSPC), Outcome::Failure(ENOSPC)]);
        let next = log.append(b"c", b"").unwrap();
        assert_eq!(slots.map(|slot| log.contains(slot)), [false, true]);
        assert_eq!(scan(&log), [(b"b".to_vec(), slots[1]), (b"c".to_vec(), next)]);
        // One retry and no more.
        log.remove(next.segment).unwrap();
        faults.next(call, &[Outcome::Failure(ENOSPC), Outcome::Failure(ENOSPC)]);
        assert!(log.append(b"d", b"").is_err());
        assert!(log.append(b"d", b"").is_ok(), "{call:?}");
    }
}

#[test]
fn segment_that_cannot_be_cut_is_left_and_scanned() {
    for (written, is_reopened) in [(1, true), (30, true), (60, true), (60, false)] {
        let directory = TempDir::new().unwrap();
        let faults = Faults::default();
        let log = faults.open(&directory);
        let first = log.append(b"a", b"first").unwrap();
        faults.next(Call::Write, &[Outcome::Short(written), Outcome::Failure(EIO)]);
        faults.next(Call::SetLen, &[Outcome::Failure(EIO)]);
        assert!(log.append(b"b", &[7; 100]).is_err());
        let second = log.append(b"b", b"second").unwrap();
        assert_eq!(second.segment, first.segment + 1);
        let wanted = [(b"a".to_vec(), first), (b"b".to_vec(), second)];
        assert_eq!(scan(&log), wanted);
        let log = if is_reopened {
            drop(log);
            open(&directory)
        } else {
            log
        };
        assert_eq!(scan(&log), wanted);
        assert_eq!(log.erase(&mut |meta| meta == b"b").unwrap(), 1);
        assert!(!is_on_disk(directory.path(), &[7; 8]), "the part of the record");
        assert_eq!(scan(&log), wanted[..1]);
    }
}

#[test]
fn read_only_disk_still_reads_and_recovers() {
    let directory = TempDir::new().unwrap();
    let faults = Faults::default();
    let log = faults.open(&directory);
    let slots = [b"a", b"b"].map(|meta| fill_segment(&log, meta));
    faults.lasting(&[Call::Create, Call::Write, Call::SetLen, Call::Remove, Call::Sync], EROFS);
    for _ in 0..3 {
        assert_eq!(log.append(b"c", b"").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(log.reserve(1).is_err() && log.evict().is_err() && log.clear().is_err());
    }
    assert!(log.erase(&mut |_| true).is_err());
    log.check().unwrap();
    assert!(slots.iter().all(|slot| log.read(*slot).is_ok()));
    faults.clear();
    let slot = log.append(b"c", b"").unwrap();
    assert_eq!(log.read(slot).unwrap().meta, "c");
    assert_eq!(scan(&log).len(), 3);
}

#[test]
fn segment_that_cannot_be_read_does_not_hide_the_others() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slots = [b"a", b"b", b"c"].map(|meta| fill_segment(&log, meta));
    drop(log);
    let faults = Faults::default();
    let log = faults.open(&directory);
    // The header of the first, its index file and that of the second, which is then damaged.
    faults.next(Call::Read, &[Outcome::Success, Outcome::Success, Outcome::Failure(EIO)]);
    let mut found = Vec::new();
    assert!(log.scan(&mut |_, slot| found.push(slot)).is_err());
    assert_eq!(found, [slots[0], slots[2]]);
    assert_eq!(scan(&log).len(), 3);
    faults.next(Call::Read, &[Outcome::Failure(EIO)]);
    assert!(matches!(log.read(slots[0]), Err(super::super::ReadError::Io(_))));
    assert!(log.read(slots[0]).is_ok());
}

#[test]
fn last_segment_that_cannot_be_continued_is_followed_by_another() {
    for (call, skipped) in [(Call::Open, 0), (Call::Open, 1), (Call::Read, 1)] {
        let directory = TempDir::new().unwrap();
        let log = open(&directory);
        let first = log.append(b"a", b"").unwrap();
        drop(log);
        let faults = Faults::default();
        let log = faults.open(&directory);
        faults.next(call, &vec![Outcome::Success; skipped]);
        faults.next(call, &[Outcome::Failure(EIO)]);
        let second = log.append(b"b", b"").unwrap();
        assert_eq!(second.segment, first.segment + 1, "{call:?}");
        assert_eq!(scan(&log).len(), 2);
    }
}
