use proptest::prelude::*;

use super::*;

fn interval(start: i64, end: i64) -> Interval {
    Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
}

fn set(ids: &[u32]) -> IdHashes {
    ids.iter().copied().collect()
}

fn filter(ids: &[u32]) -> IdFilter {
    IdFilter::Hashes(set(ids))
}

fn tombstone((stream, start, length, ids): (u8, i64, i64, Option<Vec<u32>>)) -> Tombstone {
    let stream = (stream > 0).then(|| stream.to_string().into());
    // Sometimes of all time.
    let interval = if length > 15 { Interval::EVER } else { interval(start, start + length.max(1)) };
    Tombstone { stream, interval, ids: ids.map(|ids| set(&ids)) }
}

fn erasure(ids: &[u32]) -> Tombstone {
    Tombstone { ids: Some(set(ids)), ..Tombstone::EVERYTHING }
}

fn tombstones(given: &[(u64, Tombstone)]) -> Tombstones {
    let mut all = Tombstones::default();
    for (epoch, tombstone) in given {
        all.add(*epoch, tombstone.clone());
    }
    all
}

fn purges() -> impl Strategy<Value = Vec<(u64, Tombstone)>> {
    let ids = prop::option::of(prop::collection::vec(0u32..9, 1..4));
    let purge = (0u8..3, 0i64..30, 0i64..20, ids);
    prop::collection::vec(purge, 0..20).prop_map(|purges| {
        let numbered = purges.into_iter().enumerate();
        numbered.map(|(number, purge)| (3 * number as u64 + 1, tombstone(purge))).collect()
    })
}

/// A chunk: its stream, interval, epoch, and the ids that its items have.
#[derive(Clone, Debug)]
struct ChunkCase {
    stream: String,
    interval: Interval,
    epoch: u64,
    ids: Vec<u32>,
}

fn chunks() -> impl Strategy<Value = ChunkCase> {
    (1u8..3, 0i64..40, 1i64..9, 0u64..70, prop::collection::vec(0u32..9, 0..5)).prop_map(
        |(stream, start, length, epoch, ids)| ChunkCase {
            stream: stream.to_string(),
            interval: interval(start, start + length),
            epoch,
            ids,
        },
    )
}

fn is_purged(all: &Tombstones, ChunkCase { stream, interval, epoch, ids }: &ChunkCase) -> bool {
    all.is_purged(stream, *interval, *epoch, &filter(ids))
}

fn naive(purges: &[(u64, Tombstone)], chunk: &ChunkCase) -> bool {
    let timestamps = |of: Interval| of.start.as_nanos().max(-5)..of.end.as_nanos().min(100);
    purges.iter().any(|(purged, tombstone)| {
        let of_it = tombstone.stream.as_deref().is_none_or(|own| own == chunk.stream);
        let held = tombstone.ids.as_ref().is_none_or(|ids| ids.as_slice().iter().any(|id| chunk.ids.contains(id)));
        let mut times = timestamps(tombstone.interval);
        *purged > chunk.epoch && of_it && held && times.any(|at| timestamps(chunk.interval).contains(&at))
    })
}

proptest! {
    /// The naive model is the list of all purges, each with all its timestamps and ids.
    #[test]
    fn chunk_is_purged_by_later_purges_that_overlap_it(purges in purges(), order in any::<u64>(), chunk in chunks()) {
        let expected = naive(&purges, &chunk);
        let all = tombstones(&purges);
        prop_assert_eq!(is_purged(&all, &chunk), expected);
        let ChunkCase { stream, interval, epoch, ids } = &chunk;
        let by = all.purged_by(stream, *interval, *epoch, &filter(ids));
        prop_assert!(by.is_none_or(|by| by > *epoch && all.get(by).unwrap().purges(stream, *interval, &filter(ids))));
        // In any order, one by one and from another replica.
        let mut shuffled = purges.clone();
        shuffled.sort_by_key(|(epoch, _)| (epoch.wrapping_mul(order | 1)).rotate_left(17));
        let (ours, theirs) = shuffled.split_at(shuffled.len() / 2);
        let (mut ours, theirs) = (tombstones(ours), tombstones(theirs));
        ours.merge(&theirs);
        prop_assert_eq!(is_purged(&ours, &chunk), expected);
        let merged = ours.clone();
        ours.merge(&merged);
        prop_assert_eq!(&ours, &merged, "known already");
    }

    /// A run may bring any id, and a chunk of which only the name is known is read before an erasure is applied to it.
    #[test]
    fn unknown_ids_count_as_erased_and_unread_ones_do_not(purges in purges(), chunk in chunks()) {
        let all = tombstones(&purges);
        let plain: Vec<_> = purges.iter().filter(|(_, tombstone)| tombstone.ids.is_none()).cloned().collect();
        let any = ChunkCase { ids: (0..9).collect(), ..chunk.clone() };
        let ChunkCase { stream, interval, epoch, .. } = &chunk;
        prop_assert_eq!(all.is_purged(stream, *interval, *epoch, &IdFilter::Any), naive(&purges, &any));
        prop_assert_eq!(all.is_purged(stream, *interval, *epoch, &IdFilter::default()), naive(&plain, &chunk));
    }

    #[test]
    fn forgotten_purges_leave_everything_before_them_purged(
        purges in purges(), max in 0usize..5, max_ids in 0usize..9, chunk in chunks()
    ) {
        let mut pruned = tombstones(&purges);
        let known = pruned.epoch();
        pruned.prune(max, max_ids);
        let ids: usize = pruned.by_epoch.values().map(id_count).sum();
        prop_assert!(pruned.by_epoch.len() <= max && ids <= max_ids && pruned.epoch() == known);
        if naive(&purges, &chunk) {
            prop_assert!(is_purged(&pruned, &chunk));
        }
        prop_assert!(!is_purged(&pruned, &ChunkCase { epoch: known, ..chunk }), "runs after the last purge are valid");
    }

    #[test]
    fn text_of_a_tombstone_is_parsed_back(
        stream in prop::option::of(".{1,12}"), start: i64, end: i64,
        ids in prop::option::of(prop::collection::vec(any::<u32>(), 1..20)),
    ) {
        let ids = ids.map(|ids| set(&ids));
        let tombstone = Tombstone { stream: stream.map(Into::into), interval: interval(start, end), ids };
        prop_assert_eq!(Tombstone::parse(&tombstone.to_string()), tombstone);
    }
}

