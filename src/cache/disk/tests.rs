//! Tests of the tier before its index is loaded, and of the series that it knows.

use std::sync::Arc;
use std::time::Duration;

use super::record::{RecordMeta, SeriesDigest};
use super::state::DiskState;
use super::tier::MAX_SERIES;
use super::*;
use crate::cache::purge::{Purge, PurgeJournal, Purges};
use crate::cache::series::SeriesMap;
use crate::cache::store::{CacheEntry, ChunkFacts, Memory};
use crate::clock::Clock;
use crate::config;
use crate::replicas::Cipher;
use crate::request::{Filter, Series};
use crate::segment_log::{LogSettings, SegmentLog};
use crate::window::{Interval, Timestamp, UpperBound};

fn series(stream: usize) -> Arc<Series> {
    let stream = stream.to_string().into();
    Arc::new(Series { account: "a".into(), stream, filter: Filter::None, parameters: Vec::new(), agentic: false })
}

fn chunk_facts() -> ChunkFacts {
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(3600));
    ChunkFacts { interval, fetched_at: interval.end, epoch: 0, rows: 1, may_move: false }
}

/// A tier with an open log that has one chunk; its index is not loaded.
fn opened_tier(directory: &std::path::Path) -> (DiskTier, SegmentLog) {
    let config = config::DiskConfig { path: directory.join("cache"), size: 16 << 20 };
    let window = config::WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Exclusive,
        settle_after: Duration::from_hours(24),
        freshness: Vec::new(),
        chunk: Duration::from_hours(1),
        max_span: Duration::MAX,
    };
    let settings = config::SeriesSettings::new(&window, &[]);
    let tier = DiskTier::new(&config, &settings, Arc::new(Cipher::new([]).unwrap()));
    let log = SegmentLog::open(&LogSettings::new(&config.path, config.size)).unwrap();
    log.reserve(1 << 10).unwrap();
    log.append(&RecordMeta::Chunk(SeriesDigest::of("a"), chunk_facts()).to_bytes(), b"items").unwrap();
    tier.0.log.set(log.clone()).unwrap();
    (tier, log)
}

fn records(log: &SegmentLog) -> usize {
    let mut count = 0;
    log.scan(&mut |_, _| count += 1).unwrap();
    count
}

#[tokio::test(start_paused = true)]
async fn nothing_is_erased_before_the_index_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (tier, log) = opened_tier(directory.path());
    for state in [DiskState::Opening, DiskState::AwaitingPurges, DiskState::Loading] {
        tier.0.set_state(state);
        assert!(tier.erase_if(|_, _| false).await.is_err());
        assert_eq!(records(&log), 1);
    }
    tier.0.set_state(DiskState::Ready);
    assert_eq!(tier.erase_if(|_, _| false).await.unwrap(), 1, "its series is not known");
    assert_eq!(records(&log), 0);
}

#[tokio::test]
async fn text_of_an_unknown_series_is_erased() {
    let directory = tempfile::tempdir().unwrap();
    let (tier, log) = opened_tier(directory.path());
    let known = tier.0.digest(&series(0));
    tier.0.known_series().insert(known, series(0));
    for digest in [known, SeriesDigest::of("forgotten")] {
        log.append(&RecordMeta::Series(digest).to_bytes(), b"a filter").unwrap();
    }
    tier.0.set_state(DiskState::Ready);
    tier.erase_if(|_, _| false).await.unwrap();
    let mut left = Vec::new();
    log.scan(&mut |meta, _| left.push(RecordMeta::parse(meta).unwrap())).unwrap();
    assert_eq!(left, [RecordMeta::Series(known)]);
}

#[tokio::test(start_paused = true)]
async fn purge_overwrites_the_disk_when_it_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let (tier, log) = opened_tier(directory.path());
    let (series_map, memory) = (SeriesMap::default(), Memory::new(1 << 20));
    let journal = PurgeJournal::new(tier.clone(), None);
    let clock = Clock::manual(Timestamp::from_seconds(0));
    let purges = Purges::new(series_map, memory, clock, Vec::new(), Some(journal), None);
    let all = Purge { account: "a".into(), stream: None, interval: Interval::EVER, ids: None };
    assert!(matches!(purges.purge(all).await.disk, Some(Err(_))), "the index is not loaded");
    assert_eq!(records(&log), 1);
    tier.0.set_state(DiskState::Ready);
    while records(&log) > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn series_without_a_chunk_on_disk_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (tier, log) = opened_tier(directory.path());
    let (series_map, memory) = (SeriesMap::default(), Memory::new(1 << 20));
    let clock = Clock::manual(Timestamp::from_seconds(0));
    let purges = Purges::new(series_map.clone(), memory.clone(), clock, Vec::new(), None, None);
    let is_useful = Box::new(|_: &Series, _: &ChunkFacts| true);
    let context = DiskContext { series_map, memory, purges: Arc::new(purges), is_useful };
    for number in 0..3 {
        tier.0.known_series().insert(tier.0.digest(&series(number)), series(number));
    }
    tier.0.active().series.insert(tier.0.digest(&series(2)));
    let slot = log.append(b"meta", b"items").unwrap();
    let entry = CacheEntry::on_disk(chunk_facts(), Some(slot));
    context.series_map.get_or_insert(&series(1)).lock().insert(false, entry, &context.memory);
    tier.0.forget_series(&log, &context);
    let mut known: Vec<_> = tier.0.known_series().values().map(|series| series.stream.to_string()).collect();
    known.sort();
    assert_eq!(known, ["1", "2"]);
}

#[test]
fn series_on_disk_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (tier, _) = opened_tier(directory.path());
    let digest = |number: usize| SeriesDigest::of(&number.to_string());
    let one = series(0);
    tier.0.known_series().extend((0..MAX_SERIES).map(|number| (digest(number), one.clone())));
    let filtered = Series { parameters: vec![("a".into(), "b".into())], ..Series::clone(&one) };
    assert!(tier.0.has_room_for(digest(7), &filtered));
    assert!(!tier.0.has_room_for(digest(MAX_SERIES), &filtered));
    assert!(tier.0.has_room_for(digest(MAX_SERIES), &one), "a whole stream");
}
