//! Tests of the data: reproducible, valid, unique, and changing only as configured.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DAY, NOW, STREAM, TestSimulator, at, small_profile};
use crate::{ItemChanges, ItemFilter, Profile, Simulator, StreamProfile};

#[derive(Deserialize)]
struct ItemHead {
    #[serde(rename = "segmentID")]
    segment_id: String,
    #[serde(rename = "segmentStartTime")]
    start: String,
    #[serde(rename = "segmentEndTime")]
    end: Option<String>,
}

#[tokio::test]
async fn equal_seed_gives_equal_bytes() {
    let (one, longer) = (
        TestSimulator::start(small_profile()).await,
        TestSimulator::start(Profile { days: 9, ..small_profile() }).await,
    );
    let other = TestSimulator::start(Profile { seed: 2, ..small_profile() }).await;
    let day = |test: &TestSimulator| test.expected_day("2026-02-24", true, &ItemFilter::default());
    assert!(day(&one) == day(&longer), "independent of the length of the timeline");
    assert!(day(&one) != day(&other));
}

#[tokio::test]
async fn generated_items_are_valid_unique_and_varied() {
    let profile = Profile {
        streams: vec![StreamProfile { exact: true, ..StreamProfile::new(STREAM, 1_700) }],
        ..small_profile()
    };
    let test = TestSimulator::start(profile).await;
    let expected = test.expected_day("2026-02-24", false, &ItemFilter::default());
    assert_eq!(expected.len(), 1_700);
    let mut ids = HashSet::new();
    let mut last = (String::new(), String::new());
    for (id, item) in &expected {
        let head: ItemHead = serde_json::from_str(item).expect("valid JSON");
        assert_eq!(&head.segment_id, id);
        assert!(id.starts_with("ac-") && id.len() == 39, "{id}");
        assert!(ids.insert(id.clone()), "{id} twice");
        let place = (head.start.clone(), id.clone());
        assert!(last < place, "{last:?} before {place:?}");
        assert!(head.start.starts_with("2026-02-24T") && head.start.len() == 24, "{}", head.start);
        assert!(head.end.is_none_or(|end| end > head.start));
        assert!((1_900..31_000).contains(&item.len()), "{} bytes", item.len());
        last = place;
    }
    let usual = expected.iter().filter(|(_, item)| (4_000..8_500).contains(&item.len())).count();
    assert!(usual * 100 > expected.len() * 65, "{usual} of {} are of the usual size", expected.len());
    let has = |part: &str| expected.iter().any(|(_, item)| item.contains(part));
    for part in
        ["\"segmentEndTime\":null", ":1.0,", ":1e2,", ":12345678901234567890", ":-0", "\\u00e9", "😀", "T10:00:00.000Z"]
    {
        assert!(has(part), "no item has {part}");
    }
}

#[tokio::test]
async fn plain_items_have_no_odd_spelling() {
    let test = TestSimulator::start(Profile { plain: true, ..small_profile() }).await;
    let expected = test.expected_day("2026-02-24", true, &ItemFilter::default());
    assert!(!expected.is_empty());
    for (id, item) in &expected {
        let value: serde_json::Value = serde_json::from_str(item).expect("valid JSON");
        // No key twice, no empty key, no number that is printed otherwise than it was written.
        assert_eq!(value.to_string().len(), item.replace("\\u0026", "&").replace("\\u2013", "\u{2013}").len(), "{id}");
        assert!(!item.contains("\"\":") && !item.contains("\\u0000"), "{item}");
        assert_eq!(value["appInfo"]["sequence"], 7, "{id}");
    }
}

#[tokio::test]
async fn agentic_data_leaves_other_bytes_unchanged() {
    let test = TestSimulator::start(small_profile()).await;
    let (plain, agentic) = (
        test.expected_day("2026-02-24", false, &ItemFilter::default()),
        test.expected_day("2026-02-24", true, &ItemFilter::default()),
    );
    for ((_, plain), (_, agentic)) in plain.iter().zip(&agentic) {
        serde_json::from_str::<&RawValue>(agentic).expect("valid JSON");
        let begin = agentic.find(",\"agenticActivities\"").expect("the member");
        let length = agentic.len() - plain.len();
        assert_eq!(&[&agentic[..begin], &agentic[begin + length..]].concat(), plain);
    }
    assert!(agentic.iter().any(|(_, item)| item.ends_with("]}")), "sometimes last");
    assert!(test.page(&format!("{DAY}&includeAgenticData=true"), "").await.data[0].get().contains("agenticActivities"));
}

#[tokio::test]
async fn late_and_changing_items_become_final_with_time() {
    let millis = Arc::new(AtomicI64::new(at(NOW).as_millisecond()));
    let clock = Arc::clone(&millis);
    let now = move || Timestamp::from_millisecond(clock.load(Ordering::SeqCst)).expect("a time in range");
    let set_now = |text| millis.store(at(text).as_millisecond(), Ordering::SeqCst);
    let changes = ItemChanges { changing: 0.5, late: 0.3, ..ItemChanges::default() };
    let profile = Profile { changes, ..small_profile() };
    let simulator = Simulator::start_with_clock(profile, now).await.expect("a free port");
    let control = simulator.control();
    let window = || {
        control.expected_until(
            STREAM,
            at("2026-02-25T00:00:00Z"),
            at("2026-02-25T12:00:00Z"),
            false,
            &ItemFilter::default(),
        )
    };
    let early = window();
    assert!(early.iter().all(|(_, item)| item.starts_with(b"{")));
    set_now("2026-02-25T18:00:00Z");
    let settled = window();
    assert!(early.len() < settled.len(), "late items have appeared");
    assert!(early.iter().any(|item| !settled.contains(item)), "changing items have changed");
    set_now("2026-02-28T00:00:00Z");
    assert!(window() == settled, "final items do not change");

    let id = settled[0].0.clone();
    assert!(control.touch(STREAM, &id) && !control.touch(STREAM, "ac-none"));
    assert!(window()[0] != settled[0]);
    assert!(control.remove(STREAM, &id));
    assert!(window() == settled[1..]);
}
