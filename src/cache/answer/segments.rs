//! Segments of a window, sliced from the chunks that serve it.

use std::collections::HashMap;
use std::sync::Arc;

use super::lookup::Hit;
use crate::blocking::spawn_work;
use crate::cache::chunk::{Damaged, Slice};
use crate::cache::fetch::Segment;
use crate::window::{Interval, Timestamp};

/// Slices segments from `hits`, ascending. Items of other series are converted.
///
/// # Errors
/// [`Damaged`] if a chunk does not inflate.
pub(super) async fn slice_segments(mut hits: Vec<(Interval, Hit)>) -> Result<Vec<Segment>, Damaged> {
    hits.sort_by_key(|(interval, _)| interval.start);
    let converts = hits.iter().any(|(_, hit)| !hit.conversion.is_identity());
    let slice = move || hits.into_iter().map(|(interval, hit)| slice_segment(interval, hit)).collect();
    // A conversion parses items, which would hold up other tasks of this thread.
    if converts { spawn_work(slice).await.unwrap_or(Err(Damaged)) } else { slice() }
}

fn slice_segment(interval: Interval, hit: Hit) -> Result<Segment, Damaged> {
    let Hit { chunk, conversion, is_cached } = hit;
    let (fetched_at, is_derived) = (chunk.fetched_at(), !conversion.is_identity());
    let chunk = if is_derived { Arc::new(chunk.derive(|item| conversion.apply(item))?) } else { chunk };
    let slice = Slice { rows: chunk.rows_within(interval), chunk };
    Ok(Segment { interval, slice, fetched_at, is_cached, is_derived })
}

/// The segments from which items have moved since they were fetched: an open item that is in two segments has left the
/// one that was fetched first. Two equal items of one fetch are both true.
pub(super) fn moved_segments(segments: &[Segment]) -> Vec<Interval> {
    moved_since(segments, Timestamp::MAX)
}

/// The same, without the segments that were fetched at `accepted_since` or later.
pub(super) fn moved_since(segments: &[Segment], accepted_since: Timestamp) -> Vec<Interval> {
    let mut seen: HashMap<u64, &Segment> = HashMap::new();
    let mut moved = Vec::new();
    for segment in segments {
        for name in segment.slice.chunk.id_hashes(segment.slice.rows.clone()) {
            if let Some(other) = seen.insert(*name, segment) {
                let fetched_at = |segment: &Segment| segment.slice.chunk.fetched_at();
                let (older, newer) =
                    if fetched_at(other) < fetched_at(segment) { (other, segment) } else { (segment, other) };
                if fetched_at(older) < fetched_at(newer).min(accepted_since) {
                    moved.push(older.interval);
                }
            }
        }
    }
    moved
}
