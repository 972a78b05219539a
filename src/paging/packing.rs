//! Items that a scan has passed are packed while the next pages are fetched, so that a run whose rows come in order is not
//! held as it came.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::scan::{OffsetScan, RowOrder};
use super::{ItemPacker, PagingError, RunPart};
use crate::window::{Interval, Timestamp};

/// So many parts are being packed at once.
const AT_ONCE: usize = 2;
/// More bytes than this are packed up to the next second, and not only up to the next line of the grid.
const MOST_UNPACKED: usize = 2 << 20;

/// What a run has brought so far, packed.
pub(super) struct Packing<P: ItemPacker> {
    packer: P,
    /// The lines at which chunks are cut anyway.
    grid: Duration,
    packed: Vec<P::Packed>,
    under_way: VecDeque<JoinHandle<Vec<P::Packed>>>,
}

impl<P: ItemPacker> Packing<P> {
    pub(super) fn new(packer: P, grid: Duration) -> Self {
        Self { packer, grid, packed: Vec::new(), under_way: VecDeque::new() }
    }

    /// How many packed pieces there are, when all that is being packed is.
    pub(super) async fn settled_len(&mut self) -> Result<usize, PagingError> {
        self.settle(0).await?;
        Ok(self.packed.len())
    }

    /// The bytes of memory that the packed pieces take.
    pub(super) fn bytes(&self) -> usize {
        self.packed.iter().map(P::weight).sum()
    }

    /// Lets go of what has been packed behind the first `len` pieces.
    pub(super) async fn truncate(&mut self, len: usize) -> Result<(), PagingError> {
        self.settle(0).await?;
        self.packed.truncate(len);
        Ok(())
    }

    /// Packs what `walk` has passed of `interval`; `line` is the one nearest to where it is on this side of which it has seen
    /// everything, if its order holds.
    pub(super) async fn pack_passed(
        &mut self,
        walk: &mut OffsetScan,
        interval: Interval,
        line: Timestamp,
        fetched_at: Timestamp,
    ) -> Result<(), PagingError> {
        let Some(passed) = self.passed(walk, interval, line) else { return Ok(()) };
        let items = walk.hand_on(passed);
        self.pack(RunPart { interval: passed, items, fetched_at }).await
    }

    /// Packs a part.
    pub(super) async fn pack(&mut self, part: RunPart) -> Result<(), PagingError> {
        self.settle(AT_ONCE - 1).await?;
        let packer = self.packer.clone();
        self.under_way.push_back(tokio::task::spawn_blocking(move || packer.pack(part)));
        Ok(())
    }

    /// All that was packed.
    pub(super) async fn finish(mut self) -> Result<Vec<P::Packed>, PagingError> {
        self.settle(0).await?;
        Ok(self.packed)
    }

    /// Waits until no more than so many parts are being packed.
    async fn settle(&mut self, most: usize) -> Result<(), PagingError> {
        while self.under_way.len() > most {
            let Some(packing) = self.under_way.pop_front() else { break };
            // It panics only if the packer does, or the runtime ends.
            self.packed.extend(packing.await.map_err(|_| PagingError::Torn(Interval::default()))?);
        }
        Ok(())
    }

    /// The part that is to be packed now: all that has been passed, as far as a line of the grid or, if it is much, `line`.
    fn passed(&self, walk: &OffsetScan, interval: Interval, line: Timestamp) -> Option<Interval> {
        let (before, much) = (walk.handed_on(), walk.held() > MOST_UNPACKED);
        let goes_to = |cell, is_passed, from| match (is_passed, much) {
            (true, _) => cell,
            (false, true) => line,
            (false, false) => from,
        };
        let part = match walk.order() {
            RowOrder::Ascending => {
                let from = if before.is_empty() { interval.start } else { before.end };
                let cell = line.floor_to(self.grid);
                Interval::new(from, goes_to(cell, cell > from, from))
            }
            RowOrder::Descending => {
                let from = if before.is_empty() { interval.end } else { before.start };
                let cell = self.grid_line_from(line);
                Interval::new(goes_to(cell, cell < from, from), from)
            }
            RowOrder::Unknown | RowOrder::Other => return None,
        };
        (part.start < part.end).then_some(part)
    }

    /// The first line of the grid that is not before `line`.
    fn grid_line_from(&self, line: Timestamp) -> Timestamp {
        let cell = line.floor_to(self.grid);
        if cell < line { cell + self.grid } else { cell }
    }
}
