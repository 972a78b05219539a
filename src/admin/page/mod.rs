//! The status page: one HTML page that the server renders. A script keeps it current; without, it is loaded again by
//! hand. All texts of callers are escaped, and the content security policy allows no script but the page's own.
//!
//! | file | contents |
//! | --- | --- |
//! | `format.rs` | numbers, times and durations for people |
//! | `template.rs` | puts values into the places of a file of HTML |
//! | `model.rs` | the contents of the page |
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
mod model;
mod quota;
mod savings;
mod summary;
mod table;
mod tables;
mod template;

use self::format::clock_time;
use self::template::fill;
use crate::problem::escape_html;

pub(super) use self::forms::{ExampleRequest, PurgeQuestion, confirm_purge, purge_refused, purge_result, sign_in};
pub(super) use self::model::{PageModel, SpanView, spans};

/// Path of the style sheet.
pub(super) const STYLE_PATH: &str = "/assets/style.css";
/// Path of the script of the status page.
pub(super) const SCRIPT_PATH: &str = "/assets/page.js";
/// Path of the script of the sign-in page.
pub(super) const SIGN_IN_SCRIPT_PATH: &str = "/assets/sign_in.js";

const PAGE: &str = include_str!("assets/page.html");

/// The content type and the text of an asset.
pub(super) fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        STYLE_PATH => Some(("text/css; charset=utf-8", include_str!("assets/style.css"))),
        SCRIPT_PATH => Some(("text/javascript; charset=utf-8", include_str!("assets/page.js"))),
        SIGN_IN_SCRIPT_PATH => Some(("text/javascript; charset=utf-8", include_str!("assets/sign_in.js"))),
        _ => None,
    }
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

#[cfg(test)]
mod tests;
