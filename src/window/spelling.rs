//! The spellings of a time in `from` and `to`.
//!
//! Kore's pages show four: a date alone, and a date and a time with `-`, a space or `T` between them, in UTC. A time may
//! have a fraction of a second and an offset from UTC besides, as in RFC 3339, so every time that koregate prints can be
//! read again.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::Timestamp;

/// A `from` or `to`, parsed from its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `YYYY-MM-DD`: the day that begins at this midnight.
    Day(Timestamp),
    /// One of the spellings with a time: this whole second.
    Second(Timestamp),
    /// The same with a fraction that is not zero, which the upstream has no spelling for.
    Fraction(Timestamp),
}

/// Digits of a fraction that are read: nanoseconds. Any more must be zeros.
const FRACTION_DIGITS: usize = 9;

impl Bound {
    /// The problem text for another spelling.
    pub const MALFORMED: &'static str = "it is no time; write YYYY-MM-DD, YYYY-MM-DD-HH:mm:SS, YYYY-MM-DD HH:mm:SS or \
                                         YYYY-MM-DDTHH:mm:SS, in UTC; a time may end with a fraction of up to nine \
                                         digits, and with Z or an offset such as +02:00";

    /// Reads one of the spellings (already percent-decoded), UTC if it has no offset. The `+` of an offset may be a
    /// space, because that is what a `+` in a query string decodes to. `None` if the text is none of them, or no such
    /// time exists, or it lies outside 1678 to 2261.
    pub fn parse(text: &str) -> Option<Self> {
        let date = parse_date(text.get(..10)?)?;
        let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
            return Some(Self::Day(timestamp(date.to_datetime(Time::midnight()))?));
        };
        let rest = rest.strip_prefix(['-', ' ', 'T', 't'])?;
        let (time, rest) = (rest.get(..8)?, rest.get(8..)?);
        let [h1, h2, b':', m1, m2, b':', s1, s2] = time.as_bytes() else { return None };
        let (nanos, offset) = parse_fraction(rest)?;
        let time = Time::new(digits([*h1, *h2])?, digits([*m1, *m2])?, digits([*s1, *s2])?, nanos).ok()?;
        let at = parse_offset(offset)?.to_utc(timestamp(date.to_datetime(time))?);
        is_in_range(at).then_some(if nanos == 0 { Self::Second(at) } else { Self::Fraction(at) })
    }

    /// The first timestamp that the bound names.
    pub const fn start(self) -> Timestamp {
        match self {
            Self::Day(at) | Self::Second(at) | Self::Fraction(at) => at,
        }
    }
}

impl fmt::Display for Bound {
    /// The spelling of the endpoint's own template (`YYYY-MM-DD-HH:mm:SS`), which needs no escaping, or `YYYY-MM-DD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = TimeZone::UTC.to_datetime(self.start().to_timestamp());
        write!(f, "{:04}-{:02}-{:02}", civil.year(), civil.month(), civil.day())?;
        if matches!(self, Self::Day(_)) {
            return Ok(());
        }
        write!(f, "-{:02}:{:02}:{:02}", civil.hour(), civil.minute(), civil.second())?;
        match self {
            Self::Day(_) | Self::Second(_) => Ok(()),
            Self::Fraction(_) => {
                let fraction = format!("{:09}", civil.subsec_nanosecond());
                write!(f, ".{}", fraction.trim_end_matches('0'))
            }
        }
    }
}

/// The distance of local time from UTC.
enum Offset {
    /// Local time is ahead of UTC.
    East(Duration),
    /// Local time is behind UTC.
    West(Duration),
}

impl Offset {
    /// The time at which clocks with this offset show `local`.
    fn to_utc(&self, local: Timestamp) -> Timestamp {
        match self {
            Self::East(offset) => local - *offset,
            Self::West(offset) => local + *offset,
        }
    }
}

fn parse_date(text: &str) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let (century, year) = (digits([*y1, *y2])?, digits([*y3, *y4])?);
    let year = i16::from(century) * 100 + i16::from(year);
    Date::new(year, digits([*m1, *m2])?, digits([*d1, *d2])?).ok().filter(|_| YEARS.contains(&year))
}

/// The years of which every moment can be represented.
const YEARS: std::ops::RangeInclusive<i16> = 1678..=2261;

fn is_in_range(at: Timestamp) -> bool {
    YEARS.contains(&TimeZone::UTC.to_datetime(at.to_timestamp()).year())
}

/// The nanoseconds of a leading fraction, and the rest of the text.
fn parse_fraction(text: &str) -> Option<(i32, &str)> {
    let Some(text) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (fraction, rest) = text.split_at(end);
    let (kept, cut_off) = fraction.split_at(fraction.len().min(FRACTION_DIGITS));
    let is_exact = !kept.is_empty() && cut_off.bytes().all(|digit| digit == b'0');
    let nanos = format!("{kept:0<FRACTION_DIGITS$}").parse().ok()?;
    is_exact.then_some((nanos, rest))
}

/// Reads nothing, `Z`, or a sign with `hh:mm`, `hhmm` or `hh`.
fn parse_offset(text: &str) -> Option<Offset> {
    if matches!(text, "" | "Z" | "z") {
        return Some(Offset::East(Duration::ZERO));
    }
    let (sign, distance) = text.split_at_checked(1)?;
    let (hours, minutes) = match distance.as_bytes() {
        [h1, h2] => (digits([*h1, *h2])?, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (digits([*h1, *h2])?, digits([*m1, *m2])?),
        _ => return None,
    };
    let (hours, minutes) = (u64::try_from(hours).ok()?, u64::try_from(minutes).ok()?);
    let offset = Duration::from_mins(hours * 60 + minutes);
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        "+" | " " => Some(Offset::East(offset)),
        "-" => Some(Offset::West(offset)),
        _ => None,
    }
}

