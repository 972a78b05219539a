//! The contents of the status page, before it is written.

use std::sync::Arc;

use super::forms::ExampleRequest;
use crate::admin::session::CsrfToken;
use crate::admin::views::coverage::CoverageStatus;
use crate::admin::views::history::{History, Sample};
use crate::admin::views::problems::{LimitName, ProblemsStatus};
use crate::admin::views::runs::RunsStatus;
use crate::admin::views::status::Status;
use crate::api::CallerUsage;
use crate::window::Timestamp;

/// The contents of the page.
pub(in crate::admin) struct PageModel<'a> {
    pub(in crate::admin) now: Timestamp,
    pub(in crate::admin) status: &'a Status,
    pub(in crate::admin) callers: &'a [CallerUsage],
    pub(in crate::admin) view: SpanView<'a>,
    pub(in crate::admin) limits: &'a [LimitName],
    /// `None` leaves the calendar out.
    pub(in crate::admin) coverage: Option<Arc<CoverageStatus>>,
    pub(in crate::admin) runs: &'a RunsStatus,
    pub(in crate::admin) problems: &'a ProblemsStatus,
    /// The configuration in force, without secrets.
    pub(in crate::admin) configuration: &'a str,
    pub(in crate::admin) example: Option<ExampleRequest<'a>>,
    pub(in crate::admin) csrf: CsrfToken,
    /// Whether the browser has a session, and can end it.
    pub(in crate::admin) is_session: bool,
}

/// The time that charts show: the last hour by minutes, or the last six hours.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct SpanView<'a> {
    /// Ascending.
    pub(super) spans: &'a [Sample],
    /// "hour" or "6 hours".
    pub(super) name: &'static str,
    /// The length of a span: "a minute".
    pub(super) bar: &'static str,
    /// Number of spans of a row in the table.
    pub(super) spans_per_row: usize,
}

/// The spans that charts show of a process that has been up for so long.
pub(in crate::admin) fn spans(history: &History, now: Timestamp, uptime_seconds: u64) -> Vec<Sample> {
    if is_young(uptime_seconds) {
        let mut minutes = history.spans(now, 1);
        minutes.split_off(minutes.len().saturating_sub(YOUNG_MINUTES))
    } else {
        history.spans(now, SPAN_MINUTES)
    }
}

impl<'a> SpanView<'a> {
    /// The view of the spans of [`spans`].
    pub(in crate::admin) fn new(spans: &'a [Sample], uptime_seconds: u64) -> Self {
        let (name, bar, spans_per_row) =
            if is_young(uptime_seconds) { ("hour", "a minute", 5) } else { ("6 hours", "5 minutes", 6) };
        Self { spans, name, bar, spans_per_row }
    }
}

/// Minutes of a span of the last six hours.
const SPAN_MINUTES: usize = 5;
/// Minutes that the charts of a young process show.
const YOUNG_MINUTES: usize = 60;

/// Whether a process has been up for less than an hour.
const fn is_young(uptime_seconds: u64) -> bool {
    uptime_seconds < 3_600
}
