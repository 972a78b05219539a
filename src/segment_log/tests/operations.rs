//! Opening, appending, reading, eviction and checking.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use super::super::directory::segment_path;
use super::super::{OpenError, ReadError, Record};
use super::*;

#[test]
fn appended_record_reads_back_also_after_reopening() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let record = Record { meta: b"meta".as_slice().into(), payload: b"payload".as_slice().into() };
    let slot = log.append(&record.meta, &record.payload).unwrap();
    let empty = log.append(b"", b"").unwrap();
    assert_eq!((slot.offset, slot.len, empty.len), (16, 7, 0));
    assert_eq!(log.read(slot).unwrap(), record);
    assert_eq!(log.read(empty).unwrap().payload, "");
    drop(log);
    let log = open(&directory);
    assert_eq!(scan(&log), [(b"meta".to_vec(), slot), (vec![], empty)]);
    assert_eq!(log.read(slot).unwrap(), record);
    let next = log.append(b"next", b"").unwrap();
    assert_eq!(next.segment, slot.segment, "the segment is continued");
    assert_eq!(scan(&log).len(), 3);
}

#[test]
fn other_slots_are_gone_or_damaged() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slot = log.append(b"meta", b"payload").unwrap();
    for other in [
        Slot { offset: slot.offset + 1, ..slot },
        Slot { offset: u32::MAX, ..slot },
        Slot { offset: 0, ..slot },
        Slot { len: slot.len - 1, ..slot },
        Slot { len: u32::MAX, ..slot },
    ] {
        assert!(matches!(log.read(other), Err(ReadError::Damaged)), "{other:?}");
        assert!(matches!(log.read_cached(other), None | Some(Err(ReadError::Damaged))), "{other:?}");
        assert!(log.contains(other));
    }
    let other = Slot { segment: slot.segment + 1, ..slot };
    assert!(matches!(log.read(other), Err(ReadError::Gone)));
    assert!(matches!(log.read_cached(other), Some(Err(ReadError::Gone))));
    assert!(!log.contains(other));
}

#[test]
fn lock_refuses_a_second_opener_until_the_last_clone_is_dropped() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let clone = log.clone();
    drop(log);
    assert!(matches!(SegmentLog::open(&settings(directory.path())), Err(OpenError::InUse)));
    drop(clone);
    open(&directory);
}

#[test]
fn directory_that_cannot_be_created_is_an_error() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SegmentLog::open(&settings(&file.join("log"))).unwrap_err();
    assert!(error.to_string().starts_with("cannot create the directory: "), "{error}");
}

