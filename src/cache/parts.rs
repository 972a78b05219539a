//! The parts of a window, cut from the chunks that hold them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::{Damaged, Slice};
use super::look::Held;
use crate::window::{Moment, Span};

/// A part of the window with what serves it.
pub(super) struct Part {
    pub(super) span: Span,
    pub(super) slice: Slice,
    /// When it was fetched.
    pub(super) fetched_at: Moment,
    /// Whether it was there before.
    pub(super) copy: bool,
    /// Whether the chunk was made of another for this answer.
    pub(super) derived: bool,
}

/// Cuts what is held to the window, in time order; items of other series are changed first.
pub(super) async fn parts(mut held: Vec<(Span, Held)>) -> Result<Vec<Part>, Damaged> {
    held.sort_by_key(|(span, _)| span.start);
    let changes = held.iter().any(|(_, held)| !held.change.is_none());
    let cut = move || held.into_iter().map(|(span, held)| part(span, held)).collect();
    // Changing items parses them, which takes long enough to hold up others of this thread.
    if changes { tokio::task::spawn_blocking(cut).await.unwrap_or(Err(Damaged)) } else { cut() }
}

fn part(span: Span, held: Held) -> Result<Part, Damaged> {
    let (fetched_at, copy, derived) = (held.chunk.fetched_at(), held.copy, !held.change.is_none());
    let chunk = if derived { Arc::new(held.chunk.derive(|item| held.change.apply(item))?) } else { held.chunk };
    let slice = Slice { rows: chunk.rows_within(span), chunk };
    Ok(Part { span, slice, fetched_at, copy, derived })
}

/// The spans whose items have moved elsewhere since they were fetched: an item that is not settled and stands in two
/// parts has left the one that was fetched first. What one run has brought twice stands there twice.
pub(super) fn twice(parts: &[Part]) -> Vec<Span> {
    let mut seen: HashMap<u64, &Part> = HashMap::new();
    let mut moved = Vec::new();
    for part in parts {
        for name in part.slice.chunk.names(part.slice.rows.clone()) {
            if let Some(other) = seen.insert(*name, part) {
                match other.slice.chunk.fetched_at().cmp(&part.slice.chunk.fetched_at()) {
                    Ordering::Less => moved.push(other.span),
                    Ordering::Equal => {}
                    Ordering::Greater => moved.push(part.span),
                }
            }
        }
    }
    moved
}
