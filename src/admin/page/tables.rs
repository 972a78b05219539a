//! The tables of callers, runs and problems.

use std::time::Duration;

use super::format::{duration, limit, number, percent, time_element};
use super::table::{Table, TableColumn, meter};
use crate::admin::views::problems::{ProblemStatus, ProblemsStatus};
use crate::admin::views::runs::{RunStatusLine, RunsStatus};
use crate::api::{AccountUsage, CallerUsage};
use crate::problem::escape_html;
use crate::window::Timestamp;

/// Maximum callers on the page.
const MAX_CALLERS: usize = 100;
const CALLER_COLUMNS: &[(&str, TableColumn)] = &[
    ("Caller", TableColumn::Header),
    ("Requests", TableColumn::Number),
    ("Items", TableColumn::Number),
    ("Calls made", TableColumn::Number),
    ("Calls saved", TableColumn::Number),
    ("Saved", TableColumn::Number),
    ("Quota in use now", TableColumn::Whole),
    ("Own requests left", TableColumn::Number),
];
const RUN_COLUMNS: &[(&str, TableColumn)] = &[
    ("Stream", TableColumn::Header),
    ("Time (UTC)", TableColumn::Whole),
    ("Progress", TableColumn::Whole),
    ("State", TableColumn::Text),
    ("For", TableColumn::Text),
    ("Since", TableColumn::Number),
];
const PROBLEM_COLUMNS: &[(&str, TableColumn)] = &[
    ("Time (UTC)", TableColumn::Whole),
    ("What", TableColumn::Text),
    ("Kind", TableColumn::Whole),
    ("Caller", TableColumn::Text),
    ("Stream", TableColumn::Text),
];

/// The name of a caller, as HTML.
pub(super) fn caller_name(name: &str) -> String {
    if name == "-" { "(no callers are configured)".to_owned() } else { escape_html(name) }
}

/// The callers, those with the most calls first.
pub(super) fn sorted(callers: &[CallerUsage]) -> Vec<(&CallerUsage, (u64, u64, u64))> {
    let mut sorted: Vec<_> = callers.iter().map(|caller| (caller, caller.total())).collect();
    sorted.sort_by_key(|(_, (requests, made, _))| std::cmp::Reverse((*made, *requests)));
    sorted
}

pub(super) fn callers(callers: &[CallerUsage]) -> String {
    let mut table =
        Table::new("callers-table", "Callers since the start, the largest user of calls first", CALLER_COLUMNS);
    for (caller, (requests, made, saved)) in sorted(callers).into_iter().take(MAX_CALLERS) {
        let items: u64 = caller.accounts.iter().map(|account| account.items).sum();
        let uses: Vec<String> = caller.accounts.iter().flat_map(quota_use).collect();
        table.row([
            caller_name(&caller.caller),
            number(requests),
            number(items),
            number(made),
            number(saved),
            percent(saved, made + saved).map_or("–".to_owned(), |share| format!("{share} %")),
            uses.join("<br>"),
            caller.limit.map_or("–".to_owned(), |own| format!("{} of {}", own.left, own.requests_per_minute)),
        ]);
    }
    let left_out = callers.len().saturating_sub(MAX_CALLERS);
    let more = if left_out > 0 {
        format!("<p class=\"quiet\">{left_out} further callers are in <a href=\"api/v1/callers\">callers</a>.</p>")
    } else {
        String::new()
    };
    table.finish() + &more
}

/// The use of each limit of an account by a caller now.
fn quota_use(account: &AccountUsage) -> Vec<String> {
    let uses = account
        .quota
        .iter()
        .map(|quota| format!("{} of {}", number(quota.spent.into()), limit(quota.limit, quota.per_seconds)));
    uses.collect()
}

/// The runs under way, the oldest first.
pub(super) fn runs(status: &RunsStatus) -> String {
    if status.runs.is_empty() {
        return "<p>Nothing is being fetched now.</p>".to_owned();
    }
    let mut table = Table::new("runs-table", "Runs, the oldest first", RUN_COLUMNS);
    for run in &status.runs {
        let time = |at: &str| at.get(..16).unwrap_or(at).replace('T', " ");
        table.row([
            escape_html(&run.stream),
            format!("{} to<br>{}", time(&run.from), time(&run.to)),
            progress(run),
            run_state(run),
            format!("{}, {}", caller_name(&run.caller), run.priority),
            spoken(run.seconds),
        ]);
    }
    let more = if status.total > status.runs.len() {
        format!("<p class=\"quiet\">{} runs in all.</p>", number(status.total as u64))
    } else {
        String::new()
    };
    table.finish() + &more
}

fn spoken(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn progress(run: &RunStatusLine) -> String {
    let pages: u64 = run.pages.into();
    match run.expected_pages {
        None => format!("{} pages, of an unknown number", number(pages)),
        Some(expected) => {
            let share = percent(pages, expected.into()).unwrap_or_default();
            format!("{} of about {} pages{}", number(pages), number(expected.into()), meter(share))
        }
    }
}

fn run_state(run: &RunStatusLine) -> String {
    match (run.paused_seconds, run.is_remote) {
        (Some(paused), _) => format!("waits for the quota for another {}", spoken(paused)),
        (None, true) => "another replica fetches it".to_owned(),
        (None, false) => "is being fetched".to_owned(),
    }
}

/// The last problems, the latest first.
pub(super) fn problems(status: &ProblemsStatus, now: Timestamp) -> String {
    if status.problems.is_empty() {
        return "<p>None since the start.</p>".to_owned();
    }
    let mut table = Table::new("problems-table", "Problems since the start, the latest first", PROBLEM_COLUMNS);
    for problem in &status.problems {
        let ProblemStatus { first, last, times, caller, stream, kind, text } = problem;
        let repeated = if *times > 1 {
            format!("<br><span class=\"quiet\">{} times since {}</span>", number(*times), time_element(first, now))
        } else {
            String::new()
        };
        table.row([
            format!("{}{repeated}", time_element(last, now)),
            escape_html(text),
            escape_html(kind),
            match caller.as_deref() {
                None => "koregate itself".to_owned(),
                Some("-") => "(unknown)".to_owned(),
                Some(caller) => escape_html(caller),
            },
            stream.as_deref().map_or_else(|| "–".to_owned(), escape_html),
        ]);
    }
    table.finish()
}
