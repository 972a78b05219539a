//! The first answers: what is saved, what is left of the quota, who uses it, what is cached, and what failed last.

use std::fmt::Write as _;

use super::format::{limit, number, percent, time_element};
use super::model::PageModel;
use super::tables::{caller_name, sorted};
use crate::admin::views::coverage::CoverageStatus;
use crate::admin::views::status::{QuotaStatus, Status};
use crate::problem::escape_html;

/// Maximum bytes of a problem's text.
const MAX_PROBLEM_BYTES: usize = 90;

/// Tiles with a link to their section.
pub(super) fn render(model: &PageModel<'_>) -> String {
    let mut html = "<ul class=\"tiles\">".to_owned();
    let mut tile = |name: &str, target: &str, value: &str, details: &str| {
        let _ = write!(
            html,
            "<li><h3><a href=\"#{target}\" id=\"tile-{target}\">{name}</a></h3><p class=\"value\">{value}</p>\
             <p class=\"quiet\">{details}</p></li>"
        );
    };
    let (value, details) = saved(model.status);
    tile("Calls saved", "savings", &value, &details);
    let (value, details) = quota(model.status);
    tile("Quota left", "quota", &value, &details);
    let (value, details) = largest_user(model);
    tile("Largest user", "callers", &value, &details);
    let (value, details) = last_problem(model);
    tile("Last problem", "problems", &value, &details);
    html.push_str("</ul>");
    html
}

/// The number of cached days of all streams, in a sentence.
pub(super) fn cached(coverage: &CoverageStatus) -> String {
    let days = |is: fn(u64, u64) -> bool| {
        let all = coverage.streams.iter().flat_map(|stream| &stream.days);
        all.filter(|day| is(day.parts.missing, day.parts.cached())).count() as u64
    };
    let (whole, partial) =
        (days(|missing, cached| missing == 0 && cached > 0), days(|missing, cached| missing > 0 && cached > 0));
    format!(
        "<p>Days cached, of all streams shown ({}): {} as a whole, {} in part.</p>",
        number(coverage.streams.len() as u64),
        number(whole),
        number(partial)
    )
}

fn saved(status: &Status) -> (String, String) {
    let calls = &status.calls;
    let alone = calls.made + calls.saved;
    match percent(calls.saved, alone) {
        None => ("–".to_owned(), "nothing was requested yet".to_owned()),
        Some(share) => (format!("{share} %"), format!("{} calls instead of {}", number(calls.made), number(alone))),
    }
}

/// The limit of which the least share is left.
fn quota(status: &Status) -> (String, String) {
    let all = status.accounts.iter().flat_map(|account| &account.quota);
    let share = |quota: &&QuotaStatus| u64::from(quota.remaining) * 10_000 / u64::from(quota.requests.max(1));
    let waiting: usize = status.accounts.iter().map(|account| account.waiting).sum();
    match all.min_by_key(share) {
        None => ("–".to_owned(), String::new()),
        Some(least) => (
            format!("{} %", share(&least) / 100),
            format!(
                "{} of {}; {} calls wait",
                number(least.remaining.into()),
                limit(least.requests, least.per_seconds),
                number(waiting as u64)
            ),
        ),
    }
}

/// The caller with the most calls in the longest of the limits.
fn largest_user(model: &PageModel<'_>) -> (String, String) {
    match sorted(model.callers).first() {
        Some((caller, (_, made, _))) if *made > 0 => {
            let all: u64 = model.status.calls.made;
            let share = percent(*made, all).unwrap_or_default();
            (caller_name(&caller.caller), format!("{} calls, {share} % of all", number(*made)))
        }
        _ => ("–".to_owned(), "no calls were made yet".to_owned()),
    }
}

fn last_problem(model: &PageModel<'_>) -> (String, String) {
    match model.problems.problems.first() {
        None => ("None".to_owned(), "since the start".to_owned()),
        Some(problem) => {
            let text = &problem.text[..problem.text.floor_char_boundary(MAX_PROBLEM_BYTES)];
            let more = if text.len() < problem.text.len() { "…" } else { "" };
            (time_element(&problem.last, model.now), escape_html(text) + more)
        }
    }
}