#[test]
fn new_files_are_readable_by_their_owner_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new/log");
    let log = SegmentLog::open(&settings(&path)).unwrap();
    fill_segment(&log, b"one");
    fill_segment(&log, b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let files = files_of(&path);
    assert_eq!(files.len(), 3);
    for file in files.iter().chain([&path.join("lock")]) {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn opening_reads_no_file() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slots = [b"a", b"b", b"c"].map(|meta| fill_segment(&log, meta));
    drop(log);
    let faults = Faults::default();
    let log = faults.open(&directory);
    assert_eq!((faults.calls(Call::Open), faults.calls(Call::Read)), (0, 0));
    assert!(slots.iter().all(|slot| log.contains(*slot)));
    assert_eq!(log.segments().len(), 3);
}

#[test]
fn full_segments_are_listed_by_their_index_files() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let small: Vec<_> = (0..20_u8).map(|n| (vec![n], log.append(&[n], &[n; 100]).unwrap())).collect();
    let last = small.last().unwrap().1.segment;
    drop(log);
    let faults = Faults::default();
    let log = faults.open(&directory);
    assert_eq!(scan(&log), small);
    // Header of the segment and the index file; the heads of the last, which is not full.
    assert_eq!(faults.calls(Call::Read), usize::try_from(last).unwrap() * 2 + 2);
    drop(log);
    for file in files_of(directory.path()).iter().filter(|file| file.extension().unwrap() == "index") {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(scan(&open(&directory)), small, "without index files");
}

#[test]
fn batch_that_was_reserved_lies_in_one_segment() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    for count in 1..8 {
        let batch = SegmentLog::record_bytes(4, 100) * count;
        let reserved = log.reserve(batch).unwrap();
        let slots: Vec<_> = (0..count).map(|_| log.append(b"meta", &[1; 100]).unwrap()).collect();
        assert!(slots.iter().all(|slot| slot.segment == reserved), "{slots:?}");
    }
    assert_eq!(log.reserve(log.max_batch_bytes() + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(log.append(b"", &[0; 1000]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(log.append(&[0; 256], b"").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    log.append(&[0; 255], b"").unwrap();
    log.reserve(log.max_batch_bytes()).unwrap();
}

#[test]
fn settings_have_at_least_eight_segments() {
    assert_eq!(LogSettings::new("log", 10 << 30).segment_bytes, 64 << 20);
    assert_eq!(LogSettings::new("log", 64 << 20).segment_bytes, 8 << 20);
    assert_eq!(LogSettings::new("log", u64::MAX).segment_bytes, 64 << 20);
    let directory = TempDir::new().unwrap();
    let log = SegmentLog::open(&LogSettings::new(directory.path(), 0)).unwrap();
    log.append(b"one", &[1; 100]).unwrap();
    let slot = log.append(b"two", &[1; 100]).unwrap();
    assert_eq!(scan(&log), [(b"two".to_vec(), slot)], "one segment at a time");
}

#[test]
fn segment_that_was_not_used_for_longest_is_evicted_also_by_the_next_process() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slots: Vec<_> = (0..6_u8).map(|n| fill_segment(&log, &[n])).collect();
    // The order of these uses is neither that of the numbers nor that of writing.
    for used in [4, 1, 0] {
        log.read(slots[used]).unwrap();
    }
    let order = |log: &SegmentLog| log.segments().iter().map(|info| info.segment).collect::<Vec<_>>();
    assert_eq!(order(&log), [2, 3, 5, 4, 1, 0]);
    drop(log);
    let log = open(&directory);
    assert_eq!(order(&log), [2, 3, 5, 4, 1, 0]);
    assert!(log.evict().unwrap() && log.evict().unwrap());
    assert_eq!(
        slots.iter().map(|slot| log.contains(*slot)).collect::<Vec<_>>(),
        [true, true, false, false, true, true]
    );
    assert!(matches!(log.read(slots[2]), Err(ReadError::Gone)));
}

#[test]
fn active_segment_is_evicted_only_if_it_is_the_only_one() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    assert!(!log.evict().unwrap());
    let slots = [b"a", b"b"].map(|meta| fill_segment(&log, meta));
    log.read(slots[0]).unwrap();
    assert_eq!(log.segments().iter().map(|info| info.is_active).collect::<Vec<_>>(), [true, false]);
    assert!(log.evict().unwrap());
    assert_eq!(slots.map(|slot| log.contains(slot)), [false, true]);
    assert!(log.evict().unwrap() && !log.evict().unwrap());
    assert_eq!(log.append(b"c", b"").unwrap().segment, 2, "numbers are not used again");
}

#[test]
fn log_stays_within_its_bytes_and_counts_them() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    for n in 0..500_usize {
        log.append(&[7; 40], &vec![1; n * 37 % 400]).unwrap();
        let on_disk: u64 = files_of(directory.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert_eq!(log.bytes(), on_disk);
        assert!(on_disk <= MAX_BYTES + u64::from(SEGMENT_BYTES), "{on_disk}");
        assert_eq!(log.segments().iter().map(|info| info.bytes).sum::<u64>(), on_disk);
    }
    assert!(log.segments().len() >= 6, "eviction leaves most segments");
}

#[test]
fn removed_segment_is_gone_and_clear_removes_all() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slots = [b"a", b"b", b"c"].map(|meta| fill_segment(&log, meta));
    log.remove(slots[1].segment).unwrap();
    log.remove(77).unwrap();
    assert_eq!(slots.map(|slot| log.contains(slot)), [true, false, true]);
    log.remove(slots[2].segment).unwrap();
    let next = fill_segment(&log, b"d");
    assert_eq!(scan(&log), [(b"a".to_vec(), slots[0]), (b"d".to_vec(), next)]);
    fs::write(directory.path().join("purges"), "another file").unwrap();
    log.clear().unwrap();
    assert_eq!((scan(&log), log.bytes()), (vec![], 0));
    assert!(files_of(directory.path()).is_empty());
    assert!(directory.path().join("purges").exists());
    log.append(b"e", b"").unwrap();
}

#[test]
fn file_of_another_version_is_kept_until_room_is_needed() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slot = fill_segment(&log, b"a");
    drop(log);
    let other = segment_path(directory.path(), 1);
    fs::write(&other, b"kgs9 and other bytes of another version").unwrap();
    let log = open(&directory);
    assert_eq!(scan(&log), [(b"a".to_vec(), slot)]);
    assert_eq!(log.segments().len(), 1, "there is nothing to compact in it");
    assert!(log.bytes() > fs::metadata(&other).unwrap().len());
    assert_eq!(log.append(b"b", b"").unwrap().segment, 2);
    assert!(other.exists());
    assert!(log.evict().unwrap());
    assert!(!other.exists() && log.contains(slot));
}

#[test]
fn torn_tail_is_cut_off_before_more_is_appended() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let first = log.append(b"first", &[1; 100]).unwrap();
    let torn = log.append(b"torn", &[2; 100]).unwrap();
    drop(log);
    let path = segment_path(directory.path(), 0);
    let bytes = fs::read(&path).unwrap();
    for cut in torn.offset as usize..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let log = open(&directory);
        assert_eq!(scan(&log), [(b"first".to_vec(), first)], "cut at {cut}");
        let next = log.append(b"next", b"short").unwrap();
        assert_eq!((next.segment, next.offset), (torn.segment, torn.offset));
        drop(log);
        assert_eq!(scan(&open(&directory)), [(b"first".to_vec(), first), (b"next".to_vec(), next)]);
    }
}

