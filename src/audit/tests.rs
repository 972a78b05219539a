use std::fs;

use serde_json::Value;

use super::*;
use crate::window::{Interval, Timestamp};

fn record(items: u64) -> AuditRecord<'static> {
    AuditRecord {
        time: Timestamp::from_seconds(1_800_000_000),
        caller: Some(AuditCaller { name: "bi", credential: "sha256:0a1b2c3d" }),
        account: "acc-1",
        stream: "st-1",
        interval: Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(3600)),
        filters: &["conversationIds"],
        items,
        outcome: "hit",
        request_id: "r-1",
        trace_id: None,
        peer: Some(([192, 0, 2, 7], 4711).into()),
    }
}

fn items_in(path: &std::path::Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["items"].as_u64().unwrap()).collect()
}

#[test]
fn line_says_who_read_what() {
    let line: Value = serde_json::from_slice(&record(7).to_line()).unwrap();
    let expected = serde_json::json!({
        "time": "2027-01-15T08:00:00Z", "caller": "bi", "credential": "sha256:0a1b2c3d", "account": "acc-1",
        "stream": "st-1", "from": "1970-01-01T00:00:00Z", "to": "1970-01-01T01:00:00Z", "filters": ["conversationIds"],
        "items": 7, "outcome": "hit", "request_id": "r-1", "peer": "192.0.2.7:4711",
    });
    assert_eq!(line, expected);
}

#[test]
fn lines_follow_a_file_that_is_renamed_or_truncated() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
    let log = AuditLog::open(Some(&AuditTarget::File(path.clone()))).unwrap();
    let write = |items| {
        log.write(&record(items));
        log.flush();
    };
    (1..=3).for_each(write);
    fs::rename(&path, &rotated).unwrap();
    (4..=5).for_each(write);
    assert_eq!((items_in(&rotated), items_in(&path)), (vec![1, 2, 3], vec![4, 5]));
    // As copytruncate does.
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(6);
    assert_eq!(items_in(&path), [6]);
}

#[test]
fn directory_that_is_missing_refuses_the_log() {
    let target = AuditTarget::File("/none/audit.jsonl".into());
    assert!(AuditLog::open(Some(&target)).is_err());
    assert!(!AuditLog::open(None).unwrap().is_open());
}

#[test]
fn full_queue_loses_lines_without_waiting() {
    // A full disk: nothing can be written, and the line that is being written waits.
    let full = AuditDestination::open(&AuditTarget::File("/dev/full".into())).unwrap();
    let log = AuditLog::start(full, 4).unwrap();
    let is_losing = || log.0.as_ref().unwrap().is_losing.load(Ordering::Relaxed);
    let loses = |items| {
        log.write(&record(items));
        is_losing()
    };
    // The writer takes a line at any time, so the last one may find room again.
    assert!((0..20).any(loses));
}

#[test]
fn line_that_was_written_in_part_goes_on_or_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let destination = AuditDestination::open(&AuditTarget::File(path.clone())).unwrap();
    let mut writer = AuditWriter::new(destination, Arc::default());
    for (is_replaced, expected) in [(false, "ond\nthird\n"), (true, "second\nthird\n")] {
        if is_replaced {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, "").unwrap();
        }
        writer.resume(b"first\nsecond\nthird\n", 9);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}
