//! The limits of each account, what is left of them, and who waits.

use std::fmt::Write as _;

use super::format::{limit, number, percent};
use super::model::SpanView;
use super::table::{Table, TableColumn, meter};
use crate::admin::views::history::Sample;
use crate::admin::views::problems::LimitName;
use crate::admin::views::status::{AccountStatus, QuotaStatus, Status, WaitingStatus};
use crate::problem::escape_html;

const COLUMNS: &[(&str, TableColumn)] = &[
    ("Limit", TableColumn::Header),
    ("Left now", TableColumn::Number),
    ("In use", TableColumn::Whole),
    ("Left over time", TableColumn::Whole),
];
/// Height of a sparkline, in units of its view box.
const HEIGHT: u64 = 30;

pub(super) fn render(status: &Status, view: &SpanView<'_>, limits: &[LimitName]) -> String {
    let mut html = String::new();
    for account in &status.accounts {
        waiting(&mut html, account, status.accounts.len() > 1);
    }
    let mut table = Table::new("quota-table", "Rolling limits of calls to Kore", COLUMNS);
    for account in &status.accounts {
        for quota in &account.quota {
            let is_own =
                |limit: &LimitName| limit.account_id == account.account_id && limit.per_seconds == quota.per_seconds;
            let of = if status.accounts.len() > 1 { account.account_id.as_str() } else { "" };
            limit_row(&mut table, of, quota, view, limits.iter().position(is_own));
        }
    }
    html + &table.finish()
}

fn waiting(html: &mut String, account: &AccountStatus, is_named: bool) {
    let WaitingStatus { interactive, refresh, background } = account.waiting_by_priority;
    let of = if is_named { format!(" (account {})", escape_html(&account.account_id)) } else { String::new() };
    let _ = match account.waiting {
        0 => write!(html, "<p>No call waits for the quota{of}.</p>"),
        waiting => write!(
            html,
            "<p><strong>{} calls wait for the quota</strong>{of}: {interactive} interactive, {refresh} refresh, \
             {background} background.</p>",
            number(waiting as u64)
        ),
    };
}

fn limit_row(table: &mut Table, account: &str, quota: &QuotaStatus, view: &SpanView<'_>, place: Option<usize>) {
    let QuotaStatus { requests, per_seconds, budget, remaining } = *quota;
    let mut name = limit(requests, per_seconds);
    if !account.is_empty() {
        let _ = write!(name, "<br><span class=\"quiet\">account {}</span>", escape_html(account));
    }
    if budget < requests {
        let budget = number(budget.into());
        let _ = write!(name, "<br><span class=\"quiet\">{budget} of them ours; another client uses the rest</span>");
    }
    let used = percent(requests.saturating_sub(remaining).into(), requests.into()).unwrap_or_default();
    let in_use = if used == 0 && remaining < requests { "under 1 %".to_owned() } else { format!("{used} %") };
    table.row([
        name,
        format!("<strong>{}</strong> of {}", number(remaining.into()), number(requests.into())),
        in_use + &meter(used),
        sparkline(requests, view, place),
    ]);
}

/// The least calls that were left in each span, as a line.
fn sparkline(requests: u32, view: &SpanView<'_>, place: Option<usize>) -> String {
    let SpanView { spans, name, .. } = view;
    let left = |span: &Sample| place.and_then(|place| span.least_left.get(place)).copied();
    let Some(least) = spans.iter().filter_map(left).min() else { return "<span class=\"quiet\">–</span>".to_owned() };
    let mut path = String::new();
    let mut is_drawing = false;
    for (x, span) in spans.iter().enumerate() {
        let Some(left) = left(span) else {
            is_drawing = false;
            continue;
        };
        let y = HEIGHT - u64::from(left.min(requests)) * HEIGHT / u64::from(requests.max(1));
        // A single point is drawn too, as a short line.
        let _ = if is_drawing { write!(path, "L{} {y}", x + 1) } else { write!(path, "M{x} {y}L{} {y}", x + 1) };
        is_drawing = true;
    }
    format!(
        "<svg class=\"spark\" role=\"img\" aria-label=\"Least that was left in the last {name}: {least} of {requests}\" \
         viewBox=\"0 -1 {} {}\" preserveAspectRatio=\"none\"><path class=\"base\" d=\"M0 {HEIGHT}H{}\"/><path d=\"{path}\"/></svg>\
         <span class=\"quiet\">least: {}</span>",
        spans.len(),
        HEIGHT + 2,
        spans.len(),
        number(least.into())
    )
}
