//! Durations and sizes as people write them: `"30s"`, `"256MiB"`; and seconds as answers give them.

use std::time::Duration;

/// Units of time, longest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Longest duration that is read, in milliseconds: a century, which timers and timestamps can represent.
const MAX_DURATION_MILLIS: u64 = 36_500 * 86_400_000;

/// Reads `"250ms"`, `"30s"`, `"5m"`, `"24h"`, `"400d"`: a whole number and one unit. `None` for anything else, and for
/// more than 36,500 days.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    let millis = number.checked_mul(*factor).filter(|millis| *millis <= MAX_DURATION_MILLIS)?;
    Some(Duration::from_millis(millis))
}

/// The shortest text that [`parse_duration`] reads as `duration`, which is cut to whole milliseconds.
pub(crate) fn print_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match TIME_UNITS.iter().find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => "0s".to_owned(),
    }
}

/// Whole seconds, rounded up, and at least 1: a client that waits for so long is not early.
pub(crate) fn ceil_seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1)
}

/// `1d 2h`, `5m 3s`: the two largest units of a duration, in whole seconds; a smaller one that is zero is left out.
pub(crate) fn print_duration_roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units.iter().skip(first).take(2).filter(|(count, unit)| *count > 0 || *unit == units[first].1);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// Reads `"256MiB"`, `"1GiB"`, `"64KiB"`, or bytes without a unit. `None` for anything else.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The shortest text that [`parse_size`] reads as `bytes`.
pub(crate) fn print_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// The number of the leading digits, and the text behind them.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Seconds of a duration in an answer, rounded down to milliseconds.
pub(crate) fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_one_number_and_one_unit_are_read() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("400d", 400 * 86_400_000),
            ("36500d", MAX_DURATION_MILLIS),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let wrong = ["", "s", "30", "1 hour", "1h30m", "-1s", "+1s", "1.5h", "1H", " 1s", "1s ", "1w", "36501d"];
        for text in wrong.into_iter().chain(["99999999999999999999d", "18446744073709551615d"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_of_one_number_and_one_unit_are_read() {
        for (text, bytes) in
            [("0", 0), ("1000000", 1_000_000), ("64KiB", 65_536), ("256MiB", 268_435_456), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1 MiB", "1mib", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_printed_in_the_largest_unit_that_fits() {
        for text in ["0s", "1ms", "250ms", "90s", "5m", "90m", "36h", "1d", "400d"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(print_duration(Duration::from_hours(1)), "1h");
        for text in ["0", "1023", "1KiB", "1000000", "256MiB", "3GiB"] {
            assert_eq!(print_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(print_size(1 << 20), "1MiB");
    }

    #[test]
    fn rough_durations_have_at_most_two_units() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3605, "1h"), (90_000, "1d 1h")]
        {
            assert_eq!(print_duration_roughly(Duration::from_secs(seconds)), expected);
        }
    }

    proptest! {
        #[test]
        fn printed_values_read_back(millis in 0..=MAX_DURATION_MILLIS, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&print_size(bytes)), Some(bytes));
        }
    }
}
