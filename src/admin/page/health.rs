//! Whether all is well, in words, and the parts of the gateway.

use std::fmt::Write as _;
use std::time::Duration;

use super::format::{duration, limit, number, percent, size, time_element};
use super::table::{Table, TableColumn};
use crate::admin::views::configuration::{ConfigurationStatus, FailedReload};
use crate::admin::views::status::{AccountStatus, CacheStatus, RedisStatus, RoleStatus, Status, UpstreamStatus};
use crate::problem::escape_html;
use crate::window::Timestamp;

const COLUMNS: &[(&str, TableColumn)] =
    &[("Part", TableColumn::Header), ("State", TableColumn::Whole), ("Details", TableColumn::Text)];
/// Failed calls in a row from which on the page says that Kore fails.
const FAILURES_TO_WARN: u64 = 3;

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything works.
    Healthy,
    /// koregate serves, and this many things do not work.
    Degraded(usize),
    /// The process is starting.
    Starting,
    /// The process is ending.
    Draining,
}

/// The accounts whose calls fail, which are no problem of the status.
fn failing_accounts(status: &Status) -> impl Iterator<Item = (&AccountStatus, &UpstreamStatus)> {
    let accounts = status.accounts.iter().map(|account| (account, &account.upstream));
    accounts.filter(|(_, upstream)| upstream.failures_in_a_row >= FAILURES_TO_WARN)
}

pub(super) fn verdict(status: &Status) -> Verdict {
    match status.status {
        "starting" => Verdict::Starting,
        "draining" => Verdict::Draining,
        _ => match status.problems.len() + failing_accounts(status).count() {
            0 => Verdict::Healthy,
            count => Verdict::Degraded(count),
        },
    }
}

impl Verdict {
    /// A word for the title of the page.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded(_) => "degraded",
            Self::Starting => "starting",
            Self::Draining => "draining",
        }
    }

    pub(super) fn html(self) -> String {
        let (class, text) = match self {
            Self::Healthy => ("good", "Healthy".to_owned()),
            Self::Degraded(1) => ("bad", "Degraded: 1 problem".to_owned()),
            Self::Degraded(count) => ("bad", format!("Degraded: {count} problems")),
            Self::Starting => ("warn", "Starting".to_owned()),
            Self::Draining => ("warn", "Draining: it is about to end".to_owned()),
        };
        format!("<span class=\"pill {class}\">{text}</span>")
    }
}

/// The problems, and a table of the parts.
pub(super) fn render(status: &Status, now: Timestamp) -> String {
    let mut html = String::new();
    let problems: Vec<String> = status
        .problems
        .iter()
        .map(|problem| escape_html(problem))
        .chain(failing_accounts(status).map(|(account, upstream)| {
            let (id, count) = (escape_html(&account.account_id), number(upstream.failures_in_a_row));
            format!(
                "account {id}: the last {count} calls to Kore have failed; settled data that is cached is still served"
            )
        }))
        .collect();
    if problems.is_empty() {
        html.push_str("<p>koregate serves, and nothing is known to be wrong.</p>");
    } else {
        html.push_str("<p>koregate serves, but:</p><ul class=\"problems\">");
        for problem in problems {
            let _ = write!(html, "<li>{problem}</li>");
        }
        html.push_str("</ul>");
    }
    let mut table = Table::new("parts-table", "Parts of the gateway", COLUMNS);
    for account in &status.accounts {
        upstream_row(&mut table, account, now);
    }
    for cordon in &status.cordons {
        let details =
            format!("{} is cordoned: no calls are made, what is cached is served", escape_html(&cordon.name()));
        row(&mut table, "Cordon", ("warn", "Stopped"), &details);
    }
    redis_row(&mut table, &status.redis, status.replica.as_deref());
    cache_rows(&mut table, &status.cache);
    configuration_row(&mut table, &status.configuration, now);
    html + &table.finish()
}

/// A row of the table; `name` and `details` are HTML.
fn row(table: &mut Table, name: &str, (class, state): (&str, &str), details: &str) {
    table.row([name.to_owned(), format!("<span class=\"{class}\">{state}</span>"), details.to_owned()]);
}

