//! The data: the same for the same seed, valid, unique, and moving only as it is told to.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DAY, NOW, Rig, STREAM, at, small};
use crate::clock::Clock;
use crate::simulator::{Filter, Profile, Simulator, StreamProfile};

#[derive(Deserialize)]
struct Known {
    #[serde(rename = "segmentID")]
    segment_id: String,
    #[serde(rename = "segmentStartTime")]
    start: String,
    #[serde(rename = "segmentEndTime")]
    end: Option<String>,
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let (one, same) = (Rig::start(small()).await, Rig::start(Profile { days: 9, ..small() }).await);
    let other = Rig::start(Profile { seed: 2, ..small() }).await;
    let day = |rig: &Rig| rig.day("2026-02-24", true, &Filter::default());
    assert!(day(&one) == day(&same), "whatever the length of the timeline");
    assert!(day(&one) != day(&other));
}

#[tokio::test]
async fn items_are_valid_unique_and_as_said() {
    let profile =
        Profile { streams: vec![StreamProfile { exact: true, ..StreamProfile::new(STREAM, 1_700) }], ..small() };
    let rig = Rig::start(profile).await;
    let truth = rig.day("2026-02-24", false, &Filter::default());
    assert_eq!(truth.len(), 1_700);
    let mut ids = HashSet::new();
    let mut last = (String::new(), String::new());
    for (id, item) in &truth {
        let known: Known = serde_json::from_str(item).expect("valid JSON");
        assert_eq!(&known.segment_id, id);
        assert!(id.starts_with("ac-") && id.len() == 39, "{id}");
        assert!(ids.insert(id.clone()), "{id} twice");
        let place = (known.start.clone(), id.clone());
        assert!(last < place, "{last:?} before {place:?}");
        assert!(known.start.starts_with("2026-02-24T") && known.start.len() == 24, "{}", known.start);
        assert!(known.end.is_none_or(|end| end > known.start));
        assert!((1_900..31_000).contains(&item.len()), "{} bytes", item.len());
        last = place;
    }
    let usual = truth.iter().filter(|(_, item)| (4_000..8_500).contains(&item.len())).count();
    assert!(usual * 100 > truth.len() * 65, "{usual} of {} are of the usual size", truth.len());
    let has = |part: &str| truth.iter().any(|(_, item)| item.contains(part));
    for part in
        ["\"segmentEndTime\":null", ":1.0,", ":1e2,", ":12345678901234567890", ":-0", "\\u00e9", "😀", "T10:00:00.000Z"]
    {
        assert!(has(part), "no item has {part}");
    }
}

#[tokio::test]
async fn agentic_data_changes_nothing_else() {
    let rig = Rig::start(small()).await;
    let (plain, rich) =
        (rig.day("2026-02-24", false, &Filter::default()), rig.day("2026-02-24", true, &Filter::default()));
    for ((_, plain), (_, rich)) in plain.iter().zip(&rich) {
        serde_json::from_str::<&RawValue>(rich).expect("valid JSON");
        let begin = rich.find(",\"agenticActivities\"").expect("the member");
        let length = rich.len() - plain.len();
        assert_eq!(&[&rich[..begin], &rich[begin + length..]].concat(), plain);
    }
    assert!(rich.iter().any(|(_, item)| item.ends_with("]}")), "sometimes last");
    assert!(rig.page(&format!("{DAY}&includeAgenticData=true"), "").await.data[0].get().contains("agenticActivities"));
}

#[tokio::test]
async fn data_moves_with_the_clock() {
    let clock = Clock::manual(at(NOW));
    let changing = Profile { changing: 0.5, late: 0.3, ..small() };
    let simulator = Simulator::start(changing, clock.clone()).await.expect("a free port");
    let control = simulator.control();
    let window = || {
        control.expected_until(
            STREAM,
            at("2026-02-25T00:00:00Z"),
            at("2026-02-25T12:00:00Z"),
            false,
            &Filter::default(),
        )
    };
    let early = window();
    assert!(early.iter().all(|(_, item)| item.starts_with(b"{")));
    clock.set(at("2026-02-25T18:00:00Z"));
    let settled = window();
    assert!(early.len() < settled.len(), "late items have come");
    assert!(early.iter().any(|item| !settled.contains(item)), "changing items have changed");
    clock.set(at("2026-02-28T00:00:00Z"));
    assert!(window() == settled, "and then nothing changes");

    let id = settled[0].0.clone();
    assert!(control.touch(STREAM, &id) && !control.touch(STREAM, "ac-none"));
    assert!(window()[0] != settled[0]);
    assert!(control.remove(STREAM, &id));
    assert!(window() == settled[1..]);
}

/// A guard against rendering that becomes slow by an order of magnitude; the aim is a tenth of this bound.
#[tokio::test]
async fn rendering_is_quick() {
    let rig = Rig::start(Profile { streams: vec![StreamProfile::new(STREAM, 1_700)], ..small() }).await;
    let begin = Instant::now();
    let items = rig.day("2026-02-24", true, &Filter::default()).len();
    let each = begin.elapsed() / u32::try_from(items).expect("few");
    eprintln!("{each:?} for each of {items} items");
    assert!(each < Duration::from_millis(1), "{each:?} for each item");
}
