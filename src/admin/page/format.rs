//! Numbers, times and durations for people. Pure.

use std::time::Duration;

use crate::window::Timestamp;

/// A number with its thousands parted by commas.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `part` of `whole` in percent, rounded down; `None` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> Option<u64> {
    let percent = u128::from(part) * 100 / u128::from(whole).max(1);
    (whole > 0).then(|| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// A duration as "1 min" or "1 h 5 min": its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(length, _)| seconds >= *length) else { return "0 s".to_owned() };
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units.iter().skip(first).take(2) {
        if left >= *length {
            parts.push(format!("{} {unit}", left / length));
        }
        left %= length;
    }
    parts.join(" ")
}

/// The name of a limit: "60 a minute".
pub(super) fn limit(requests: u32, per_seconds: u64) -> String {
    let per = match per_seconds {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        3600 => "an hour".to_owned(),
        86_400 => "a day".to_owned(),
        _ => format!("in {}", duration(Duration::from_secs(per_seconds))),
    };
    format!("{} {per}", number(requests.into()))
}

/// A size in MiB or GiB.
pub(super) fn size(bytes: u64) -> String {
    let mib = bytes >> 20;
    if mib >= 10_240 { format!("{} GiB", mib >> 10) } else { format!("{} MiB", number(mib)) }
}

/// A time of day with its date: "2026-02-23 10:00:05 UTC".
pub(super) fn clock_time(at: Timestamp) -> String {
    at.to_timestamp().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The time of day alone: "10:00".
pub(super) fn hour_minute(at: Timestamp) -> String {
    at.to_timestamp().strftime("%H:%M").to_string()
}

/// A time from the JSON API as a `<time>` element: the time of day alone if it is of the day of `now`.
pub(super) fn time_element(at: &str, now: Timestamp) -> String {
    let Ok(parsed) = at.parse::<jiff::Timestamp>() else { return String::new() };
    let now = now.to_timestamp();
    let is_today = parsed.strftime("%F").to_string() == now.strftime("%F").to_string();
    let text = parsed.strftime(if is_today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" });
    format!("<time datetime=\"{}\">{text}</time>", parsed.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([percent(0, 0), percent(1, 3), percent(3, 3)], [None, Some(33), Some(100)]);
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([0, 59, 60, 61, 3_605, 90_000].map(text), ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h"]);
        assert_eq!(
            [limit(60, 60), limit(1800, 3600), limit(9, 90)],
            ["60 a minute", "1,800 an hour", "9 in 1 min 30 s"]
        );
        assert_eq!([size(256 << 20), size(10 << 30)], ["256 MiB", "10 GiB"]);
    }

    #[test]
    fn time_of_another_day_has_its_date() {
        let now = Timestamp::from_seconds(86_400 + 60);
        let element = |at: &str| time_element(at, now);
        assert_eq!(element("1970-01-02T00:00:05Z"), "<time datetime=\"1970-01-02T00:00:05Z\">00:00:05</time>");
        assert!(element("1970-01-01T23:00:00Z").contains(">1970-01-01 23:00:00<"));
        assert_eq!(element("<script>"), "");
    }
}
