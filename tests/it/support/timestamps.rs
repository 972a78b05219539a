//! The clock, and timestamps in the notation that a test reads best. The only file that names the library's time types.

use std::time::Duration;

use jiff::tz::TimeZone;
pub(crate) use koregate::clock::Clock;
pub(crate) use koregate::window::{Bound as QueryBound, Interval, IntervalSet, Timestamp, UpperBound};

/// "Now" unless a test sets it. Not a whole second, so that a window cut at now is cut inside of a second.
pub(crate) const NOW: &str = "2026-02-25T12:34:56.789Z";

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// Parses RFC 3339, or a date alone (its midnight, UTC).
pub(crate) fn at(text: &str) -> Timestamp {
    let midnight = if text.len() == 10 { "T00:00:00Z" } else { "" };
    format!("{text}{midnight}").parse::<jiff::Timestamp>().unwrap().into()
}

/// Formats a whole second for a query, percent-encoded; `format` is jiff's, as in `%Y-%m-%d-%H:%M:%S`.
pub(crate) fn format_query_time(timestamp: Timestamp, format: &str) -> String {
    let civil = TimeZone::UTC.to_datetime(timestamp.to_timestamp());
    form_urlencoded::byte_serialize(civil.strftime(format).to_string().as_bytes()).collect()
}
