//! The headline of what koregate saves, and the chart of calls with and without it.

use std::fmt::Write as _;

use super::format::{hour_minute, number, percent};
use crate::admin::history::{Sample, Totals};
use crate::admin::status::Status;

/// Height of the chart, in units of its view box.
const HEIGHT: u64 = 100;
/// Width of a bar, and of the space for it.
const BAR_WIDTH: u64 = 8;
const BAR_SPACE: u64 = 10;
/// Number of spans of a row in the table.
const SPANS_PER_ROW: usize = 6;

pub(super) fn render(status: &Status, spans: &[Sample]) -> String {
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
    headline + &chart(spans)
}

fn chart(spans: &[Sample]) -> String {
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return String::new() };
    let most = spans.iter().map(|span| span.counts.alone().max(span.counts.made)).max().unwrap_or_default();
    let sum = sum(spans);
    let mut bars = String::new();
    for (place, span) in spans.iter().enumerate() {
        let x = place as u64 * BAR_SPACE;
        let mut bar = |class: &str, calls: u64| {
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
        bar("bar-alone", span.counts.alone());
        bar("bar-made", span.counts.made);
    }
    let width = spans.len() as u64 * BAR_SPACE;
    let label = format!(
        "Bar chart: in the last 6 hours {} calls to Kore were made, and without koregate there would have been {}. The \
         numbers are in the table below.",
        number(sum.made),
        number(sum.alone())
    );
    format!(
        "<figure class=\"chart\"><figcaption><h3>Calls to Kore in the last 6 hours, each bar 5 minutes</h3>\
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
        table(spans)
    )
}

/// The same as a table, by half hours in which anything was asked for.
fn table(spans: &[Sample]) -> String {
    let mut rows = String::new();
    for spans in spans.chunks(SPANS_PER_ROW).rev() {
        let sum = sum(spans);
        if let Some(first) = spans.first().filter(|_| sum != Totals::default()) {
            let _ = write!(
                rows,
                "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{}</td></tr>",
                hour_minute(first.start),
                number(sum.requests),
                number(sum.made),
                number(sum.alone())
            );
        }
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"4\">Nothing yet.</td></tr>");
    }
    format!(
        "<details id=\"savings-details\"><summary id=\"savings-summary\">The same as a table</summary>\
         <div class=\"scroll\" id=\"savings-table\" tabindex=\"0\" role=\"region\" aria-label=\"Calls by half hours\">\
         <table><caption>Calls to Kore by half hours (UTC), the latest first</caption><thead><tr>\
         <th scope=\"col\">From</th><th scope=\"col\" class=\"number\">Requests</th>\
         <th scope=\"col\" class=\"number\">Calls made</th><th scope=\"col\" class=\"number\">Calls without koregate</th>\
         </tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
}

fn sum(spans: &[Sample]) -> Totals {
    spans.iter().fold(Totals::default(), |sum, span| sum.plus(span.counts))
}
