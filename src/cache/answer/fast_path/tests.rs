//! Model test: after any sequence of changes, the fast path answers as a lookup of each chunk does.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cache::chunk::{PageRange, Settled};
use crate::cache::series::SeriesState;
use crate::cache::store::{CacheEntry, ChunkId, ValidityToken};
use crate::cache::types::QueryOptions;
use crate::paging::Item;
use crate::request::{Filter, Requester, Series, WaitMeter};
use crate::traces::Span;
use crate::window::{FreshnessPolicy, FreshnessTier, Grid, Plan, Timestamp};

/// The time at which the test begins, in seconds; data lies before and after it.
const NOW: i64 = 200;
const CELL: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Step {
    /// A fetch of `length` seconds finished `ago` seconds ago.
    Put {
        start: i64,
        length: i64,
        agentic: bool,
        ago: i64,
    },
    /// Memory evicts a chunk.
    Evict(prop::sample::Index),
    Purge {
        start: i64,
        length: i64,
    },
    /// Entries are invalidated because an item has moved.
    Forget {
        start: i64,
        length: i64,
    },
    /// Entries of evicted chunks are removed.
    Sweep,
    /// Time passes.
    Wait(i64),
    Ask {
        start: i64,
        length: i64,
        agentic: bool,
        page_range: PageRange,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let interval = |longest| (0i64..NOW, 1i64..longest);
    let page_range =
        (0u64..300, prop::option::weighted(0.9, 0u64..40)).prop_map(|(offset, limit)| PageRange { offset, limit });
    prop_oneof![
        // Young entries replace older ones; old ones come around newer ones.
        5 => (interval(4), any::<bool>(), prop_oneof![3 => Just(0), 1 => 0i64..100])
            .prop_map(|((start, length), agentic, ago)| Step::Put { start, length, agentic, ago }),
        1 => (interval(NOW), any::<bool>()).prop_map(|((start, length), agentic)| Step::Put { start, length, agentic, ago: 0 }),
        2 => any::<prop::sample::Index>().prop_map(Step::Evict),
        1 => (interval(10), any::<bool>()).prop_map(|((start, length), is_purge)| {
            if is_purge { Step::Purge { start, length } } else { Step::Forget { start, length } }
        }),
        1 => prop_oneof![Just(Step::Sweep), (0i64..20).prop_map(Step::Wait)],
        10 => (interval(NOW), any::<bool>(), page_range)
            .prop_map(|((start, length), agentic, page_range)| Step::Ask { start, length, agentic, page_range }),
    ]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(second)
}

fn seconds(start: i64, length: i64) -> Interval {
    Interval::new(at(start), at(start + length))
}

/// A series state, and a model that keeps all chunks that were ever inserted.
struct Model {
    memory: Memory,
    series: SeriesState,
    freshness_policy: FreshnessPolicy,
    chunks: HashMap<ChunkId, Arc<Chunk>>,
    now: i64,
    puts: i64,
    /// Answers that may be repeated, each with its query.
    answers: Vec<(WindowQuery, ValidityToken, Head, Vec<Bytes>)>,
}

impl Model {
    fn new() -> Self {
        let tier = |younger_than, max_age| FreshnessTier {
            younger_than: Duration::from_secs(younger_than),
            max_age: Duration::from_secs(max_age),
        };
        let freshness_policy = FreshnessPolicy::new(Duration::from_secs(40), vec![tier(10, 10), tier(40, 30)]);
        let (memory, series) = (Memory::new(1 << 30), SeriesState::default());
        let mut model =
            Self { memory, series, freshness_policy, chunks: HashMap::new(), now: NOW, puts: 0, answers: Vec::new() };
        // Most of the time is cached at the beginning.
        model.put(0, NOW, false, 0);
        model.put(0, NOW / 2, true, 0);
        model
    }

    /// Inserts a fetch. The number of items of a second differs between fetches, and identifies them.
    fn put(&mut self, start: i64, length: i64, agentic: bool, ago: i64) {
        let (fetched, fetch) = (self.now - ago, self.puts);
        self.puts += 1;
        let Some(end) = Some((start + length).min(fetched)).filter(|end| *end > start) else { return };
        let settled_before = self.freshness_policy.settled_before(at(fetched));
        let (old, open) = Interval::new(at(start), at(end)).split_at(settled_before);
        for (interval, settled) in [(old, Settled::Yes), (open, Settled::No)] {
            for piece in Grid::new(CELL).cut(interval, |_| true) {
                let items: Vec<Item> = (piece.start.as_seconds()..piece.end.as_seconds())
                    .flat_map(|second| (0..(second * 7 + fetch) % 4).map(move |n| (second, n)))
                    .map(|(second, n)| Item {
                        at: at(second),
                        // Some items have moved from another second.
                        id: format!("{}-{n}", second - i64::from(fetch % 5 == 4 && second % 50 == 3)).into(),
                        json: format!(r#"{{"n":"{second}-{n}","fetch":{fetch},"agenticActivities":[]}}"#).into(),
                    })
                    .collect();
                let chunk = || Arc::new(Chunk::new(piece, at(fetched), settled, &items));
                let entry = CacheEntry::insert(&chunk(), &self.memory);
                self.chunks.insert(entry.id, chunk());
                self.series.insert(agentic, entry, &self.memory);
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Put { start, length, agentic, ago } => self.put(*start, *length, *agentic, *ago),
            Step::Evict(which) => {
                let mut ids: Vec<ChunkId> = self.series.entries.all().map(|(_, entry)| entry.id).collect();
                ids.sort_unstable();
                if !ids.is_empty() {
                    self.memory.remove(*which.get(&ids));
                }
            }
            Step::Purge { start, length } => {
                let purged = seconds(*start, *length);
                self.series.apply_purge(|interval, _, _| interval.overlaps(purged).then_some(1), &self.memory);
            }
            Step::Forget { start, length } => self.series.entries.remove(seconds(*start, *length)),
            Step::Sweep => self.series.sweep(&self.memory, |_| false),
            Step::Wait(seconds) => self.now += seconds,
            Step::Ask { start, length, agentic, page_range } => {
                return self.ask(seconds(*start, *length), *agentic, *page_range);
            }
        }
        Ok(())
    }

    fn ask(&mut self, interval: Interval, agentic: bool, page_range: PageRange) -> Result<(), TestCaseError> {
        let series =
            Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: Vec::new(), agentic };
        let asked_at = at(self.now);
        let Some(interval) = Some(interval.split_at(asked_at).0).filter(|interval| !interval.is_empty()) else {
            return Ok(());
        };
        let query = WindowQuery {
            series: series.into(),
            interval,
            page_range,
            asked_at,
            requester: Requester::anyone(),
            may_stream: true,
            options: QueryOptions::default(),
            waited: WaitMeter::default(),
            span: Span::NONE,
        };
        let expected = self.expected(&query);
        let rules = LookupRules { freshness: (&self.freshness_policy).into(), agentic, asked_at, cell: CELL };
        let found = find(&mut self.series.entries, &self.memory, rules, &query);
        let (Some((answer, texts, needed)), Ok(found)) = (&expected, &found) else {
            // The number of items of a chunk may be known though the chunk was evicted.
            let is_there =
                |(_, _, needed): &(_, _, HashSet<ChunkId>)| needed.iter().all(|id| self.memory.contains(*id));
            prop_assert!(found.is_err() && !expected.as_ref().is_some_and(is_there));
            return Ok(());
        };
        let mut slices = found.answer.items.slices.clone();
        for index in &found.agentic_slices {
            slices[*index].chunk = strip(&slices[*index].chunk).unwrap();
        }
        prop_assert_eq!(&texts_of(&slices), texts, "{:?}", needed);
        prop_assert_eq!(head(&found.answer), head(answer));
        if let Some(validity) = &found.answer.validity {
            prop_assert!(found.answer.settled && found.agentic_slices.is_empty());
            self.answers.push((query, validity.clone(), head(answer), texts.clone()));
        }
        Ok(())
    }

    /// Checks that each answer whose token still holds is what a lookup of each chunk finds now.
    fn check_repeatable(&mut self) -> Result<(), TestCaseError> {
        self.answers.retain(|(_, validity, ..)| validity.is_valid());
        for (query, _, head_then, texts) in &self.answers {
            let query = WindowQuery { asked_at: at(self.now), ..query.clone() };
            let Some((now, now_texts, _)) = self.expected(&query) else {
                return Err(TestCaseError::fail(format!("{:?} is there no more", query.interval)));
            };
            prop_assert_eq!(texts, &now_texts);
            prop_assert_eq!(head_then, &head(&now));
        }
        Ok(())
    }

    /// The answer by a lookup of each chunk, its items, and the chunks that must be opened for it.
    fn expected(&self, query: &WindowQuery) -> Option<(WindowAnswer, Vec<Bytes>, HashSet<ChunkId>)> {
        let WindowQuery { series, interval, asked_at, page_range, .. } = query;
        let mut plan = Plan::new(*interval);
        if !series.agentic {
            let plain = self.series.entries.by_agentic(false);
            plan.take(plain, &self.freshness_policy, *asked_at, *asked_at, |entry| Some((entry.id, false)));
        }
        let agentic = self.series.entries.by_agentic(true);
        plan.take(agentic, &self.freshness_policy, *asked_at, *asked_at, |entry| Some((entry.id, !series.agentic)));
        plan.hits.sort_by_key(|(interval, _)| interval.start);
        let segments = plan.hits.iter().map(|(interval, (id, is_strip))| {
            let kept = &self.chunks[id];
            let chunk = if *is_strip { strip(kept).unwrap() } else { kept.clone() };
            let slice = Slice { rows: chunk.rows_within(*interval), chunk };
            Segment {
                interval: *interval,
                slice,
                fetched_at: kept.fetched_at(),
                is_cached: true,
                is_derived: *is_strip,
            }
        });
        let segments: Vec<Segment> = segments.collect();
        if !plan.missing.is_empty() || !moved_segments(&segments).is_empty() {
            return None;
        }
        let items = page_range.of(segments.iter().map(|segment| segment.slice.clone()).collect());
        let is_sent = |chunk: &Arc<Chunk>| items.slices.iter().any(|slice| Arc::ptr_eq(&slice.chunk, chunk));
        let needed = plan.hits.iter().zip(&segments).filter(|((interval, _), segment)| {
            let chunk = &segment.slice.chunk;
            is_sent(chunk) || *interval != chunk.interval() || !chunk.id_hashes(0..chunk.len()).is_empty()
        });
        let needed = needed.map(|((_, (id, _)), _)| *id).collect();
        let texts = texts_of(&items.slices);
        let answer = WindowAnswer {
            items,
            rest: None,
            validity: None,
            settled: interval.end <= self.freshness_policy.settled_before(*asked_at),
            oldest_entry: segments.iter().map(|segment| segment.fetched_at).min(),
            fresh_until: {
                let until = |part: &Segment| self.freshness_policy.fresh_until(part.interval, part.fetched_at);
                segments.iter().filter_map(until).min()
            },
            outcome: Outcome::Hit,
            chunks: segments.len(),
            hits: segments.len(),
            calls: 0,
        };
        Some((answer, texts, needed))
    }
}

/// An answer without its items.
type Head = (u64, bool, bool, [Option<Timestamp>; 2], Outcome, usize, usize, u32);

fn head(answer: &WindowAnswer) -> Head {
    let WindowAnswer { items, settled, oldest_entry, fresh_until, outcome, chunks, hits, calls, rest, validity: _ } =
        answer;
    assert!(rest.is_none());
    (items.count, items.has_more, *settled, [*oldest_entry, *fresh_until], *outcome, *chunks, *hits, *calls)
}

fn texts_of(slices: &[Slice]) -> Vec<Bytes> {
    slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone())).map(|row| row.unwrap().1).collect()
}

proptest! {
    #[test]
    fn fast_path_any_changes_answers_as_a_full_lookup(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step)?;
            model.check_repeatable()?;
        }
    }
}
