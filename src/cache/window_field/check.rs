//! What becomes of a run whose items do not lie where they were asked for: only its window is not cut, or its series, or
//! nothing of its account. The item is looked for where its timestamp says; see `fields` for the verdict.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::answer::Segment;
use crate::cache::answer::Session;
use crate::cache::chunk::Chunk;
use crate::cache::fetch::FetchTask;
use crate::cache::fetch::Fetcher;
use crate::cache::{CacheError, PageRange, WindowQuery};
use crate::paging::{Item, MisplacedItem, PagingError, PlacementCheck};
use crate::request::{QueueTimeout, Requester};
use crate::telemetry;
use crate::window::Interval;

impl Fetcher {
    /// Draws the consequences of a run that could not be cut.
    pub(in crate::cache) fn judge(self: &Arc<Self>, work: &FetchTask, error: &PagingError) {
        let FetchTask { series, shelf, flight } = work;
        let account = &series.account;
        if matches!(error, PagingError::WindowField) {
            if self.window_fields.mark_wrong_elsewhere(account) {
                self.series_map.clear(account, &self.memory);
            }
            return;
        }
        if !error.is_uncut() {
            return;
        }
        shelf.lock().mark_uncut(flight.interval());
        match error {
            PagingError::MisplacedItem(_) | PagingError::NoneIsPlaced if series.may_shift() => {
                self.window_fields.mark_shifted(series);
                self.forget_series(work);
            }
            PagingError::MisplacedItem(item) if series.is_plain() => self.start_check(work, item),
            PagingError::NoneIsPlaced if series.is_plain() && self.window_fields.record_unplaced(account) => {
                self.condemn(account);
            }
            _ => {}
        }
    }

    /// Draws the consequences of a run that has brought `chunks`.
    pub(in crate::cache) fn learn_of_field(self: &Arc<Self>, work: &FetchTask, chunks: &[Arc<Chunk>]) {
        let FetchTask { series, flight, .. } = work;
        if !series.is_plain() {
            return;
        }
        let Some(chunk) = chunks.iter().find(|chunk| !chunk.is_empty()) else { return };
        match flight.spec.placed {
            PlacementCheck::Checked => self.window_fields.record_placed(&series.account),
            PlacementCheck::Unchecked if self.window_fields.start_recheck(&series.account, !flight.is_remote()) => {
                let (fetcher, work, chunk) = (self.clone(), work.clone(), chunk.clone());
                tokio::spawn(async move { fetcher.review(&work, &chunk).await });
            }
            PlacementCheck::Unchecked => {}
        }
    }

    /// Looks for an item where its timestamp says, unless that was done before.
    fn start_check(self: &Arc<Self>, work: &FetchTask, item: &MisplacedItem) {
        let account = work.series.account.clone();
        let Some(trial) = self.window_fields.start_check(&account, item) else { return };
        let (fetcher, work, item) = (self.clone(), work.clone(), item.clone());
        tokio::spawn(async move {
            let found = fetcher.is_where_it_says(&work, &item).await;
            telemetry::window_field_trial(&account, found);
            if fetcher.window_fields.finish_check(&account, &item, found) {
                fetcher.condemn(&account);
            }
            drop(trial);
        });
    }

    /// Looks for one of the items of a window that was served uncut, whether the verdict over its account still holds.
    async fn review(self: &Arc<Self>, work: &FetchTask, chunk: &Chunk) {
        let account = &work.series.account;
        let Some(item) = self.some_item(chunk) else { return };
        let Some(found) = self.is_where_it_says(work, &item).await else { return };
        telemetry::window_field_trial(account, Some(found));
        if self.window_fields.finish_recheck(account, found) {
            telemetry::window_field_right(account);
        }
    }

    /// An item in the middle of a chunk, if it has a timestamp.
    fn some_item(&self, chunk: &Chunk) -> Option<MisplacedItem> {
        let middle = chunk.len() / 2;
        let (_, json) = chunk.read(middle..middle + 1).next()?.ok()?;
        let (at, id) = Item::read(&json, &self.window_field);
        at.map(|at| MisplacedItem { at, id })
    }

    /// Whether an item is in the second that its timestamp names, as one call tells; `None` if none can be had.
    async fn is_where_it_says(self: &Arc<Self>, work: &FetchTask, item: &MisplacedItem) -> Option<bool> {
        let second = Interval::new(item.at.floor_second(), item.at.floor_second() + Duration::from_secs(1));
        let asker = Requester::clone(work.flight.waiters.cause());
        let (page_range, asked_at) = (PageRange::ALL, self.clock.now());
        let query = WindowQuery {
            series: work.series.clone(),
            interval: second,
            page_range,
            asked_at,
            asker,
            may_stream: false,
        };
        let mut session = Session::new(self.clone(), query, Arc::new(QueueTimeout::new(self.queue_timeout)), None);
        let (parts, _) = session.gather_exactly().await.ok()?;
        Some(parts.iter().any(|Segment { slice, .. }| {
            let ids = slice.chunk.read(slice.rows.clone()).flatten();
            ids.map(|(_, json)| Item::read(&json, &self.window_field).1).any(|id| id == item.id)
        }))
    }

    /// The field of an account is wrong: nothing of it is cut, and what was cut is worth nothing.
    fn condemn(&self, account: &Arc<str>) {
        telemetry::window_field_wrong(account);
        self.series_map.clear(account, &self.memory);
        if let Some(tier) = &self.redis {
            tier.mark_field_wrong(account);
        }
    }

    /// The windows of a series are shifted by what only it asks for: what was cut of it is worth nothing.
    fn forget_series(&self, work: &FetchTask) {
        work.shelf.lock().clear_entries(&self.memory);
        if let Some(tier) = &self.redis {
            tier.mark_series_shifted(&work.series);
        }
    }
}

impl Session {
    /// Waits while it is being found out whether windows of its account may be cut. An error if they may not.
    pub(in crate::cache) async fn check_field(&self) -> Result<(), CacheError> {
        self.fetcher.window_fields.check_finished(&self.series.account).await;
        let is_wrong = self.fetcher.window_fields.is_wrong(&self.series);
        if is_wrong { Err(CacheError::Paging(PagingError::WindowField)) } else { Ok(()) }
    }
}
