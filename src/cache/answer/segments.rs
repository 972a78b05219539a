//! The parts of a window, cut from the chunks that hold them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::lookup::Hit;
use crate::cache::chunk::{Damaged, Slice};
use crate::window::{Interval, Timestamp};

/// A part of the window with what serves it.
pub(in crate::cache) struct Segment {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) slice: Slice,
    /// When it was fetched.
    pub(in crate::cache) fetched_at: Timestamp,
    /// Whether it was there before.
    pub(in crate::cache) copy: bool,
    /// Whether the chunk was made of another for this answer.
    pub(in crate::cache) derived: bool,
}

/// Cuts what is held to the window, in time order; items of other series are changed first.
pub(in crate::cache) async fn parts(mut held: Vec<(Interval, Hit)>) -> Result<Vec<Segment>, Damaged> {
    held.sort_by_key(|(interval, _)| interval.start);
    let changes = held.iter().any(|(_, held)| !held.change.is_none());
    let cut = move || held.into_iter().map(|(interval, held)| part(interval, held)).collect();
    // Changing items parses them, which takes long enough to hold up others of this thread.
    if changes { tokio::task::spawn_blocking(cut).await.unwrap_or(Err(Damaged)) } else { cut() }
}

fn part(interval: Interval, held: Hit) -> Result<Segment, Damaged> {
    let (fetched_at, copy, derived) = (held.chunk.fetched_at(), held.copy, !held.change.is_none());
    let chunk = if derived { Arc::new(held.chunk.derive(|item| held.change.apply(item))?) } else { held.chunk };
    let slice = Slice { rows: chunk.rows_within(interval), chunk };
    Ok(Segment { interval, slice, fetched_at, copy, derived })
}

/// The spans whose items have moved elsewhere since they were fetched: an item that is not settled and stands in two
/// parts has left the one that was fetched first. What one run has brought twice stands there twice.
pub(in crate::cache) fn twice(parts: &[Segment]) -> Vec<Interval> {
    let mut seen: HashMap<u64, &Segment> = HashMap::new();
    let mut moved = Vec::new();
    for part in parts {
        for name in part.slice.chunk.id_hashes(part.slice.rows.clone()) {
            if let Some(other) = seen.insert(*name, part) {
                match other.slice.chunk.fetched_at().cmp(&part.slice.chunk.fetched_at()) {
                    Ordering::Less => moved.push(other.interval),
                    Ordering::Equal => {}
                    Ordering::Greater => moved.push(part.interval),
                }
            }
        }
    }
    moved
}
