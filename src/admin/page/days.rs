//! The calendar of cached days: for each stream a square for each day, in columns of weeks, and the same as a table.

use std::fmt::Write as _;

use super::format::{number, percent};
use super::summary::cached;
use super::table::{Table, TableColumn};
use crate::admin::views::calendar::{CalendarDay, DayParts};
use crate::admin::views::coverage::{CoverageStatus, RedisLookup, StreamStatus};
use crate::problem::escape_html;

const COLUMNS: &[(&str, TableColumn)] = &[("Days", TableColumn::Header), ("Cached", TableColumn::Text)];
/// Width of a day's square, and of the space for it.
const SQUARE: u64 = 14;
const SPACE: u64 = 16;
/// Space left of the squares, for the names of weekdays, and above them, for the names of months.
const LEFT: u64 = 28;
const TOP: u64 = 14;

/// The seconds of a tier in a day.
type SecondsOf = fn(DayParts) -> u64;

/// The tiers in the order in which they fill a square from below: class, name, and seconds of a day.
const TIERS: [(&str, &str, SecondsOf); 4] = [
    ("memory", "in memory", |parts| parts.memory),
    ("disk", "on disk", |parts| parts.disk),
    ("redis", "in Redis", |parts| parts.redis),
    ("open", "open", |parts| parts.open),
];

pub(super) fn render(coverage: &CoverageStatus) -> String {
    if coverage.streams.is_empty() {
        return "<p>Nothing is cached yet. A day is cached when a window that covers it has been requested.</p>"
            .to_owned();
    }
    let mut html = cached(coverage) + &key();
    if coverage.is_cut {
        let _ = write!(
            html,
            "<p class=\"quiet\">The first {} of {} streams. Others: <code>api/v1/coverage?stream=NAME</code>.</p>",
            coverage.streams.len(),
            number(coverage.streams_in_cache as u64)
        );
    }
    match &coverage.redis {
        RedisLookup::None | RedisLookup::Whole => {}
        RedisLookup::Cut { .. } => {
            html.push_str(
                "<p class=\"quiet\">Redis was asked for the latest days only; earlier ones may be there too.</p>",
            );
        }
        RedisLookup::Failed { why } => {
            let _ = write!(html, "<p class=\"warn\">Redis does not say what it has: {}</p>", escape_html(why));
        }
    }
    html.push_str("<div class=\"streams\">");
    for (place, stream) in coverage.streams.iter().enumerate() {
        render_stream(&mut html, stream, place);
    }
    html.push_str("</div>");
    html
}

fn key() -> String {
    let mut html = "<ul class=\"key\">".to_owned();
    let explained = [
        ("memory", "in memory"),
        ("disk", "on disk only"),
        ("redis", "in Redis only"),
        ("open", "open: cached, but not settled yet"),
        ("none", "missing: will be fetched"),
    ];
    for (class, text) in explained {
        let _ = write!(
            html,
            "<li><svg viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"1\" height=\"1\"/></svg>{text}</li>"
        );
    }
    html.push_str("</ul>");
    html
}

fn render_stream(html: &mut String, stream: &StreamStatus, place: usize) {
    let days = &stream.days;
    let count = |is: fn(DayParts) -> bool| days.iter().filter(|day| is(day.parts)).count();
    let whole = count(|parts| parts.missing == 0 && parts.total() > 0);
    let partial = count(|parts| parts.missing > 0 && parts.cached() > 0);
    let summary = format!("{whole} of {} days whole, {partial} in part", days.len());
    let filtered = match stream.filtered_series {
        0 => String::new(),
        1 => "; answers for 1 filter besides".to_owned(),
        count => format!("; answers for {} filters besides", number(count as u64)),
    };
    let name = escape_html(&stream.stream);
    let _ = write!(
        html,
        "<figure><figcaption><h3>{name}</h3><p class=\"quiet\">account {}<br>{summary}{filtered}</p></figcaption>",
        escape_html(&stream.account_id)
    );
    let label = format!("Calendar of stream {name}: {summary}. The days are in the table below.");
    squares(html, days, &label);
    let caption = format!("Cached days of {name}, the latest first");
    let mut table = Table::new(&format!("days-table-{place}"), &caption, COLUMNS);
    for row in rows(days) {
        table.row(row);
    }
    let _ = write!(
        html,
        "<details id=\"days-{place}\"><summary id=\"days-summary-{place}\">Days as a table\
         <span class=\"hidden\"> of {name}</span></summary>{}</details></figure>",
        table.finish()
    );
}

