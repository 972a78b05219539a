//! Whatever happens to a shelf between two requests, a glance at it tells what a look at each of its chunks tells.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cache::chunk::PageRange;
use crate::cache::series::SeriesState;
use crate::cache::store::CacheEntry;
use crate::cache::store::ChunkId;
use crate::cache::{Settled, ValidityToken, WindowQuery};
use crate::paging::Item;
use crate::request::{Filter, Requester, Series};
use crate::window::{FreshnessPolicy, FreshnessTier, Grid, Plan, Timestamp};

/// The wall clock when it begins; data lies before and behind it.
const NOW: i64 = 200;
const CELL: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Step {
    /// A fetch of so many seconds landed, so long ago.
    Put {
        start: i64,
        length: i64,
        agentic: bool,
        ago: i64,
    },
    /// Memory let one of its chunks go.
    Evict(prop::sample::Index),
    Purge {
        start: i64,
        length: i64,
    },
    /// An item has moved.
    Forget {
        start: i64,
        length: i64,
    },
    /// What has gone from memory is forgotten.
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
        // The young ones are put in place of what is there, the others around it.
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

/// A shelf, and all chunks that were ever put on it: the model never forgets one.
struct World {
    memory: Memory,
    shelf: SeriesState,
    freshness_policy: FreshnessPolicy,
    chunks: HashMap<ChunkId, Arc<Chunk>>,
    now: i64,
    puts: i64,
    /// Answers that last, each with its query.
    validity: Vec<(WindowQuery, ValidityToken, Head, Vec<Bytes>)>,
}

impl World {
    fn new() -> Self {
        let rung = |younger_than, max_age| FreshnessTier {
            younger_than: Duration::from_secs(younger_than),
            max_age: Duration::from_secs(max_age),
        };
        let freshness_policy = FreshnessPolicy::new(Duration::from_secs(40), vec![rung(10, 10), rung(40, 30)]);
        let (memory, shelf) = (Memory::new(1 << 30), SeriesState::default());
        let mut world =
            Self { memory, shelf, freshness_policy, chunks: HashMap::new(), now: NOW, puts: 0, validity: Vec::new() };
        // Most of it is there to begin with.
        world.put(0, NOW, false, 0);
        world.put(0, NOW / 2, true, 0);
        world
    }

    /// Each second has a few items, more or fewer by each fetch, by which they tell which it was.
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
                        // Now and then one has moved from another second.
                        id: format!("{}-{n}", second - i64::from(fetch % 5 == 4 && second % 50 == 3)).into(),
                        json: format!(r#"{{"n":"{second}-{n}","fetch":{fetch},"agenticActivities":[]}}"#).into(),
                    })
                    .collect();
                let chunk = || Arc::new(Chunk::new(piece, at(fetched), settled, &items));
                let copy = CacheEntry::keep(&chunk(), &self.memory);
                self.chunks.insert(copy.id, chunk());
                self.shelf.put(agentic, copy, &self.memory);
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Put { start, length, agentic, ago } => self.put(*start, *length, *agentic, *ago),
            Step::Evict(which) => {
                let mut lie: Vec<ChunkId> = self.shelf.entries.all().map(|(_, copy)| copy.id).collect();
                lie.sort_unstable();
                if !lie.is_empty() {
                    self.memory.remove(*which.get(&lie));
                }
            }
            Step::Purge { start, length } => {
                let purged = seconds(*start, *length);
                self.shelf.bury(|interval, _| interval.overlaps(purged), &self.memory);
            }
            Step::Forget { start, length } => self.shelf.entries.remove(seconds(*start, *length)),
            Step::Sweep => self.shelf.sweep(&self.memory),
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
            asker: Requester::anyone(),
            may_stream: true,
        };
        let expected = self.expected(&query);
        let rules = LookupRules { freshness_policy: &self.freshness_policy, agentic, asked_at, cell: CELL };
        let glance = look(&mut self.shelf.entries, &self.memory, rules, &query);
        let (Some((answer, texts, needed)), Some(glance)) = (&expected, &glance) else {
            // If a chunk that must be opened has gone, it may all the same have been known before how much lay in it.
            let is_there = |(_, _, needed): &(_, _, HashSet<ChunkId>)| needed.iter().all(|id| self.memory.holds(*id));
            prop_assert!(glance.is_none() && !expected.as_ref().is_some_and(is_there));
            return Ok(());
        };
        let mut slices = glance.answer.items.slices.clone();
        for place in &glance.strip {
            slices[*place].chunk = strip(&slices[*place].chunk).unwrap();
        }
        prop_assert_eq!(&texts_of(&slices), texts, "{:?}", needed);
        prop_assert_eq!(head(&glance.answer), head(answer));
        if let Some(validity) = &glance.answer.validity {
            prop_assert!(glance.answer.settled && glance.strip.is_empty());
            self.validity.push((query, validity.clone(), head(answer), texts.clone()));
        }
        Ok(())
    }

    /// Whatever has happened, and however late it is: an answer that still holds is what a look at each chunk tells.
    fn check_lasting(&mut self) -> Result<(), TestCaseError> {
        self.validity.retain(|(_, validity, ..)| validity.is_valid());
        for (query, _, then, texts) in &self.validity {
            let query = WindowQuery { asked_at: at(self.now), ..query.clone() };
            let Some((now, now_texts, _)) = self.expected(&query) else {
                return Err(TestCaseError::fail(format!("{:?} is there no more", query.interval)));
            };
            prop_assert_eq!(texts, &now_texts);
            prop_assert_eq!(then, &head(&now));
        }
        Ok(())
    }

    /// The answer from a look at each chunk, its items, and the chunks that must be opened for it.
    fn expected(&self, query: &WindowQuery) -> Option<(WindowAnswer, Vec<Bytes>, HashSet<ChunkId>)> {
        let WindowQuery { series, interval, asked_at, page_range, .. } = query;
        let mut plan = Plan::new(*interval);
        if !series.agentic {
            let plain = self.shelf.entries.of(false);
            plan.take(plain, &self.freshness_policy, *asked_at, *asked_at, |copy| Some((copy.id, false)));
        }
        let agentic = self.shelf.entries.of(true);
        plan.take(agentic, &self.freshness_policy, *asked_at, *asked_at, |copy| Some((copy.id, !series.agentic)));
        plan.hits.sort_by_key(|(interval, _)| interval.start);
        let parts = plan.hits.iter().map(|(interval, (id, is_strip))| {
            let kept = &self.chunks[id];
            let chunk = if *is_strip { strip(kept).unwrap() } else { kept.clone() };
            let slice = Slice { rows: chunk.rows_within(*interval), chunk };
            Segment { interval: *interval, slice, fetched_at: kept.fetched_at(), copy: true, derived: *is_strip }
        });
        let parts: Vec<Segment> = parts.collect();
        if !plan.missing.is_empty() || !twice(&parts).is_empty() {
            return None;
        }
        let items = page_range.of(parts.iter().map(|part| part.slice.clone()).collect());
        let is_sent = |chunk: &Arc<Chunk>| items.slices.iter().any(|slice| Arc::ptr_eq(&slice.chunk, chunk));
        let needed = plan.hits.iter().zip(&parts).filter(|((interval, _), part)| {
            let chunk = &part.slice.chunk;
            is_sent(chunk) || *interval != chunk.interval() || !chunk.id_hashes(0..chunk.len()).is_empty()
        });
        let needed = needed.map(|((_, (id, _)), _)| *id).collect();
        let texts = texts_of(&items.slices);
        let answer = WindowAnswer {
            items,
            rest: None,
            validity: None,
            settled: interval.end <= self.freshness_policy.settled_before(*asked_at),
            oldest_entry: parts.iter().map(|part| part.fetched_at).min(),
            outcome: Outcome::Hit,
            chunks: parts.len(),
            hits: parts.len(),
            calls: 0,
        };
        Some((answer, texts, needed))
    }
}

/// All of an answer but its items.
type Head = (u64, bool, bool, Option<Timestamp>, Outcome, usize, usize, u32);

fn head(answer: &WindowAnswer) -> Head {
    let WindowAnswer { items, settled, oldest_entry, outcome, chunks, hits, calls, rest, validity: _ } = answer;
    assert!(rest.is_none());
    (items.count, items.has_more, *settled, *oldest_entry, *outcome, *chunks, *hits, *calls)
}

fn texts_of(slices: &[Slice]) -> Vec<Bytes> {
    slices.iter().flat_map(|slice| slice.chunk.read(slice.rows.clone())).map(|row| row.unwrap().1).collect()
}

proptest! {
    #[test]
    fn a_glance_tells_what_a_look_at_each_chunk_tells_as_long_as_it_lasts(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
            world.check_lasting()?;
        }
    }
}
