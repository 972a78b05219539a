//! Consequences of items that do not lie where they were requested: the window, its series or all that is cut by the same
//! field is not cut by time any more. Whether all of it is affected is decided by a field check: a call for the second that the item's
//! timestamp names. See `window_field` for the states.

use std::sync::Arc;
use std::time::Duration;

use super::assembly::{AssemblyRequest, Segment};
use super::fetcher::Fetcher;
use super::task::FetchTask;
use crate::cache::chunk::{Chunk, PageRange};
use crate::cache::types::{QueryOptions, WindowQuery};
use crate::cache::window_field::FieldScope;
use crate::paging::{Item, OutsideItem, PagingError, PlacementCheck};
use crate::request::{QueueTimeout, Requester, Series, WaitMeter};
use crate::telemetry;
use crate::traces::SpanKind;
use crate::window::Interval;

impl Fetcher {
    /// Draws the consequences of a run that must be fetched exactly.
    pub(super) fn check_field_of_failure(self: &Arc<Self>, task: &FetchTask, error: &PagingError) {
        let FetchTask { series, state, fetch } = task;
        let scope = self.settings.field_scope(series);
        if matches!(error, PagingError::WindowField) {
            if self.window_fields.mark_wrong_elsewhere(&scope) {
                self.clear_memory(&scope);
            }
            return;
        }
        if !error.must_fetch_exactly() {
            return;
        }
        state.lock().mark_exact(fetch.interval());
        match error {
            PagingError::OutsideInterval(_) | PagingError::AllWithoutTimestamp if series.may_shift() => {
                self.window_fields.mark_shifted(series, &self.settings.of(series));
                self.clear_series(task);
            }
            PagingError::OutsideInterval(item) if series.is_plain() => self.start_check(task, item),
            PagingError::AllWithoutTimestamp if series.is_plain() && self.window_fields.record_unplaced(&scope) => {
                self.clear_scope(&scope);
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
        let scope = self.settings.field_scope(series);
        match fetch.spec.placement {
            PlacementCheck::Checked => self.window_fields.record_placed(&scope),
            PlacementCheck::Unchecked if self.window_fields.start_recheck(&scope, !fetch.is_remote()) => {
                let (fetcher, task, chunk) = (self.clone(), task.clone(), chunk.clone());
                tokio::spawn(async move { fetcher.recheck(&task, &chunk).await });
            }
            PlacementCheck::Unchecked => {}
        }
    }

    /// Looks for an item in the second that its timestamp names, unless that was done before.
    fn start_check(self: &Arc<Self>, task: &FetchTask, item: &OutsideItem) {
        let scope = self.settings.field_scope(&task.series);
        let Some(check) = self.window_fields.start_check(&scope, item) else { return };
        let (fetcher, task, item) = (self.clone(), task.clone(), item.clone());
        tokio::spawn(async move {
            let found = fetcher.is_in_its_second(&task, &item).await;
            telemetry::window_field_trial(&scope.account, &scope.field, found);
            if fetcher.window_fields.finish_check(&scope, &item, found) {
                fetcher.clear_scope(&scope);
            }
            drop(check);
        });
    }

    /// Looks for an item of a window that was fetched exactly, to check whether the field is still wrong.
    async fn recheck(self: &Arc<Self>, task: &FetchTask, chunk: &Chunk) {
        let scope = self.settings.field_scope(&task.series);
        let Some(item) = self.middle_item(task, chunk) else { return };
        let Some(found) = self.is_in_its_second(task, &item).await else { return };
        telemetry::window_field_trial(&scope.account, &scope.field, Some(found));
        if self.window_fields.finish_recheck(&scope, found) {
            let is_all_right = !self.window_fields.is_account_wrong(&scope.account);
            telemetry::window_field_right(&scope.account, Some(&scope.field), is_all_right);
        }
    }

    /// The item in the middle of a chunk, if it has a timestamp.
    fn middle_item(&self, task: &FetchTask, chunk: &Chunk) -> Option<OutsideItem> {
        let middle = chunk.len() / 2;
        let (_, json) = chunk.read(middle..middle + 1).next()?.ok()?;
        let (timestamp, id) = Item::read(&json, &self.settings.of(&task.series).field);
        timestamp.map(|at| OutsideItem { at, id })
    }

    /// Whether one call for the second that an item's timestamp names returns the item; `None` if the call fails, or
    /// would fetch what is too old to be fetched.
    async fn is_in_its_second(self: &Arc<Self>, task: &FetchTask, item: &OutsideItem) -> Option<bool> {
        let (start, asked_at, settings) = (item.at.floor_second(), self.clock.now(), self.settings.of(&task.series));
        if settings.retained_since(asked_at).is_some_and(|since| start < since) {
            return None;
        }
        let query = WindowQuery {
            series: task.series.clone(),
            interval: Interval::new(start, start + Duration::from_secs(1)),
            page_range: PageRange::ALL,
            asked_at,
            requester: Requester::clone(task.fetch.waiters.cause()),
            may_stream: false,
            options: QueryOptions::default(),
            waited: WaitMeter::default(),
            span: task.fetch.waiters.span().child(SpanKind::Internal, "check of window.field"),
        };
        let queue_timeout = Arc::new(QueueTimeout::new(self.settings.queue_timeout));
        let request = AssemblyRequest { query, queue_timeout, placement: PlacementCheck::Unchecked, batch_guard: None };
        let window = (self.assemble_window)(self.clone(), request).await.ok()?;
        Some(window.segments.iter().any(|Segment { slice, .. }| {
            let items = slice.chunk.read(slice.rows.clone()).flatten();
            items.map(|(_, json)| Item::read(&json, &settings.field).1).any(|id| id == item.id)
        }))
    }

    /// Removes everything that was cut by a field that is wrong.
    fn clear_scope(self: &Arc<Self>, scope: &FieldScope) {
        telemetry::window_field_wrong(&scope.account, &scope.field);
        self.clear_memory(scope);
        let (settings, wrong) = (self.settings.clone(), scope.clone());
        self.erase_from_disk(move |series, _| FieldScope::new(&series.account, &settings.of(series)) == wrong);
        if let Some(redis) = &self.redis {
            redis.mark_field_wrong(scope);
        }
    }

    /// Removes everything from memory that was cut by this field.
    fn clear_memory(&self, scope: &FieldScope) {
        let is_cut_by_it = |stream: &str| scope.has(&self.settings.series.for_series(&scope.account, stream));
        self.series_map.clear(&scope.account, is_cut_by_it, &self.memory);
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
