//! The proof of a duplicate: a repeated item is the sign of a torn scan, unless the page that holds all items of its
//! second, which is fetched for the proof, repeats it too: a single page cannot tear.
//! `scan.rs` detects the repeated item.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tower::Service;

use super::error::PagingError;
use super::item::Item;
use super::pager::Pager;
use super::run::ItemPacker;
use super::scan::{DuplicateItem, Inconsistency, OffsetScan};
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Interval, Timestamp};

/// Most verifications in one run. With more repeated items it is likelier that rows are moving.
const MOST_PROOFS: u32 = 8;

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Adds a page to the scan, verifying each repeated item on it.
    pub(super) async fn take(
        &mut self,
        scan: &mut OffsetScan,
        page: &Page,
    ) -> Result<Result<(), Inconsistency>, PagingError> {
        loop {
            match scan.take(page) {
                Err(Inconsistency::SeenTwice(twice)) if self.is_proven(&twice).await? => {
                    self.duplicates.allow_in(scan);
                }
                taken => return Ok(taken),
            }
        }
    }

    /// Fetches the second of a repeated item, or both its seconds, and returns whether the item occurs there as often.
    async fn is_proven(&mut self, twice: &DuplicateItem) -> Result<bool, PagingError> {
        let DuplicateItem { id, at } = twice;
        let proven = self.duplicates.proven.get(id).copied().unwrap_or(0);
        if self.duplicates.proofs >= MOST_PROOFS || at.contains(&Timestamp::MIN) {
            return Ok(false);
        }
        let mut seconds = at.map(Timestamp::floor_second).to_vec();
        seconds.dedup();
        let mut counts = HashMap::<Bytes, usize>::new();
        for second in seconds {
            self.duplicates.proofs += 1;
            let interval = Interval::new(second, second + Duration::from_secs(1));
            let page = self.page(self.query_for(interval), 0, PAGE_LIMIT).await?;
            if page.has_more {
                return Ok(self.give_up());
            }
            let field = &self.window.field;
            let read = page.items.iter().map(|json| Item::read(json, field));
            for (_, id) in read.filter(|(at, _)| at.is_some_and(|at| interval.contains(at))) {
                *counts.entry(id).or_default() += 1;
            }
        }
        if counts.get(id).copied().unwrap_or(0) < 2.max(proven + 1) {
            return Ok(self.give_up());
        }
        self.duplicates.proven.extend(counts.into_iter().filter(|(_, count)| *count > 1));
        Ok(true)
    }

    /// Gives up on verification: rows are moving. Returns false, for "not verified".
    fn give_up(&mut self) -> bool {
        self.duplicates.proofs = MOST_PROOFS;
        false
    }
}
