//! Durations and sizes as people write them: `"30s"`, `"256MiB"`.

use std::time::Duration;

/// Units of time, longest first, in milliseconds.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes.
const SIZE: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// No setting needs more than a century, and timers and moments can hold a century.
const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;

/// `"250ms"`, `"30s"`, `"5m"`, `"24h"`, `"400d"`: a whole number and one unit. `None` for anything else, and for more
/// than 36,500 days.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, factor) = TIME.iter().find(|(name, _)| *name == unit)?;
    let millis = number.checked_mul(*factor).filter(|millis| *millis <= LONGEST_MILLIS)?;
    Some(Duration::from_millis(millis))
}

/// The shortest spelling that [`parse_duration`] reads back; milliseconds are the finest that it tells.
pub(super) fn print_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match TIME.iter().find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => "0s".to_owned(),
    }
}

/// `"256MiB"`, `"1GiB"`, `"64KiB"`, or bytes without a unit. `None` for anything else.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZE.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The shortest spelling that [`parse_size`] reads back.
pub(super) fn print_size(bytes: u64) -> String {
    match SIZE.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// The digits in front, and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("400d", 400 * 86_400_000),
            ("36500d", LONGEST_MILLIS),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let wrong = ["", "s", "30", "1 hour", "1h30m", "-1s", "+1s", "1.5h", "1H", " 1s", "1s ", "1w", "36501d"];
        for text in wrong.into_iter().chain(["99999999999999999999d", "18446744073709551615d"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
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
    fn prints_the_largest_unit() {
        for text in ["0s", "1ms", "250ms", "90s", "5m", "90m", "36h", "1d", "400d"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(print_duration(Duration::from_hours(1)), "1h");
        for text in ["0", "1023", "1KiB", "1000000", "256MiB", "3GiB"] {
            assert_eq!(print_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(print_size(1 << 20), "1MiB");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(millis in 0..=LONGEST_MILLIS, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&print_size(bytes)), Some(bytes));
        }
    }
}