fn digits(pair: [u8; 2]) -> Option<i8> {
    let [tens, ones] = pair.map(|b| b.is_ascii_digit().then(|| (b - b'0').cast_signed()));
    Some(tens? * 10 + ones?)
}

fn timestamp(civil: DateTime) -> Option<Timestamp> {
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn spellings_of_one_second_name_the_same_time() {
        let noon = Bound::Second(at("2026-02-25T12:00:01Z"));
        for text in [
            "2026-02-25-12:00:01",
            "2026-02-25 12:00:01",
            "2026-02-25T12:00:01",
            "2026-02-25T12:00:01Z",
            "2026-02-25t12:00:01z",
            "2026-02-25T12:00:01+00:00",
            "2026-02-25T12:00:01 00:00",
            "2026-02-25T12:00:01-00:00",
            "2026-02-25-12:00:01.000",
            "2026-02-25 12:00:01.0000000000 0000",
            "2026-02-25T13:30:01+01:30",
            "2026-02-25 13:30:01 0130",
            "2026-02-25-04:00:01-08:00",
            "2026-02-25 04:00:01-08",
            "2026-02-26T11:59:01.000+23:59",
            "2026-02-24T12:01:01-23:59",
        ] {
            assert_eq!(Bound::parse(text), Some(noon), "{text}");
        }
        assert_eq!(Bound::parse("2026-02-25"), Some(Bound::Day(at("2026-02-25T00:00:00Z"))));
    }

    #[test]
    fn fraction_is_kept_to_the_nanosecond() {
        for (text, expected, printed) in [
            ("2026-02-25T12:00:01.5Z", "2026-02-25T12:00:01.5Z", "2026-02-25-12:00:01.5"),
            ("2026-02-25-12:00:01.123456789", "2026-02-25T12:00:01.123456789Z", "2026-02-25-12:00:01.123456789"),
            ("2026-02-25 13:00:01.0100+01:00", "2026-02-25T12:00:01.01Z", "2026-02-25-12:00:01.01"),
            ("2026-02-25T12:00:01.00000000100", "2026-02-25T12:00:01.000000001Z", "2026-02-25-12:00:01.000000001"),
        ] {
            assert_eq!(Bound::parse(text), Some(Bound::Fraction(at(expected))), "{text}");
            assert_eq!(Bound::Fraction(at(expected)).to_string(), printed);
        }
    }

    #[test]
    fn other_spellings_are_malformed() {
        for text in [
            "",
            "2026",
            "2026-2-5",
            "2026-02-30",
            "2026-13-01",
            "2026-02-25T",
            "2026-02-25T12:00",
            "2026-02-25T24:00:00",
            "2026-02-25T12:60:00",
            "2026-02-25T12:00:61",
            "2026-02-25T12:00:00.",
            "2026-02-25T12:00:00.Z",
            "2026-02-25T12:00:00,5",
            "2026-02-25T12:00:00.0000000001",
            "2026-02-25T12:00:00ZZ",
            "2026-02-25T12:00:00 Z",
            "2026-02-25T12:00:00 UTC",
            "2026-02-25T12:00:00+24:00",
            "2026-02-25T12:00:00+01:60",
            "2026-02-25T12:00:00+1:00",
            "2026-02-25T12:00:00+01:000",
            "2026-02-25T12:00:00=01:00",
            "2026-02-25T12:00:00+",
            "2026-02-25T12:00:00é",
            "2026-02-25Z",
            "2026-02-25+00:00",
            "2026-02-25_12:00:00",
            " 2026-02-25",
            "2026-02-25 ",
            "+026-02-25",
            "2026-02-25T-1:00:00",
            "yesterday",
            "2026-02-2é",
            "1600-01-01",
            "9999-01-01",
            "1678-01-01T00:00:00+00:01",
            "2261-12-31T23:59:59-00:01",
        ] {
            assert_eq!(Bound::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn spelled_bound_parses_to_itself(seconds in 0i64..4_000_000_000, nanos in 0u32..1_000_000_000) {
            let second = Timestamp::from_seconds(seconds);
            let bound = Bound::Second(second);
            prop_assert_eq!(Bound::parse(&bound.to_string()), Some(bound));
            let instant = second + Duration::from_nanos(nanos.into());
            let bound = if nanos == 0 { Bound::Second(second) } else { Bound::Fraction(instant) };
            prop_assert_eq!(Bound::parse(&bound.to_string()), Some(bound));
            // The spelling of times in answers.
            prop_assert_eq!(Bound::parse(&instant.to_string()), Some(bound));
        }

        /// jiff is the model of offsets.
        #[test]
        fn offset_is_converted_as_jiff_does(
            seconds in 0i64..4_000_000_000, millis in 0i64..1000, minutes in -1439i32..=1439, decoded: bool
        ) {
            let at = Timestamp::from_millis(seconds * 1000 + millis);
            let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(minutes * 60).unwrap());
            let local = zone.to_datetime(at.to_timestamp());
            let sign = if minutes < 0 { '-' } else if decoded { ' ' } else { '+' };
            let text = format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
            prop_assert_eq!(Bound::parse(&text).map(Bound::start), Some(at), "{}", text);
        }
    }
}
