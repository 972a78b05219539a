//! A stretch cut into chunks. Deflating a week takes half a second, in which those who wait for it get nothing: so where
//! there is much of it, more than one core has a part in it.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::chunk::{Chunk, Deflater, Settled};
use crate::repage::{Item, Stretch};
use crate::window::{Grid, Ladder, Span};

/// The bytes of items that one chunk holds at most, unless they all lie in one second.
const CHUNK_TEXT: usize = 1 << 20;
/// So much text is worth another core.
const PART: usize = 4 << 20;
/// However many cores there are: others want something too.
const MOST_PARTS: usize = 4;

/// The chunks of a stretch that may be cut, in their order. The epoch is that of its run.
pub(super) fn cut(stretch: &Stretch, epoch: u64, grid: Grid, ladder: &Ladder) -> Vec<Arc<Chunk>> {
    let (settled, open) = stretch.span.split_at(ladder.settled_before(stretch.fetched_at));
    let pieces: Vec<(Span, Settled)> = [(settled, Settled::Yes), (open, Settled::No)]
        .into_iter()
        .flat_map(|(span, settled)| {
            let pieces = grid.cut(span, |piece| text_len(items_within(&stretch.items, piece)) <= CHUNK_TEXT);
            pieces.into_iter().map(move |piece| (piece, settled))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let part = || {
        let mut deflater = Deflater::default();
        let mut chunks = Vec::new();
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some((piece, settled)) = pieces.get(number)
        {
            let items = items_within(&stretch.items, *piece);
            let chunk = Chunk::deflated(*piece, stretch.fetched_at, *settled, items, &mut deflater);
            chunks.push((number, Arc::new(chunk.with_epoch(epoch))));
        }
        chunks
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(MOST_PARTS);
    let parts = (text_len(&stretch.items) / PART).clamp(1, cores);
    let mut chunks = thread::scope(|scope| {
        let others: Vec<_> = (1..parts).map(|_| scope.spawn(part)).collect();
        let mut chunks = part();
        for other in others {
            // What broke there breaks here.
            chunks.extend(other.join().unwrap_or_else(|broken| resume_unwind(broken)));
        }
        chunks
    });
    chunks.sort_unstable_by_key(|(number, _)| *number);
    chunks.into_iter().map(|(_, chunk)| chunk).collect()
}

fn items_within(items: &[Item], span: Span) -> &[Item] {
    let start = items.partition_point(|item| item.at < span.start);
    let end = items.partition_point(|item| item.at < span.end);
    &items[start..end]
}

fn text_len(items: &[Item]) -> usize {
    items.iter().map(|item| item.json.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::window::Moment;

    #[test]
    fn what_many_cores_have_cut_is_in_order_and_whole() {
        let at = |n: i64| Moment::from_seconds(n * 10);
        let json = |n: i64| Bytes::from(format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(2_000)));
        let item = |n: i64| Item { at: at(n), id: format!("ac-{n}").into(), json: json(n) };
        let items: Vec<Item> = (0..10_000).map(item).collect();
        let stretch = Stretch { span: Span::new(at(0), at(10_000)), items, fetched_at: at(10_000) };
        let ladder = Ladder::new(Duration::from_secs(20_000), vec![]);
        let chunks = cut(&stretch, 7, Grid::new(Duration::from_hours(1)), &ladder);
        assert_eq!(chunks.first().map(|chunk| chunk.span().start), Some(at(0)));
        assert_eq!(chunks.last().map(|chunk| chunk.span().end), Some(at(10_000)));
        assert!(chunks.windows(2).all(|pair| pair[0].span().end == pair[1].span().start));
        assert!(chunks.iter().all(|chunk| chunk.epoch() == 7));
        let items = chunks.iter().flat_map(|chunk| chunk.read(0..chunk.len()).map(|row| row.unwrap().1));
        assert!(items.eq(stretch.items.iter().map(|item| item.json.clone())));
    }
}
