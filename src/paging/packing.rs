//! Packs scanned items while the next pages are fetched, so that a run whose rows come in order is held in packed form.

use std::collections::VecDeque;
use std::time::Duration;

use super::error::PagingError;
use super::run::{ItemPacker, RunPart};
use super::scan::{OffsetScan, RowOrder};
use crate::blocking::spawn_work;
use crate::sync::JoinHandle;
use crate::window::{Interval, Timestamp};

/// Most parts that are packed concurrently.
const AT_ONCE: usize = 2;
/// Unpacked bytes above which items are packed up to the next second, and not only up to the next line of the grid.
const MOST_UNPACKED: usize = 2 << 20;

/// The packed part of a run.
pub(super) struct Packing<P: ItemPacker> {
    packer: P,
    /// The grid on which chunks are cut.
    grid: Duration,
    packed: Vec<P::Packed>,
    under_way: VecDeque<JoinHandle<Vec<P::Packed>>>,
}

impl<P: ItemPacker> Packing<P> {
    pub(super) fn new(packer: P, grid: Duration) -> Self {
        Self { packer, grid, packed: Vec::new(), under_way: VecDeque::new() }
    }

    /// Number of packed pieces, once all parts under way are packed.
    pub(super) async fn settled_len(&mut self) -> Result<usize, PagingError> {
        self.settle(0).await?;
        Ok(self.packed.len())
    }

    /// Memory of the packed pieces, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.packed.iter().map(P::weight).sum()
    }

    /// Drops all packed pieces after the first `len`.
    pub(super) async fn truncate(&mut self, len: usize) -> Result<(), PagingError> {
        self.settle(0).await?;
        self.packed.truncate(len);
        Ok(())
    }

    /// Packs the complete part of `interval` that the scan has passed; `line` is the nearest line up to which the scan
    /// is complete if the rows are in order.
    pub(super) async fn pack_passed(
        &mut self,
        scan: &mut OffsetScan,
        interval: Interval,
        line: Timestamp,
        fetched_at: Timestamp,
    ) -> Result<(), PagingError> {
        let Some(passed) = self.passed(scan, interval, line) else { return Ok(()) };
        let items = scan.hand_over(passed);
        self.pack(RunPart { interval: passed, items, fetched_at }).await
    }

    /// Packs a part.
    pub(super) async fn pack(&mut self, part: RunPart) -> Result<(), PagingError> {
        self.settle(AT_ONCE - 1).await?;
        let packer = self.packer.clone();
        self.under_way.push_back(spawn_work(move || packer.pack(part)));
        Ok(())
    }

    /// Waits for all parts and returns them.
    pub(super) async fn finish(mut self) -> Result<Vec<P::Packed>, PagingError> {
        self.settle(0).await?;
        Ok(self.packed)
    }

    /// Waits until at most `most` parts are being packed.
    async fn settle(&mut self, most: usize) -> Result<(), PagingError> {
        while self.under_way.len() > most {
            let Some(packing) = self.under_way.pop_front() else { break };
            // Fails only if the packer panics or the runtime shuts down.
            self.packed.extend(packing.await.map_err(|_| PagingError::Lost)?);
        }
        Ok(())
    }

    /// The part to pack now: everything passed up to a line of the grid or, if there is much, up to `line`.
    fn passed(&self, scan: &OffsetScan, interval: Interval, line: Timestamp) -> Option<Interval> {
        let (before, much) = (scan.handed_over(), scan.unpacked_bytes() > MOST_UNPACKED);
        let goes_to = |cell, is_passed, from| match (is_passed, much) {
            (true, _) => cell,
            (false, true) => line,
            (false, false) => from,
        };
        let part = match scan.order() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct PanickingPacker;

    impl ItemPacker for PanickingPacker {
        type Packed = ();

        fn pack(&self, _: RunPart) -> Vec<()> {
            panic!("a defect of the gateway")
        }

        fn weight((): &()) -> usize {
            0
        }
    }

    #[tokio::test]
    async fn panicked_packer_loses_the_run() {
        let mut packing = Packing::new(PanickingPacker, Duration::from_secs(20));
        let part = RunPart { interval: Interval::default(), items: Vec::new(), fetched_at: Timestamp::from_seconds(0) };
        packing.pack(part).await.unwrap();
        assert!(matches!(packing.finish().await, Err(PagingError::Lost)));
    }
}
