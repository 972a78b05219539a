//! The limits of each account, what is left of them, and who waits.

use std::fmt::Write as _;

use super::format::{limit, number, percent};
use crate::admin::history::Sample;
use crate::admin::problems::LimitName;
use crate::admin::status::{AccountStatus, QuotaStatus, Status, WaitingStatus};
use crate::problem::escape_html;

/// Height of a sparkline, in units of its view box.
const HEIGHT: u64 = 30;

pub(super) fn render(status: &Status, spans: &[Sample], limits: &[LimitName]) -> String {
    let mut html = String::new();
    for account in &status.accounts {
        waiting(&mut html, account, status.accounts.len() > 1);
    }
    let _ = write!(
        html,
        "<div class=\"scroll\" id=\"quota-table\" tabindex=\"0\" role=\"region\" aria-label=\"Limits of the quota\">\
         <table><caption>Rolling limits of calls to Kore</caption><thead><tr>{}<th scope=\"col\">Limit</th>\
         <th scope=\"col\" class=\"number\">Left now</th><th scope=\"col\">In use</th>\
         <th scope=\"col\">Left in the last 6 hours</th></tr></thead><tbody>",
        if status.accounts.len() > 1 { "<th scope=\"col\">Account</th>" } else { "" }
    );
    for account in &status.accounts {
        for quota in &account.quota {
            let place = limits
                .iter()
                .position(|limit| limit.account_id == account.account_id && limit.per_seconds == quota.per_seconds);
            html.push_str("<tr>");
            if status.accounts.len() > 1 {
                let _ = write!(html, "<td class=\"name\">{}</td>", escape_html(&account.account_id));
            }
            limit_row(&mut html, quota, spans, place);
        }
    }
    html.push_str("</tbody></table></div>");
    html
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

fn limit_row(html: &mut String, quota: &QuotaStatus, spans: &[Sample], place: Option<usize>) {
    let QuotaStatus { requests, per_seconds, budget, remaining } = *quota;
    let name = limit(requests, per_seconds);
    let budget = if budget < requests {
        format!("<br><span class=\"quiet\">{} of them ours; another client uses the rest</span>", number(budget.into()))
    } else {
        String::new()
    };
    let used = percent(requests.saturating_sub(remaining).into(), requests.into()).unwrap_or_default();
    let _ = write!(
        html,
        "<th scope=\"row\" class=\"whole\">{name}{budget}</th><td class=\"number\"><strong>{}</strong> of {}</td>\
         <td class=\"whole\">{used} %<svg class=\"meter\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"100\" height=\"8\"/><rect class=\"fill\" width=\"{used}\" height=\"8\"/></svg></td>\
         <td>{}</td></tr>",
        number(remaining.into()),
        number(requests.into()),
        sparkline(requests, spans, place)
    );
}

/// The least calls that were left in each span, as a line.
fn sparkline(requests: u32, spans: &[Sample], place: Option<usize>) -> String {
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
        "<svg class=\"spark\" role=\"img\" aria-label=\"Least that was left: {least} of {requests}\" \
         viewBox=\"0 -1 {} {}\" preserveAspectRatio=\"none\"><path class=\"base\" d=\"M0 {HEIGHT}H{}\"/><path d=\"{path}\"/></svg>\
         <span class=\"quiet\">least: {}</span>",
        spans.len(),
        HEIGHT + 2,
        spans.len(),
        number(least.into())
    )
}
