//! Consequences of items that do not lie where they were requested: the window, its series or its account is not cut by
//! time any more. Whether the account is affected is decided by a field check: a call for the second that the item's
//! timestamp names. See `window_field` for the states.

use std::sync::Arc;
use std::time::Duration;

use super::assembly::{AssemblyRequest, Segment};
use super::fetcher::Fetcher;
use super::task::FetchTask;
use crate::cache::chunk::{Chunk, PageRange};
use crate::cache::types::WindowQuery;
use crate::paging::{Item, OutsideItem, PagingError, PlacementCheck};
use crate::request::{QueueTimeout, Requester, Series};
use crate::telemetry;
use crate::window::Interval;

impl Fetcher {
    /// Draws the consequences of a run that must be fetched exactly.
    pub(super) fn check_field_of_failure(self: &Arc<Self>, task: &FetchTask, error: &PagingError) {
        let FetchTask { series, state, fetch } = task;
        let account = &series.account;
        if matches!(error, PagingError::WindowField) {
            if self.window_fields.mark_wrong_elsewhere(account) {
                self.series_map.clear(account, &self.memory);
            }
            return;
        }
        if !error.must_fetch_exactly() {
            return;
        }
        state.lock().mark_exact(fetch.interval());
        match error {
            PagingError::OutsideInterval(_) | PagingError::AllWithoutTimestamp if series.may_shift() => {
                self.window_fields.mark_shifted(series);
                self.clear_series(task);
            }
            PagingError::OutsideInterval(item) if series.is_plain() => self.start_check(task, item),
            PagingError::AllWithoutTimestamp if series.is_plain() && self.window_fields.record_unplaced(account) => {
                self.clear_account(account);
            }
            _ => {}
        }
    }

    /// Draws the consequences of a run that has brought `chunks`.
    pub(super) fn check_field_of_chunks(self: &Arc<Self>, task: &FetchTask, chunks: &[Arc<Chunk>]) {
        let FetchTask { series, fetch, .. } = task;
        if !series.is_plain() {
            return;
        }
        let Some(chunk) = chunks.iter().find(|chunk| !chunk.is_empty()) else { return };
        match fetch.spec.placement {
            PlacementCheck::Checked => self.window_fields.record_placed(&series.account),
            PlacementCheck::Unchecked if self.window_fields.start_recheck(&series.account, !fetch.is_remote()) => {
                let (fetcher, task, chunk) = (self.clone(), task.clone(), chunk.clone());
                tokio::spawn(async move { fetcher.recheck(&task, &chunk).await });
            }
            PlacementCheck::Unchecked => {}
        }
    }

    /// Looks for an item in the second that its timestamp names, unless that was done before.
    fn start_check(self: &Arc<Self>, task: &FetchTask, item: &OutsideItem) {
        let account = task.series.account.clone();
        let Some(check) = self.window_fields.start_check(&account, item) else { return };
        let (fetcher, task, item) = (self.clone(), task.clone(), item.clone());
        tokio::spawn(async move {
            let found = fetcher.is_in_its_second(&task, &item).await;
            telemetry::window_field_trial(&account, found);
            if fetcher.window_fields.finish_check(&account, &item, found) {
                fetcher.clear_account(&account);
            }
            drop(check);
        });
    }

    /// Looks for an item of a window that was fetched exactly, to check whether the field is still wrong.
    async fn recheck(self: &Arc<Self>, task: &FetchTask, chunk: &Chunk) {
        let account = &task.series.account;
        let Some(item) = self.middle_item(chunk) else { return };
        let Some(found) = self.is_in_its_second(task, &item).await else { return };
        telemetry::window_field_trial(account, Some(found));
        if self.window_fields.finish_recheck(account, found) {
            telemetry::window_field_right(account);
        }
    }

    /// The item in the middle of a chunk, if it has a timestamp.
    fn middle_item(&self, chunk: &Chunk) -> Option<OutsideItem> {
        let middle = chunk.len() / 2;
        let (_, json) = chunk.read(middle..middle + 1).next()?.ok()?;
        let (timestamp, id) = Item::read(&json, &self.settings.window_field);
        timestamp.map(|at| OutsideItem { at, id })
    }

    /// Whether one call for the second that an item's timestamp names returns the item; `None` if the call fails.
    async fn is_in_its_second(self: &Arc<Self>, task: &FetchTask, item: &OutsideItem) -> Option<bool> {
        let start = item.at.floor_second();
        let query = WindowQuery {
            series: task.series.clone(),
            interval: Interval::new(start, start + Duration::from_secs(1)),
            page_range: PageRange::ALL,
            asked_at: self.clock.now(),
            requester: Requester::clone(task.fetch.waiters.cause()),
            may_stream: false,
        };
        let queue_timeout = Arc::new(QueueTimeout::new(self.settings.queue_timeout));
        let request = AssemblyRequest { query, queue_timeout, placement: PlacementCheck::Unchecked, batch_guard: None };
        let window = (self.assemble_window)(self.clone(), request).await.ok()?;
        Some(window.segments.iter().any(|Segment { slice, .. }| {
            let items = slice.chunk.read(slice.rows.clone()).flatten();
            items.map(|(_, json)| Item::read(&json, &self.settings.window_field).1).any(|id| id == item.id)
        }))
    }

    /// Removes everything that was cut of an account whose field is wrong.
    fn clear_account(self: &Arc<Self>, account: &Arc<str>) {
        telemetry::window_field_wrong(account);
        self.series_map.clear(account, &self.memory);
        let wrong = account.clone();
        self.erase_from_disk(move |series, _| series.account == wrong);
        if let Some(redis) = &self.redis {
            redis.mark_field_wrong(account);
        }
    }

    /// Removes everything that was cut of a series whose parameters or filter shift its windows.
    fn clear_series(&self, task: &FetchTask) {
        task.state.lock().clear_entries(&self.memory);
        let series = task.series.clone();
        self.erase_from_disk(move |other, _| *other == Series { agentic: other.agentic, ..Series::clone(&series) });
        if let Some(redis) = &self.redis {
            redis.mark_series_shifted(&task.series);
        }
    }
}