fn upstream_row(table: &mut Table, account: &AccountStatus, now: Timestamp) {
    let UpstreamStatus { last_page, last_failure, failures_in_a_row, closed_seconds } = &account.upstream;
    let state = match (closed_seconds, *failures_in_a_row, last_page) {
        (Some(_), ..) => ("bad", "Quota spent"),
        (None, FAILURES_TO_WARN.., _) => ("bad", "Failing"),
        (None, 1.., _) => ("warn", "Last call failed"),
        (None, 0, Some(_)) => ("good", "Answers"),
        (None, 0, None) => ("quiet", "Not called yet"),
    };
    let mut details = Vec::new();
    if let Some(seconds) = closed_seconds {
        let left = duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
        details.push(format!("Kore says that the quota is spent for another {left}"));
    }
    if let Some(at) = last_page {
        details.push(format!("last page {}", time_element(at, now)));
    }
    if let Some(failure) = last_failure {
        details.push(format!("last failure {}: {}", time_element(&failure.at, now), escape_html(&failure.why)));
    }
    details.push(role(&account.role));
    let name = format!("Kore, account {}", escape_html(&account.account_id));
    row(table, &name, state, &details.join("; "));
}

/// The part that this replica takes in the calls of an account.
fn role(role: &RoleStatus) -> String {
    match role {
        RoleStatus::Alone => "this process makes its own calls".to_owned(),
        RoleStatus::Leader => "leader: this replica makes the calls of all".to_owned(),
        RoleStatus::Follower { leader } => format!("follower: replica {} makes the calls", escape_html(leader)),
        RoleStatus::Partitioned { share } => {
            format!("the replicas cannot reach each other; this one uses {}", escape_html(share))
        }
        RoleStatus::Unknown => "it is not known yet which replica leads".to_owned(),
    }
}

fn configuration_row(table: &mut Table, configuration: &ConfigurationStatus, now: Timestamp) {
    let ConfigurationStatus { hash, since, needs_restart, failed_reload } = configuration;
    let mut details = vec![format!("{hash}, in force since {}", time_element(since, now))];
    if !needs_restart.is_empty() {
        details.push(format!("new values need a restart: {}", needs_restart.join(", ")));
    }
    if let Some(FailedReload { at, faults }) = failed_reload {
        let faults = escape_html(&faults.join("; "));
        details.push(format!("could not be reloaded {}: {faults}", time_element(at, now)));
    }
    let state = match (failed_reload, needs_restart.is_empty()) {
        (Some(_), _) => ("bad", "Reload failed"),
        (None, false) => ("warn", "Needs a restart"),
        (None, true) => ("good", "In force"),
    };
    row(table, "Configuration", state, &details.join("; "));
}

fn redis_row(table: &mut Table, redis: &RedisStatus, replica: Option<&str>) {
    let replica = replica.map(|replica| format!("this is replica {}", escape_html(replica))).unwrap_or_default();
    match redis {
        RedisStatus::None => row(table, "Redis", ("quiet", "Not used"), "no other replicas; cache.redis is not set"),
        RedisStatus::Up => row(table, "Redis", ("good", "Answers"), &replica),
        RedisStatus::Down { why, seconds } => {
            let since = duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
            row(table, "Redis", ("bad", "Away"), &format!("for {since}: {}; {replica}", escape_html(why)));
        }
    }
}

fn cache_rows(table: &mut Table, cache: &CacheStatus) {
    let used =
        |bytes: u64, of: u64| format!("{} of {} ({} %)", size(bytes), size(of), percent(bytes, of).unwrap_or_default());
    row(table, "Memory", ("good", "In use"), &used(cache.memory_bytes, cache.memory_limit_bytes));
    match &cache.disk {
        None => row(table, "Disk", ("quiet", "Not used"), "the cache ends with the process; cache.disk is not set"),
        Some(disk) => {
            let used = used(disk.bytes, disk.limit_bytes);
            match &disk.problem {
                None => row(table, "Disk", ("good", "Works"), &used),
                Some(problem) => row(table, "Disk", ("bad", "Fails"), &format!("{}; {used}", escape_html(problem))),
            }
        }
    }
}

/// Version and age of the process, and its limits in words.
pub(super) fn footer(status: &Status) -> String {
    let up = duration(Duration::from_secs(status.uptime_seconds));
    let limits = status.accounts.iter().flat_map(|account| &account.quota);
    let limits: Vec<String> = limits.map(|quota| limit(quota.requests, quota.per_seconds)).collect();
    format!("koregate {}, up for {up}. Limits: {}.", escape_html(status.version), limits.join(", "))
}