#[test]
fn unreadable_tombstone_purges_everything() {
    let ids = ["", "0000000", "0000000x", "0000000200000001", "0000000100000001", "00000001 1"];
    let with_ids = ids.map(|ids| format!("* 1 2 {ids}"));
    let others = ["", "*", "* 1", "* 1 x", "* 1 2 3", "%ff 1 2"].map(str::to_owned);
    for text in with_ids.iter().chain(&others) {
        assert_eq!(Tombstone::parse(text), Tombstone::EVERYTHING, "{text}");
    }
}

#[test]
fn epoch_grows_while_the_clock_stands_still() {
    let mut all = Tombstones::default();
    let now = Timestamp::from_millis(1_000);
    assert_eq!(all.next_epoch(now), 1_000);
    all.add(1_000, Tombstone::EVERYTHING);
    assert_eq!(
        (all.next_epoch(now), all.next_epoch(Timestamp::MIN), all.next_epoch(Timestamp::from_millis(5_000))),
        (1_001, 1_001, 5_000)
    );
}

#[test]
fn at_most_a_thousand_tombstones_are_kept() {
    let mut all = Tombstones::default();
    for number in 1..=1_200 {
        all.add(number, Tombstone { stream: Some(number.to_string().into()), ..Tombstone::EVERYTHING });
    }
    assert_eq!((all.iter().count(), all.floor(), all.epoch()), (1_000, 200, 1_200));
    all.add(1_201, Tombstone::EVERYTHING);
    assert_eq!(all.iter().count(), 1);
}

#[test]
fn many_erasures_are_merged_and_none_is_forgotten() {
    let mut all = Tombstones::default();
    for number in 1u32..=3_000 {
        all.add(number.into(), erasure(&[number]));
    }
    assert_eq!((all.iter().count(), all.floor(), all.epoch()), (1_000, 0, 3_000));
    let purged = |id| all.is_purged("s", interval(0, 1), 0, &filter(&[id]));
    assert!((1..=3_000).all(purged) && !purged(0) && !purged(3_001));
}

#[test]
fn erasure_that_is_repeated_replaces_the_earlier_one() {
    let all = tombstones(&[(1, erasure(&[1, 2])), (2, erasure(&[3])), (3, erasure(&[1, 2, 4]))]);
    assert_eq!(all.iter().map(|(epoch, _)| epoch).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(tombstones(&[(1, erasure(&[1])), (2, Tombstone::EVERYTHING)]).iter().count(), 1);
    assert_eq!(tombstones(&[(1, Tombstone::EVERYTHING), (2, erasure(&[1]))]).iter().count(), 2);
}

#[test]
fn purges_of_one_epoch_both_hold() {
    let purge = |stream: &str, start| Tombstone {
        stream: Some(stream.into()),
        interval: interval(start, start + 1),
        ids: None,
    };
    let all = tombstones(&[(7, purge("a", 0)), (7, purge("b", 9))]);
    let is_purged = |stream, at, epoch, ids: &[u32]| all.is_purged(stream, interval(at, at + 1), epoch, &filter(ids));
    assert!(is_purged("a", 0, 6, &[]) && is_purged("b", 9, 6, &[]) && !is_purged("a", 0, 7, &[]));
    for other in [purge("a", 0), erasure(&[2])] {
        let both = tombstones(&[(7, erasure(&[1])), (7, other)]);
        let is_purged = |id| both.is_purged("a", interval(0, 1), 6, &filter(&[id]));
        assert!(is_purged(1) && is_purged(2));
    }
}
