//! Moments, written as a test reads best.

use std::time::Duration;

use jiff::tz::TimeZone;
use koregate::window::Timestamp;

/// "Now" where a test does not say otherwise: no whole second, so that what is cut at now is cut inside of one.
pub(crate) const NOW: &str = "2026-02-25T12:34:56.789Z";

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A moment from RFC 3339, or from a date alone (its midnight, UTC).
pub(crate) fn at(spelled: &str) -> Timestamp {
    let midnight = if spelled.len() == 10 { "T00:00:00Z" } else { "" };
    format!("{spelled}{midnight}").parse::<jiff::Timestamp>().unwrap().into()
}

/// A whole second in one of Kore's spellings, escaped for a query: `format` is jiff's, as in `%Y-%m-%d-%H:%M:%S`.
pub(crate) fn spelled(moment: Timestamp, format: &str) -> String {
    let civil = TimeZone::UTC.to_datetime(moment.to_timestamp());
    form_urlencoded::byte_serialize(civil.strftime(format).to_string().as_bytes()).collect()
}
