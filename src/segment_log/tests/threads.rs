//! Threads that append, read, erase and evict at the same time.

use std::thread;

use super::super::ReadError;
use super::*;

const WRITERS: usize = 3;
const RECORDS: usize = 150;

/// Meta bytes of a record. Each fifth is erased.
fn meta(writer: usize, n: usize) -> Vec<u8> {
    format!("{}-{writer}-{n}", if n.is_multiple_of(5) { "secret" } else { "open" }).into_bytes()
}

fn is_secret(meta: &[u8]) -> bool {
    meta.starts_with(b"secret")
}

fn check(log: &SegmentLog, meta: &[u8], slot: Slot) {
    match log.read(slot) {
        Ok(record) => {
            assert_eq!(record.meta, meta);
            assert!(record.payload.chunks(meta.len()).all(|part| part == &meta[..part.len()]));
        }
        Err(ReadError::Gone) => {}
        Err(ReadError::Damaged) => assert!(is_secret(meta), "{slot:?} is damaged"),
        Err(ReadError::Io(error)) => panic!("{error}"),
    }
}

#[test]
fn records_are_whole_or_missing_while_threads_erase_and_evict() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let appended: Mutex<Vec<(Vec<u8>, Slot)>> = Mutex::default();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, appended) = (&log, &appended);
            scope.spawn(move || {
                for n in 0..RECORDS {
                    let meta = meta(writer, n);
                    let slot = log.append(&meta, &meta.repeat(1 + n % 20)).unwrap();
                    let earlier = {
                        let mut appended = appended.lock().unwrap();
                        appended.push((meta, slot));
                        appended[n * 7 % appended.len()].clone()
                    };
                    check(log, &earlier.0, earlier.1);
                }
            });
        }
        scope.spawn(|| {
            for n in 0..40 {
                log.erase(&mut is_secret).unwrap();
                if n % 8 == 0 {
                    log.evict().unwrap();
                }
                log.check().unwrap();
                log.scan(&mut |_, _| ()).unwrap();
            }
        });
    });
    log.erase(&mut is_secret).unwrap();
    assert!(!is_on_disk(directory.path(), b"secret"));
    let appended = appended.into_inner().unwrap();
    assert_eq!(appended.len(), WRITERS * RECORDS);
    let listed = scan(&log);
    assert!(listed.iter().all(|record| appended.contains(record)));
    for (meta, slot) in appended {
        assert_eq!(listed.contains(&(meta.clone(), slot)), log.contains(slot) && !is_secret(&meta), "{slot:?}");
        check(&log, &meta, slot);
    }
}
