//! Items that the upstream holds several times, as far as they were verified.

use std::collections::HashMap;

use bytes::Bytes;

use super::scan::OffsetScan;

/// Repeated items of a run, as far as they were verified.
#[derive(Debug, Default)]
pub(super) struct ProvenDuplicates {
    /// How many times the upstream holds each item, by `segmentID`.
    pub(super) proven: HashMap<Bytes, usize>,
    pub(super) proofs: u32,
}

impl ProvenDuplicates {
    pub(super) fn allow_in(&self, scan: &mut OffsetScan) {
        for (id, count) in &self.proven {
            scan.allow(id.clone(), *count);
        }
    }
}
