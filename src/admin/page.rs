//! The status page: one HTML page without script that reloads itself.

use std::fmt::Write as _;

use super::status::{QuotaStatus, Status};
use crate::api::CallerUsage;
use crate::problem::escape_html;

/// The status page for `status` and the callers' usage.
pub(super) fn render(status: &Status, callers: &[CallerUsage]) -> String {
    let mut rows = String::new();
    for account in &status.accounts {
        for quota in &account.quota {
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td><meter max={} value={}></meter> {} left</td><td>{}</td></tr>",
                escape_html(&account.account_id),
                format_limit(quota),
                quota.requests,
                quota.remaining,
                quota.remaining,
                account.waiting,
            );
        }
    }
    let mut callers_rows = String::new();
    for caller in callers {
        let (requests, spent, saved) = caller.total();
        let name = escape_html(&caller.caller);
        let _ = write!(callers_rows, "<tr><td>{name}</td><td>{requests}</td><td>{spent}</td><td>{saved}</td></tr>");
    }
    let mut problems = String::new();
    for problem in &status.problems {
        let _ = write!(problems, "<p class=problem>{}</p>", escape_html(problem));
    }
    let (used, limit) = (status.cache.memory_bytes, status.cache.memory_limit_bytes);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <meta name=viewport content=\"width=device-width\"><title>koregate</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;\
         color-scheme:light dark}}table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;\
         padding:.3rem .6rem;border-bottom:1px solid #8884}}meter{{width:8rem}}.problem{{border-left:4px solid #c33;\
         padding-left:.6rem}}</style>\
         <h1>koregate is {}</h1>{problems}\
         <p>Version {}, up for {} s. <a href=metrics>Metrics</a>, <a href=api/v1/status>status</a> and \
         <a href=api/v1/callers>callers</a> as JSON.</p>\
         <p>Configuration {}, in force since {}.{}</p>\
         <h2>Quota</h2><table><tr><th>Account<th>Limit<th>Left<th>Waiting</tr>{rows}</table>\
         <h2>Callers</h2><table><tr><th>Caller<th>Requests<th>Calls spent<th>Calls saved</tr>{callers_rows}</table>\
         <h2>Memory</h2><p><meter max={limit} value={used}></meter> {} of {} MiB</p></html>",
        status.status,
        status.version,
        status.uptime_seconds,
        status.configuration.hash,
        status.configuration.since,
        format_restarts(&status.configuration.needs_restart),
        used >> 20,
        limit >> 20,
    )
}

/// The keys whose new values need a restart, as a sentence; empty if there are none.
fn format_restarts(keys: &[&str]) -> String {
    if keys.is_empty() { String::new() } else { format!(" New values need a restart: {}.", keys.join(", ")) }
}

/// A limit, with the part that this process may use where another client spends the same quota.
fn format_limit(quota: &QuotaStatus) -> String {
    let budget = if quota.budget < quota.requests { format!(", {} of them ours", quota.budget) } else { String::new() };
    format!("{} / {}{budget}", quota.requests, format_seconds(quota.per_seconds))
}

/// A duration for people: "1 min", "1 h".
fn format_seconds(seconds: u64) -> String {
    match seconds {
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