#[test]
fn directory_that_is_removed_is_begun_again_by_a_check() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log");
    let log = SegmentLog::open(&settings(&path)).unwrap();
    let slot = fill_segment(&log, b"a");
    log.check().unwrap();
    assert!(log.contains(slot));
    fs::remove_dir_all(&path).unwrap();
    log.check().unwrap();
    assert_eq!((scan(&log), log.bytes()), (vec![], 0));
    let next = log.append(b"b", b"").unwrap();
    assert_eq!(next.segment, slot.segment + 1);
    assert_eq!(log.read(next).unwrap().meta, "b");
    assert!(matches!(SegmentLog::open(&settings(&path)), Err(OpenError::InUse)), "the new directory is locked");
}

#[test]
fn files_that_are_removed_cut_or_added_are_noticed_by_a_check() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slots = [b"a", b"b", b"c"].map(|meta| fill_segment(&log, meta));
    let copy = fs::read(segment_path(directory.path(), 0)).unwrap();
    fs::remove_file(segment_path(directory.path(), 0)).unwrap();
    fs::write(segment_path(directory.path(), 9), &copy).unwrap();
    log.check().unwrap();
    assert_eq!(slots.map(|slot| log.contains(slot)), [false, true, true]);
    assert!(!segment_path(directory.path(), 9).exists(), "a file of another log may hold anything");
    let active = fs::OpenOptions::new().write(true).open(segment_path(directory.path(), 2)).unwrap();
    active.set_len(20).unwrap();
    log.check().unwrap();
    assert!(matches!(log.read(slots[2]), Err(ReadError::Damaged)));
    let next = log.append(b"d", b"").unwrap();
    assert_eq!(next.segment, 3, "no record follows a cut");
    // Another file in its place.
    fs::remove_file(segment_path(directory.path(), 3)).unwrap();
    fs::write(segment_path(directory.path(), 3), copy).unwrap();
    log.check().unwrap();
    assert!(!log.contains(next));
    assert_eq!(log.append(b"e", b"").unwrap().segment, 4);
}

#[test]
fn file_that_was_replaced_before_it_was_opened_is_gone() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slot = fill_segment(&log, b"a");
    drop(log);
    let path = segment_path(directory.path(), slot.segment);
    let log = open(&directory);
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert!(matches!(log.read(slot), Err(ReadError::Gone)));
    log.check().unwrap();
    assert!(!log.contains(slot));
}

#[test]
fn directory_that_another_log_took_over_is_left_alone_until_it_is_free() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let slot = log.append(b"a", b"").unwrap();
    fs::remove_file(directory.path().join("lock")).unwrap();
    let other = open(&directory);
    other.append(b"other", b"").unwrap();
    assert_eq!(log.check().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(log.append(b"b", b"").is_err());
    assert!(matches!(log.read(slot), Err(ReadError::Gone)));
    assert_eq!(scan(&other).len(), 2);
    drop(other);
    log.check().unwrap();
    let next = log.append(b"c", b"").unwrap();
    assert_eq!(scan(&log), [(b"c".to_vec(), next)]);
}

#[test]
fn cached_read_needs_the_whole_record_in_the_cache() {
    let directory = TempDir::new().unwrap();
    let faults = Faults::default();
    let log = faults.open(&directory);
    let slot = log.append(b"meta", b"payload").unwrap();
    drop(log);
    let log = faults.open(&directory);
    assert!(log.read_cached(slot).is_none(), "the file is not open");
    log.read(slot).unwrap();
    assert_eq!(log.read_cached(slot).unwrap().unwrap().payload, "payload");
    faults.next(Call::Read, &[Outcome::Short(20), Outcome::Failure(11)]);
    assert!(log.read_cached(slot).is_none() && log.read_cached(slot).is_none());
    let mut file = fs::OpenOptions::new().append(true).open(segment_path(directory.path(), 0)).unwrap();
    file.write_all(b"more").unwrap();
    assert!(log.read_cached(slot).unwrap().is_ok());
}

#[test]
fn system_reads_cached_bytes_or_says_that_it_cannot() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"some bytes").unwrap();
    let file = SystemFiles.open(&path).unwrap();
    let mut buffer = [0; 5];
    match SystemFiles.read_cached_at(&file, &mut buffer, 5) {
        Ok(count) => assert_eq!(&buffer[..count], &b"bytes"[..count]),
        Err(error) => {
            assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported), "{error}");
        }
    }
}
