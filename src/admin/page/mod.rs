//! The status page: one HTML page that the server renders. A script keeps it current; without, it is loaded again by
//! hand. All texts of callers are escaped, and the content security policy allows no script but the page's own.
//!
//! | file | contents |
//! | --- | --- |
//! | `format.rs` | numbers, times and durations for people |
//! | `template.rs` | puts values into the places of a file of HTML |
//! | `summary.rs` | the first answers, in tiles |
//! | `table.rs` | a table that also fits on a narrow screen |
//! | `health.rs` | whether all is well, in words, and the parts of the gateway |
//! | `savings.rs` | the headline, and the chart of calls with and without koregate |
//! | `quota.rs` | the limits, what is left of them, and who waits |
//! | `days.rs` | the calendar of cached days |
//! | `tables.rs` | callers, runs and problems |
//! | `forms.rs` | the first request, signing in and out, and purging |
//! | `assets/` | HTML, style and script |

mod days;
mod format;
mod forms;
mod health;
mod quota;
mod savings;
mod summary;
mod table;
mod tables;
mod template;

use std::sync::Arc;

use self::format::clock_time;
use self::template::fill;
use super::session::CsrfToken;
use super::views::coverage::CoverageStatus;
use super::views::history::{History, Sample};
use super::views::problems::{LimitName, ProblemsStatus};
use super::views::runs::RunsStatus;
use super::views::status::Status;
use crate::api::CallerUsage;
use crate::problem::escape_html;
use crate::window::Timestamp;

pub(super) use self::forms::{ExampleRequest, PurgeQuestion, confirm_purge, purge_refused, purge_result, sign_in};

/// Path of the style sheet.
pub(super) const STYLE_PATH: &str = "/assets/style.css";
/// Path of the script of the status page.
pub(super) const SCRIPT_PATH: &str = "/assets/page.js";
/// Path of the script of the sign-in page.
pub(super) const SIGN_IN_SCRIPT_PATH: &str = "/assets/sign_in.js";

const PAGE: &str = include_str!("assets/page.html");
const SMALL_PAGE: &str = include_str!("assets/small.html");

/// The content type and the text of an asset.
pub(super) fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        STYLE_PATH => Some(("text/css; charset=utf-8", include_str!("assets/style.css"))),
        SCRIPT_PATH => Some(("text/javascript; charset=utf-8", include_str!("assets/page.js"))),
        SIGN_IN_SCRIPT_PATH => Some(("text/javascript; charset=utf-8", include_str!("assets/sign_in.js"))),
        _ => None,
    }
}

/// The contents of the page.
pub(super) struct PageModel<'a> {
    pub(super) now: Timestamp,
    pub(super) status: &'a Status,
    pub(super) callers: &'a [CallerUsage],
    pub(super) view: SpanView<'a>,
    pub(super) limits: &'a [LimitName],
    /// `None` leaves the calendar out.
    pub(super) coverage: Option<Arc<CoverageStatus>>,
    pub(super) runs: &'a RunsStatus,
    pub(super) problems: &'a ProblemsStatus,
    /// The configuration in force, without secrets.
    pub(super) configuration: &'a str,
    pub(super) example: Option<ExampleRequest<'a>>,
    pub(super) csrf: CsrfToken,
    /// Whether the browser has a session, and can end it.
    pub(super) is_session: bool,
}

/// The time that charts show: the last hour by minutes, or the last six hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanView<'a> {
    /// Ascending.
    spans: &'a [Sample],
    /// "hour" or "6 hours".
    name: &'static str,
    /// The length of a span: "a minute".
    bar: &'static str,
    /// Number of spans of a row in the table.
    spans_per_row: usize,
}

/// The spans that charts show of a process that has been up for so long.
pub(super) fn spans(history: &History, now: Timestamp, uptime_seconds: u64) -> Vec<Sample> {
    if is_young(uptime_seconds) {
        let mut minutes = history.spans(now, 1);
        minutes.split_off(minutes.len().saturating_sub(YOUNG_MINUTES))
    } else {
        history.spans(now, SPAN_MINUTES)
    }
}

impl<'a> SpanView<'a> {
    /// The view of the spans of [`spans`].
    pub(super) fn new(spans: &'a [Sample], uptime_seconds: u64) -> Self {
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

/// The status page.
pub(super) fn render(model: &PageModel<'_>) -> String {
    let PageModel { now, status, callers, view, limits, runs, problems, configuration, csrf, .. } = model;
    let verdict = health::verdict(status);
    let csrf = csrf.to_string();
    let now_text = clock_time(*now);
    fill(
        PAGE,
        &[
            ("title", &format!("koregate: {}", verdict.word())),
            ("verdict", &verdict.html()),
            ("sign_out", &if model.is_session { forms::sign_out(&csrf) } else { String::new() }),
            ("now", &now_text),
            ("first_request", &forms::first_request(model.example.as_ref().filter(|_| status.calls.requests == 0))),
            ("summary", &summary::render(model)),
            ("health", &health::render(status, *now)),
            ("savings", &savings::render(status, view)),
            ("quota", &quota::render(status, view, limits)),
            ("callers", &tables::callers(callers)),
            ("coverage", &model.coverage.as_ref().map(|coverage| days::render(coverage)).unwrap_or_default()),
            ("runs", &tables::runs(runs)),
            ("problems", &tables::problems(problems, *now)),
            ("csrf", &csrf),
            ("accounts", &forms::account_choice(status)),
            ("configuration", &escape_html(configuration)),
            ("footer", &health::footer(status)),
        ],
    )
}

/// A page with one section, whose content is HTML.
fn small_page(title: &str, script: &str, content: &str) -> String {
    fill(SMALL_PAGE, &[("title", &escape_html(title)), ("script", script), ("content", content)])
}

#[cfg(test)]
mod tests;
