//! The headline of what koregate saves, and the chart of calls with and without it.

use std::fmt::Write as _;

use super::format::{hour_minute, number, percent};
use super::model::SpanView;
use super::table::{Table, TableColumn};
use crate::admin::views::history::{CallTotals, Sample};
use crate::admin::views::status::Status;

/// Height of the chart, in units of its view box.
const HEIGHT: u64 = 100;
/// Width of a bar, and of the space for it.
const BAR_WIDTH: u64 = 8;
const BAR_SPACE: u64 = 10;
const COLUMNS: &[(&str, TableColumn)] = &[
    ("From", TableColumn::Header),
    ("Requests", TableColumn::Number),
    ("Calls made", TableColumn::Number),
    ("Calls without koregate", TableColumn::Number),
];

pub(super) fn render(status: &Status, view: &SpanView<'_>) -> String {
    let calls = &status.calls;
    let alone = calls.made + calls.saved;
    let headline = match percent(calls.saved, alone) {
        None => "<p class=\"big\">–</p><p>No request has been answered since the start.</p>".to_owned(),
        Some(percent) => format!(
            "<p class=\"big\">{percent} % of calls saved</p><p>{} calls to Kore instead of {}, for {} requests since the start.</p>",
            number(calls.made),
            number(alone),
            number(calls.requests)
        ),
    };
    headline + &chart(view)
}

fn chart(view: &SpanView<'_>) -> String {
    let SpanView { spans, name, bar, .. } = view;
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return String::new() };
    let most = spans.iter().map(|span| span.counts.alone().max(span.counts.made)).max().unwrap_or_default();
    let sum = sum(spans);
    let mut bars = String::new();
    for (place, span) in spans.iter().enumerate() {
        let x = place as u64 * BAR_SPACE;
        let mut draw = |class: &str, calls: u64| {
            // Something is seen of whatever was called.
            let height = (calls * HEIGHT).div_ceil(most.max(1));
            if height > 0 {
                let y = HEIGHT - height;
                let _ = write!(
                    bars,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BAR_WIDTH}\" height=\"{height}\"/>"
                );
            }
        };
        draw("bar-alone", span.counts.alone());
        draw("bar-made", span.counts.made);
    }
    let width = spans.len() as u64 * BAR_SPACE;
    let label = format!(
        "Bar chart: in the last {name} {} calls to Kore were made, and without koregate there would have been {}. The \
         numbers are in the table below.",
        number(sum.made),
        number(sum.alone())
    );
    format!(
        "<figure class=\"chart\"><figcaption><h3>Calls to Kore in the last {name}, each bar {bar}</h3>\
         <ul class=\"key\"><li><svg viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect class=\"bar-made\" width=\"1\" height=\"1\"/></svg>\
         made: {}</li><li><svg viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect class=\"bar-alone\" width=\"1\" height=\"1\"/></svg>\
         without koregate: {}</li></ul></figcaption>\
         <div class=\"axis\" aria-hidden=\"true\"><span>highest bar: {} calls</span></div>\
         <svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\">{bars}</svg>\
         <div class=\"axis\" aria-hidden=\"true\"><span>{}</span><span>now, {} UTC</span></div></figure>{}",
        number(sum.made),
        number(sum.alone()),
        number(most),
        hour_minute(first.start),
        hour_minute(last.start),
        table(view)
    )
}

/// The same as a table, of the times in which anything was asked for.
fn table(view: &SpanView<'_>) -> String {
    let mut table = Table::new("savings-table", "Calls to Kore over time (UTC), the latest first", COLUMNS);
    let mut is_empty = true;
    for spans in view.spans.chunks(view.spans_per_row).rev() {
        let sum = sum(spans);
        if let Some(first) = spans.first().filter(|_| sum != CallTotals::default()) {
            let [requests, made, alone] = [sum.requests, sum.made, sum.alone()].map(number);
            table.row([hour_minute(first.start), requests, made, alone]);
            is_empty = false;
        }
    }
    if is_empty {
        return String::new();
    }
    format!(
        "<details id=\"savings-details\"><summary id=\"savings-summary\">The chart as a table</summary>{}</details>",
        table.finish()
    )
}

fn sum(spans: &[Sample]) -> CallTotals {
    spans.iter().fold(CallTotals::default(), |sum, span| sum.plus(span.counts))
}
