//! Reads of one chunk, the eviction of it, and the life of another chunk, in all orders of their steps.
//!
//! moka has locks of its own, so no scheduler can stop a task inside of it. Here the steps are those that the product
//! makes between two calls of moka: a block cache in place of the real one, to which it passes everything on, lets the
//! other steps happen at each of these points.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use super::*;
use crate::cache::chunk::{BlockCache, Settled};
use crate::paging::Item;
use crate::window::Interval;

/// The points of a read that is to insert a block: before and after the lookup, before and after the insertion.
const POINTS: usize = 4;

/// The steps beside a read of chunk A, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    EvictA,
    InsertB,
    /// As often as makes its block hot.
    ReadB,
    EvictB,
}

/// Each order of the steps in which B lives from its insertion to its eviction.
const ORDERS: [[Step; 4]; 4] = [
    [Step::EvictA, Step::InsertB, Step::ReadB, Step::EvictB],
    [Step::InsertB, Step::EvictA, Step::ReadB, Step::EvictB],
    [Step::InsertB, Step::ReadB, Step::EvictA, Step::EvictB],
    [Step::InsertB, Step::ReadB, Step::EvictB, Step::EvictA],
];

fn items(marker: char) -> Vec<Item> {
    let json = |n: i64| format!(r#"{{"n":{n},"x":"{}"}}"#, marker.to_string().repeat(100));
    let item = |n: i64| Item { at: Timestamp::from_nanos(n), id: n.to_string().into(), json: json(n).into() };
    (0..20).map(item).collect()
}

fn chunk(marker: char) -> Arc<Chunk> {
    let interval = Interval::new(Timestamp::from_nanos(0), Timestamp::from_nanos(100));
    Arc::new(Chunk::new(interval, Timestamp::from_nanos(0), Settled::Yes, &items(marker)))
}

#[track_caller]
fn assert_reads_back(chunk: &Chunk, marker: char) {
    let read: Vec<Bytes> = chunk.read(0..chunk.len()).map(|row| row.unwrap().1).collect();
    assert!(read.into_iter().eq(items(marker).into_iter().map(|item| item.json)), "bytes of another chunk");
}

/// The other steps of a schedule, and what they act on.
#[derive(Debug)]
struct Others {
    memory: Memory,
    a: OnceLock<ChunkId>,
    b: Mutex<Option<(ChunkId, Arc<Chunk>)>>,
    /// The steps that happen at each point that is still to come. Empty before and after the read of the schedule.
    schedule: Mutex<VecDeque<Vec<Step>>>,
    /// Whether the block of A was inserted after A had been evicted.
    is_late: Mutex<bool>,
}

impl Others {
    fn at_point(&self) {
        let steps = self.schedule.lock().unwrap().pop_front().unwrap_or_default();
        for step in steps {
            self.make(step);
        }
    }

    fn make(&self, step: Step) {
        match step {
            Step::EvictA => self.memory.remove(*self.a.get().unwrap()),
            Step::InsertB => {
                let chunk = chunk('b');
                *self.b.lock().unwrap() = Some((self.memory.insert(chunk.clone()), chunk));
            }
            Step::ReadB => {
                let (_, chunk) = self.b.lock().unwrap().clone().unwrap();
                for _ in 0..4 {
                    assert_reads_back(&chunk, 'b');
                }
            }
            Step::EvictB => self.memory.remove(self.b.lock().unwrap().take().unwrap().0),
        }
    }
}

/// The block cache of A, with points before and after each call.
#[derive(Debug)]
struct PointedBlocks(Arc<Others>);

impl PointedBlocks {
    fn real(&self) -> HotBlocks {
        HotBlocks::new(*self.0.a.get().unwrap(), self.0.memory.hot_blocks.clone())
    }
}

impl BlockCache for PointedBlocks {
    fn text(&self, block: usize) -> Option<Bytes> {
        self.0.at_point();
        let text = self.real().text(block);
        self.0.at_point();
        text
    }

    fn insert_text(&self, block: usize, text: Bytes) {
        self.0.at_point();
        *self.0.is_late.lock().unwrap() = !self.0.memory.contains(*self.0.a.get().unwrap());
        self.real().insert_text(block, text);
        self.0.at_point();
    }

    fn edge(&self, block: usize, rows: &Range<usize>, skip: usize) -> Option<Bytes> {
        self.real().edge(block, rows, skip)
    }

    fn insert_edge(&self, block: usize, rows: &Range<usize>, skip: usize, deflated: Bytes) {
        self.real().insert_edge(block, rows, skip, deflated);
    }
}

/// All ways to spread `steps` over so many points, in their order.
fn spread(steps: &[Step], points: usize) -> Vec<VecDeque<Vec<Step>>> {
    if points == 0 {
        return if steps.is_empty() { vec![VecDeque::new()] } else { Vec::new() };
    }
    let with_first = |count: usize| {
        let rest = spread(&steps[count..], points - 1);
        rest.into_iter().map(move |mut rest| {
            rest.push_front(steps[..count].to_vec());
            rest
        })
    };
    (0..=steps.len()).flat_map(with_first).collect()
}

/// Reads chunk A for the third time, which makes its block hot, while the other steps happen as scheduled.
fn run(schedule: VecDeque<Vec<Step>>) {
    let memory = Memory::new(64 << 20);
    let (a, b, is_late) = Default::default();
    let others = Arc::new(Others { memory: memory.clone(), a, b, schedule: Mutex::default(), is_late });
    let chunk = chunk('a');
    // The first one that is attached stays.
    chunk.attach_block_cache(Box::new(PointedBlocks(others.clone())));
    others.a.set(memory.insert(chunk.clone())).unwrap();
    (0..2).for_each(|_| assert_reads_back(&chunk, 'a'));
    *others.schedule.lock().unwrap() = schedule;
    assert_reads_back(&chunk, 'a');
    assert!(others.schedule.lock().unwrap().is_empty(), "the read has passed all points");
    assert_reads_back(&chunk, 'a');

    assert_eq!(memory.bytes(), 0);
    assert_eq!(memory.pinned_bytes(), chunk.weight() as u64, "only the reader still holds a chunk");
    drop(chunk);
    assert_eq!(memory.pinned_bytes(), 0);
    // A block that comes too late is dropped when it has not been used for `HOT_BLOCK_IDLE_TIMEOUT`.
    assert_eq!(memory.hot_bytes() > 0, *others.is_late.lock().unwrap());
}

#[test]
fn chunk_read_during_eviction_keeps_its_own_bytes_and_weight() {
    let schedules: Vec<_> = ORDERS.iter().flat_map(|steps| spread(steps, POINTS)).collect();
    assert_eq!(schedules.len(), 4 * 35);
    schedules.into_iter().for_each(run);
}
