//! Items that stand several times in the upstream. That an item comes twice is the sign by which paging is found to have
//! torn, so it must be proven that it stands there twice: by a page that holds all of its second, for one page cannot
//! tear.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tower::Service;

use super::item::Item;
use super::pager::Pager;
use super::scan::{DuplicateItem, Inconsistency, OffsetScan};
use super::{ItemPacker, PagingError};
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Interval, Timestamp};

/// So many proofs at most for one run: where more items come twice, the rows rather move.
const MOST_PROOFS: u32 = 8;

/// What a run has proven of items that came twice.
#[derive(Debug, Default)]
pub(super) struct ProvenDuplicates {
    /// How many times each of them stands in the upstream.
    proven: HashMap<Bytes, usize>,
    proofs: u32,
}

impl ProvenDuplicates {
    pub(super) fn allow_in(&self, walk: &mut OffsetScan) {
        for (id, stands) in &self.proven {
            walk.allow(id.clone(), *stands);
        }
    }
}

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Lets a walk take a page; what comes twice on it, if it is proven to stand there twice.
    pub(super) async fn take(
        &mut self,
        walk: &mut OffsetScan,
        page: &Page,
    ) -> Result<Result<(), Inconsistency>, PagingError> {
        loop {
            match walk.take(page) {
                Err(Inconsistency::SeenTwice(twice)) if self.stands_twice(&twice).await? => {
                    self.multiples.allow_in(walk);
                }
                taken => return Ok(taken),
            }
        }
    }

    /// Asks for the second of an item that came twice, or for both of them: whether it stands there as often.
    async fn stands_twice(&mut self, twice: &DuplicateItem) -> Result<bool, PagingError> {
        let DuplicateItem { id, at } = twice;
        let proven = self.multiples.proven.get(id).copied().unwrap_or(0);
        if self.multiples.proofs >= MOST_PROOFS || at.contains(&Timestamp::MIN) {
            return Ok(false);
        }
        let mut seconds = at.map(Timestamp::floor_second).to_vec();
        seconds.dedup();
        let mut stands = HashMap::<Bytes, usize>::new();
        for second in seconds {
            self.multiples.proofs += 1;
            let interval = Interval::new(second, second + Duration::from_secs(1));
            let page = self.page(self.query_for(interval), 0, PAGE_LIMIT).await?;
            if page.has_more {
                return Ok(self.give_up_proofs());
            }
            let field = &self.stage.settings.window.field;
            let read = page.items.iter().map(|json| Item::read(json, field));
            for (_, id) in read.filter(|(at, _)| at.is_some_and(|at| interval.contains(at))) {
                *stands.entry(id).or_default() += 1;
            }
        }
        if stands.get(id).copied().unwrap_or(0) < 2.max(proven + 1) {
            return Ok(self.give_up_proofs());
        }
        self.multiples.proven.extend(stands.into_iter().filter(|(_, stands)| *stands > 1));
        Ok(true)
    }

    /// The rows move: what comes twice is not asked for again. Gives that nothing is proven.
    fn give_up_proofs(&mut self) -> bool {
        self.multiples.proofs = MOST_PROOFS;
        false
    }
}
