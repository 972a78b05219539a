//! The tables of callers, runs and problems.

use std::fmt::Write as _;
use std::time::Duration;

use super::format::{duration, limit, number, percent, time_element};
use crate::admin::problems::{ProblemStatus, ProblemsStatus};
use crate::admin::runs::{RunStatusLine, RunsStatus};
use crate::api::{AccountUsage, CallerUsage};
use crate::problem::escape_html;
use crate::window::Timestamp;

/// Maximum callers on the page.
const MAX_CALLERS: usize = 100;

/// A table in a box that scrolls, so that the page does not.
fn table(id: &str, caption: &str, columns: &[(&str, bool)], rows: &str) -> String {
    let mut head = String::new();
    for (name, is_number) in columns {
        let class = if *is_number { " class=\"number\"" } else { "" };
        let _ = write!(head, "<th scope=\"col\"{class}>{name}</th>");
    }
    format!(
        "<div class=\"scroll\" id=\"{id}\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table>\
         <caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// The callers, those with the most calls first.
pub(super) fn callers(callers: &[CallerUsage]) -> String {
    let mut sorted: Vec<_> = callers.iter().map(|caller| (caller, caller.total())).collect();
    sorted.sort_by_key(|(_, (requests, made, _))| std::cmp::Reverse((*made, *requests)));
    let mut rows = String::new();
    for (caller, (requests, made, saved)) in sorted.iter().take(MAX_CALLERS) {
        let name =
            if caller.caller == "-" { "(no callers are configured)".into() } else { escape_html(&caller.caller) };
        let items: u64 = caller.accounts.iter().map(|account| account.items).sum();
        let share = percent(*saved, made + saved).map_or("–".to_owned(), |share| format!("{share} %"));
        let uses: Vec<String> = caller.accounts.iter().flat_map(quota_use).collect();
        let own = caller.limit.map_or("–".to_owned(), |own| format!("{} of {}", own.left, own.requests_per_minute));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" class=\"name\">{name}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{share}</td>\
             <td class=\"whole\">{}</td><td class=\"number\">{own}</td></tr>",
            number(*requests),
            number(items),
            number(*made),
            number(*saved),
            uses.join("<br>")
        );
    }
    let left_out = callers.len().saturating_sub(MAX_CALLERS);
    let more = if left_out > 0 {
        format!("<p class=\"quiet\">{left_out} further callers are in <a href=\"api/v1/callers\">callers</a>.</p>")
    } else {
        String::new()
    };
    let columns = [
        ("Caller", false),
        ("Requests", true),
        ("Items", true),
        ("Calls made", true),
        ("Calls saved", true),
        ("Saved", true),
        ("Quota in use now", false),
        ("Own requests left", true),
    ];
    table("callers-table", "Callers since the start, the largest user of calls first", &columns, &rows) + &more
}

/// What a caller uses of each limit of an account now.
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
    let mut rows = String::new();
    for run in &status.runs {
        let RunStatusLine { stream, from, to, caller, priority, seconds, pages, expected_pages, .. } = run;
        let (stream, caller) = (escape_html(stream), escape_html(caller));
        let time = |at: &str| at.get(..16).unwrap_or(at).replace('T', " ");
        let progress = match expected_pages {
            None => format!("{} pages, of an unknown number", number((*pages).into())),
            Some(expected) => {
                let share = percent((*pages).into(), (*expected).into()).unwrap_or_default().min(100);
                format!(
                    "{} of about {} pages<svg class=\"meter\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" \
                     aria-hidden=\"true\"><rect class=\"track\" width=\"100\" height=\"8\"/>\
                     <rect class=\"fill\" width=\"{share}\" height=\"8\"/></svg>",
                    number((*pages).into()),
                    number((*expected).into())
                )
            }
        };
        let spoken = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let state = match (run.paused_seconds, run.is_remote) {
            (Some(paused), _) => format!("waits for the quota for another {}", spoken(paused)),
            (None, true) => "another replica fetches it".to_owned(),
            (None, false) => "is being fetched".to_owned(),
        };
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" class=\"name\">{stream}</th><td class=\"whole\">{} to<br>{}</td>\
             <td class=\"whole\">{progress}</td><td>{state}</td><td class=\"name\">{caller}, {priority}</td>\
             <td class=\"number\">{}</td></tr>",
            time(from),
            time(to),
            spoken(*seconds)
        );
    }
    let columns = [
        ("Stream", false),
        ("Time (UTC)", false),
        ("Progress", false),
        ("State", false),
        ("For", false),
        ("Since", true),
    ];
    let more = if status.total > status.runs.len() {
        format!("<p class=\"quiet\">{} runs in all.</p>", number(status.total as u64))
    } else {
        String::new()
    };
    table("runs-table", "Runs, the oldest first", &columns, &rows) + &more
}

/// The last problems, the latest first.
pub(super) fn problems(status: &ProblemsStatus, now: Timestamp) -> String {
    if status.problems.is_empty() {
        return "<p>None since the start.</p>".to_owned();
    }
    let mut rows = String::new();
    for problem in &status.problems {
        let ProblemStatus { first, last, times, caller, stream, kind, text } = problem;
        let who = match caller.as_deref() {
            None => "koregate itself".into(),
            Some("-") => "(unknown)".into(),
            Some(caller) => escape_html(caller),
        };
        let stream = stream.as_deref().map_or_else(|| "–".into(), escape_html);
        let repeated = if *times > 1 {
            format!("<br><span class=\"quiet\">{} times since {}</span>", number(*times), time_element(first, now))
        } else {
            String::new()
        };
        let _ = write!(
            rows,
            "<tr><td>{}{repeated}</td><td class=\"text\">{}<br><span class=\"quiet\">{}</span></td>\
             <td class=\"name\">{who}</td><td class=\"name\">{stream}</td></tr>",
            time_element(last, now),
            escape_html(text),
            escape_html(kind)
        );
    }
    let columns = [("Time (UTC)", false), ("What", false), ("Caller", false), ("Stream", false)];
    table("problems-table", "Problems since the start, the latest first", &columns, &rows)
}