fn squares(html: &mut String, days: &[CalendarDay], label: &str) {
    let first_weekday = days.first().map_or(0, |day| weekday(&day.date));
    let weeks = (days.len() as u64 + first_weekday).div_ceil(7);
    let (width, height) = (LEFT + weeks * SPACE, TOP + 7 * SPACE);
    let _ = write!(
        html,
        "<svg class=\"days\" role=\"img\" aria-label=\"{label}\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">"
    );
    for (row, name) in [(0, "Mon"), (2, "Wed"), (4, "Fri")] {
        let _ = write!(html, "<text x=\"0\" y=\"{}\">{name}</text>", TOP + row * SPACE + 11);
    }
    let mut empty = String::new();
    let mut filled = String::new();
    for (place, day) in days.iter().enumerate() {
        let place = place as u64 + first_weekday;
        let (x, y) = (LEFT + place / 7 * SPACE, TOP + place % 7 * SPACE);
        if let Some(month) = day.date.get(5..).and_then(|date| date.strip_suffix("-01")) {
            let _ = write!(filled, "<text x=\"{x}\" y=\"10\">{}</text>", month_name(month));
        }
        let _ = write!(empty, "M{x} {y}h{SQUARE}v{SQUARE}h-{SQUARE}z");
        square(&mut filled, day, x, y);
    }
    let _ = write!(html, "<path class=\"none\" d=\"{empty}\"/>{filled}</svg>");
}

/// The cached part of a day: its tiers above each other.
fn square(html: &mut String, day: &CalendarDay, x: u64, y: u64) {
    let CalendarDay { date, parts } = day;
    if parts.cached() == 0 {
        return;
    }
    let _ = write!(html, "<g><title>{date}: {}</title>", describe(*parts));
    let mut bottom = 0;
    let mut below = 0;
    for (class, _, seconds) in TIERS {
        below += seconds(*parts);
        let top = below * SQUARE / parts.total().max(1);
        // Something is seen of each cached part, where there is space.
        let top = if seconds(*parts) > 0 { top.max(bottom + 1).min(SQUARE) } else { top.max(bottom) };
        if top > bottom {
            let _ = write!(
                html,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"{SQUARE}\" height=\"{}\"/>",
                y + SQUARE - top,
                top - bottom
            );
        }
        bottom = top;
    }
    html.push_str("</g>");
}

/// The shares of the tiers: "80 % in memory, 20 % missing".
fn describe(parts: DayParts) -> String {
    let share = |seconds: u64| percent(seconds, parts.total()).unwrap_or_default();
    if parts.total() == 0 {
        return "nothing has passed of it".to_owned();
    }
    let tiers = TIERS.into_iter().map(|(_, name, seconds)| (name, seconds(parts)));
    let all = tiers.chain([("missing", parts.missing)]);
    let texts = all.filter(|(_, seconds)| *seconds > 0).map(|(name, seconds)| match share(seconds) {
        0 => format!("under 1 % {name}"),
        share => format!("{share} % {name}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Days in a row with the same shares, the latest first: the days, and the shares.
fn rows(days: &[CalendarDay]) -> Vec<[String; 2]> {
    let mut groups: Vec<(&str, &str, String)> = Vec::new();
    for day in days.iter().rev() {
        let text = describe(day.parts);
        match groups.last_mut() {
            Some((first, _, known)) if *known == text => *first = &day.date,
            _ => groups.push((&day.date, &day.date, text)),
        }
    }
    let row = |(first, last, text): (&str, &str, String)| {
        [if first == last { first.to_owned() } else { format!("{first} to {last}") }, text]
    };
    groups.into_iter().map(row).collect()
}

/// The day of the week, from Monday: 0 to 6.
fn weekday(date: &str) -> u64 {
    let date = date.parse::<jiff::civil::Date>().ok();
    date.map_or(0, |date| date.weekday().to_monday_zero_offset().unsigned_abs().into())
}

fn month_name(month: &str) -> &'static str {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    month.parse::<usize>().ok().and_then(|month| NAMES.get(month.checked_sub(1)?)).unwrap_or(&"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(date: &str, memory: u64, open: u64, missing: u64) -> CalendarDay {
        CalendarDay { date: date.to_owned(), parts: DayParts { memory, open, missing, ..DayParts::default() } }
    }

    #[test]
    fn days_in_a_row_with_equal_shares_are_one_row() {
        let days = [
            day("2026-02-01", 0, 0, 9),
            day("2026-02-02", 9, 0, 0),
            day("2026-02-03", 9, 0, 0),
            day("2026-02-04", 1, 1, 2),
        ];
        assert_eq!(
            rows(&days),
            [
                ["2026-02-04", "25 % in memory, 25 % open, 50 % missing"],
                ["2026-02-02 to 2026-02-03", "100 % in memory"],
                ["2026-02-01", "100 % missing"],
            ]
        );
    }

    #[test]
    fn square_is_filled_from_below_by_the_shares_of_its_tiers() {
        let filled = |day: &CalendarDay| {
            let mut html = String::new();
            square(&mut html, day, 0, 0);
            html
        };
        assert_eq!(filled(&day("2026-02-01", 0, 0, 9)), "");
        let half = filled(&day("2026-02-01", 6, 0, 6));
        assert!(half.contains("class=\"memory\" x=\"0\" y=\"7\" width=\"14\" height=\"7\""), "{half}");
        let tiny = filled(&day("2026-02-01", 1, 1, 86_398));
        assert!(tiny.contains("memory\" x=\"0\" y=\"13\"") && tiny.contains("open\" x=\"0\" y=\"12\""), "{tiny}");
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!((weekday("2026-02-23"), weekday("2026-03-01")), (0, 6));
        assert_eq!((month_name("01"), month_name("12"), month_name("13")), ("Jan", "Dec", ""));
    }
}
