//! Record of one call: a line of the state file.
//!
//! ```text
//! ended 8a5da52ed1a5c0de 1795341600000 000000123456 5eed5eed 1f2e
//! state account          wall clock ms uptime ms    boot     checksum
//! ```

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a line, line feed included. A memory page holds a whole number of lines.
pub(super) const RECORD_BYTES: usize = 64;
/// The first line, which names the format.
pub(super) const HEADER: &[u8; RECORD_BYTES] = b"koregate quota state, format 1: one line a call, do not edit   \n";

/// State of the call in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordState {
    /// The call is in flight.
    Open,
    /// The call has ended, and counts.
    Ended,
    /// No call: the record may be overwritten.
    Free,
    /// All calls that a damaged file has lost: every limit of every account was spent at that time.
    Lost,
}

/// Hash of an account's name, which may have any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordAccount(u64);

impl RecordAccount {
    /// Any account: of a line that cannot be read.
    pub(super) const ANY: Self = Self(0);

    pub(super) fn of(account: &str) -> Self {
        Self(xxh3_64(account.as_bytes()).max(1))
    }

    /// Whether a record of this account counts for `other`.
    pub(super) fn counts_for(self, other: Self) -> bool {
        self == Self::ANY || self == other
    }
}

/// Time at which a line was written, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordStamp {
    /// Milliseconds since 1970.
    pub(super) wall: i64,
    /// Time since the machine was booted, exact to the millisecond.
    pub(super) uptime: Duration,
    /// Mark of that boot; `None` if the machine has none.
    pub(super) boot: Option<u32>,
}

/// A line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateRecord {
    pub(super) state: RecordState,
    pub(super) account: RecordAccount,
    pub(super) stamp: RecordStamp,
}

impl StateRecord {
    /// Bytes of the line. Times that do not fit (after 2286, or an uptime of 31 years) are cut to the last that fits.
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let state = match self.state {
            RecordState::Open => "open ",
            RecordState::Ended => "ended",
            RecordState::Free => "free ",
            RecordState::Lost => "lost ",
        };
        let RecordStamp { wall, uptime, boot } = self.stamp;
        let (account, wall) = (self.account.0, wall.clamp(0, 9_999_999_999_999));
        let uptime = uptime.as_millis().min(999_999_999_999);
        let boot = boot.map_or_else(|| "--------".to_owned(), |boot| format!("{boot:08x}"));
        let content = format!("{state} {account:016x} {wall:013} {uptime:012} {boot} ");
        let line = format!("{content}{:04x}\n", checksum(&content));
        let mut text = [b' '; RECORD_BYTES];
        text.iter_mut().zip(line.bytes()).for_each(|(to, byte)| *to = byte);
        text
    }

    /// Reads a line; `None` if it is damaged.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let (content, sum) = text.split_at_checked(text.len().checked_sub(4)?)?;
        if u16::from_str_radix(sum, 16) != Ok(checksum(content)) {
            return None;
        }
        let mut words = content.split_ascii_whitespace();
        let state = match words.next()? {
            "open" => RecordState::Open,
            "ended" => RecordState::Ended,
            "free" => RecordState::Free,
            "lost" => RecordState::Lost,
            _ => return None,
        };
        let account = RecordAccount(u64::from_str_radix(words.next()?, 16).ok()?);
        let wall = words.next()?.parse().ok()?;
        let uptime = Duration::from_millis(words.next()?.parse().ok()?);
        let boot = match words.next()? {
            "--------" => None,
            boot => Some(u32::from_str_radix(boot, 16).ok()?),
        };
        Some(Self { state, account, stamp: RecordStamp { wall, uptime, boot } })
    }
}

fn checksum(content: &str) -> u16 {
    let [a, b, ..] = xxh3_64(content.as_bytes()).to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_encoded_fills_its_line_and_decodes() {
        for (state, boot) in [
            (RecordState::Open, Some(7)),
            (RecordState::Ended, None),
            (RecordState::Free, Some(u32::MAX)),
            (RecordState::Lost, Some(0)),
        ] {
            let stamp = RecordStamp { wall: 1_795_341_600_123, uptime: Duration::from_millis(123_456), boot };
            let record = StateRecord { state, account: RecordAccount::of("a"), stamp };
            let text = record.encode();
            assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(RECORD_BYTES - 1));
            assert_eq!(StateRecord::decode(&text), Some(record));
        }
        assert_eq!(4096 % RECORD_BYTES, 0);
    }

    #[test]
    fn record_damaged_does_not_decode() {
        let stamp = RecordStamp { wall: i64::MAX, uptime: Duration::MAX, boot: None };
        let text = StateRecord { state: RecordState::Open, account: RecordAccount::ANY, stamp }.encode();
        assert!(StateRecord::decode(&text).is_some());
        for index in 0..RECORD_BYTES {
            let mut damaged = text;
            damaged[index] ^= 1;
            assert_eq!(StateRecord::decode(&damaged), None, "{index}");
        }
        assert_eq!(StateRecord::decode(&[0; RECORD_BYTES]), None);
        assert_eq!(StateRecord::decode(&[b'\n'; RECORD_BYTES]), None);
        assert_eq!(StateRecord::decode(HEADER), None);
    }
}
