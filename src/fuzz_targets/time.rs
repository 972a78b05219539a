//! Texts of times, durations and sizes.

use std::time::Duration;

use bytes::Bytes;

use crate::paging::Item;
use crate::units;
use crate::window::{Bound, Interval, Timestamp, UpperBound};

/// Texts of times, durations and sizes are read as a naive reader reads them, and printed values read back.
///
/// # Panics
/// If a property does not hold.
pub fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_bound(text);
    check_units(text);
    if let Some(at) = timestamp_of(text) {
        let item = Bytes::from(format!("{{\"t\":\"{text}\"}}"));
        assert_eq!(Item::read(&item, "t").0, Some(at));
    }
}

fn check_bound(text: &str) {
    let naive = naive_bound(text);
    let bound = Bound::parse(text);
    assert_eq!(bound, naive);
    let Some(bound) = bound else { return };
    assert_eq!(Bound::parse(&bound.to_string()), Some(bound));
    for upper in [UpperBound::Inclusive, UpperBound::Exclusive] {
        let interval = upper.enclosed(Bound::Day(bound.start().floor_to(Duration::from_hours(24))), bound);
        let query = upper.query_for(interval);
        let asked = upper.enclosed(Bound::Second(query.from), query.to);
        assert!(asked.start <= interval.start && interval.end <= asked.end);
        let at_end = Interval::new(interval.end.previous_tick(), interval.end);
        assert!(interval.is_empty() || query.may_return(at_end.start));
    }
}

/// The bound that one of the documented spellings names.
fn naive_bound(text: &str) -> Option<Bound> {
    let day = civil_day(text.get(..10)?).filter(|_| ("1678".."2262").contains(&&text[..4]))?;
    if text.len() == 10 {
        return Some(Bound::Day(Timestamp::from_seconds(day * 86_400)));
    }
    let time = text[10..].strip_prefix(['-', ' ', 'T', 't'])?;
    let (time, end) = time.split_at_checked(8)?;
    let zone = end.trim_start_matches(|char: char| char == '.' || char.is_ascii_digit());
    // Without a sign, digits and points belong to the fraction.
    let fraction = &end[..end.len() - zone.len()];
    let seconds = day * 86_400 + second_of_day(time)? - naive_offset(zone)?;
    let nanos = naive_fraction(fraction)?;
    let at = Timestamp::from_seconds(seconds) + Duration::from_nanos(nanos);
    let is_in_range = ("1678".."2262").contains(&&at.to_string()[..4]);
    is_in_range.then_some(if nanos == 0 { Bound::Second(at) } else { Bound::Fraction(at) })
}

/// Nanoseconds of a fraction such as `.25`, of which no digit may be lost.
fn naive_fraction(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix('.').filter(|digits| !digits.is_empty() && !digits.contains('.'))?;
    let significant = digits.trim_end_matches('0');
    let is_exact = significant.len() <= 9;
    is_exact.then(|| format!("{significant:0<9}").parse().ok()).flatten()
}

/// Seconds by which an offset such as `+02:00` is ahead of UTC.
fn naive_offset(text: &str) -> Option<i64> {
    if ["", "Z", "z"].contains(&text) {
        return Some(0);
    }
    let sign = if text.starts_with(['+', ' ']) { 1 } else { -1 };
    let distance = text.strip_prefix(['+', ' ', '-'])?;
    let distance = match distance.len() {
        2 => format!("{distance}:00:00"),
        4 if distance.is_ascii() => format!("{}:{}:00", &distance[..2], &distance[2..]),
        _ => format!("{distance}:00"),
    };
    Some(sign * second_of_day(&distance)?)
}

fn check_units(text: &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: Option<u128> = text[..end].parse().ok();
    let factor = |units: &[(&str, u128)]| units.iter().find(|unit| unit.0 == &text[end..]).map(|unit| unit.1);
    let millis = factor(&[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]);
    let millis = number.zip(millis).and_then(|(number, factor)| number.checked_mul(factor));
    let millis = millis.and_then(|millis| u64::try_from(millis).ok()).filter(|millis| *millis <= 36_500 * 86_400_000);
    let duration = units::parse_duration(text);
    assert_eq!(duration, millis.map(Duration::from_millis));
    let bytes = factor(&[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)]);
    let bytes = number.zip(bytes).and_then(|(number, factor)| number.checked_mul(factor));
    let size = units::parse_size(text);
    assert_eq!(size, bytes.and_then(|bytes| u64::try_from(bytes).ok()));
    if let Some(duration) = duration {
        assert_eq!(units::parse_duration(&units::print_duration(duration)), Some(duration));
        assert!(!units::print_duration_roughly(duration).is_empty());
    }
    if let Some(size) = size {
        assert_eq!(units::parse_size(&units::print_size(size)), Some(size));
    }
}

/// The time that the most common spelling of a timestamp in an item names: `YYYY-MM-DDTHH:mm:SS`, with or without up to
/// nine decimals and `Z`. `None` for all other texts, and for the last year that jiff has only in part.
pub(crate) fn timestamp_of(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_fraction = (1..=9).contains(&decimals.len()) && decimals.bytes().all(|digit| digit.is_ascii_digit());
    let (day, time) = seconds.split_once('T').filter(|_| is_fraction && !seconds.starts_with("9999"))?;
    let seconds = civil_day(day)? * 86_400 + second_of_day(time)?;
    let fraction: i64 = format!("{decimals:0<9}").parse().ok()?;
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(fraction);
    let saturated = nanos.clamp(i64::MIN.into(), i64::MAX.into());
    Some(Timestamp::from_nanos(i64::try_from(saturated).unwrap_or_default()))
}

/// Days from 1970 to a date such as `2026-02-25`.
fn civil_day(text: &str) -> Option<i64> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, 28 + i64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
    let is_valid = (1..=lengths[month - 1]).contains(&day);
    let leap_days = |before: i64| (before + 3) / 4 - (before + 99) / 100 + (before + 399) / 400;
    let years = year * 365 + leap_days(year) - (1970 * 365 + leap_days(1970));
    is_valid.then(|| years + lengths[..month - 1].iter().sum::<i64>() + day - 1)
}

/// Seconds from midnight to a time such as `23:59:59`.
fn second_of_day(text: &str) -> Option<i64> {
    let [hour, minute, second] = numbers(text, ':', [2, 2, 2])?;
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Three numbers of so many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let is_number = |(part, len): (&&str, usize)| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
    let are_numbers = parts.len() == 3 && parts.iter().zip(digits).all(is_number);
    are_numbers.then(|| [0, 1, 2].map(|part: usize| parts[part].parse().unwrap_or_default()))
}
