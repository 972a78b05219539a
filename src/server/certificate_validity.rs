//! The time for which a certificate is valid, read from its DER encoding (X.690; RFC 5280, 4.1).

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::window::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The optional version of a certificate.
const VERSION: u8 = 0xa0;

/// The first and the last second of validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`
    pub from: Timestamp,
    /// `notAfter`
    pub until: Timestamp,
}

impl Validity {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = read(certificate, SEQUENCE)?;
        let (fields, _) = read(certificate, SEQUENCE)?;
        let fields = read(fields, VERSION).map_or(fields, |(_, rest)| rest);
        let (_, fields) = read(fields, INTEGER)?;
        // The signature algorithm and the issuer.
        let (_, fields) = read(fields, SEQUENCE)?;
        let (_, fields) = read(fields, SEQUENCE)?;
        let (validity, _) = read(fields, SEQUENCE)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some(Self { from, until })
    }
}

/// The content of the element of this tag at the beginning of `der`, and what follows it.
fn read(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let length = (bytes.len() <= 4).then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))?;
            (length, rest)
        }
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// A time in either of its forms: `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (text, rest, century) = match (read(der, UTC_TIME), read(der, GENERALIZED_TIME)) {
        (Some((text, rest)), _) => (text, rest, true),
        (None, Some((text, rest))) => (text, rest, false),
        (None, None) => return None,
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    // Two digits of a year stand for 1950 to 2049.
    let text = match century {
        true if text < "50" => format!("20{text}"),
        true => format!("19{text}"),
        false => text.to_owned(),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    // The end of the year 9999, which stands for a certificate without an end (RFC 5280, 4.1.2.5), is beyond jiff's range.
    let time = TimeZone::UTC.to_timestamp(civil).map_or(Timestamp::MAX, Timestamp::from);
    Some((time, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_read_in_both_forms() {
        for (from, until) in [((1999, 1), (2049, 12)), ((2026, 3), (2060, 6))] {
            let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(from.0, from.1, 1);
            parameters.not_after = rcgen::date_time_ymd(until.0, until.1, 1);
            let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let validity = Validity::of(certificate.der()).unwrap();
            let second = |(year, month): (i32, u8)| {
                format!("{year}-{month:02}-01T00:00:00Z").parse::<jiff::Timestamp>().unwrap().into()
            };
            assert_eq!(validity, Validity { from: second(from), until: second(until) });
        }
    }

    #[test]
    fn time_without_an_end_is_the_latest() {
        let der = [&[GENERALIZED_TIME, 15][..], b"99991231235959Z"].concat();
        assert_eq!(time(&der), Some((Timestamp::MAX, &[][..])));
    }

    #[test]
    fn truncated_certificate_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        for length in 0..certificate.der().len().min(100) {
            assert_eq!(Validity::of(&certificate.der()[..length]), None, "{length}");
        }
        assert_eq!(Validity::of(&[SEQUENCE, 0xff, 1]), None);
    }
}
