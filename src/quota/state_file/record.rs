//! One line of the state file.
//!
//! ```text
//! ended 8a5da52ed1a5c0de 1795341600000 000000123456 5eed5eed 1f2e
//! state account          wall clock ms uptime ms    boot     checksum
//! ```

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes in a line, its end included. A memory page holds a whole number of them.
pub(super) const WIDTH: usize = 64;
/// The first line: which format this is.
pub(super) const HEADER: &[u8; WIDTH] = b"koregate quota state, format 1: one line a call, do not edit   \n";

/// What became of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is under way.
    Open,
    /// It has ended, so it counts.
    Ended,
    /// There is none.
    Free,
    /// It stands for all calls that a damaged file has lost: every limit of every account was spent then.
    Lost,
}

/// The account of a call: a hash, for the name may have any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordAccount(u64);

impl RecordAccount {
    /// Of a line that cannot be read.
    pub(super) const ANY: Self = Self(0);

    pub(super) fn of(account: &str) -> Self {
        Self(xxh3_64(account.as_bytes()).max(1))
    }

    /// Whether a call of this account may be one of `other`.
    pub(super) fn may_be(self, other: Self) -> bool {
        self == Self::ANY || self == other
    }
}

/// When a line was written, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordStamp {
    /// Milliseconds since 1970.
    pub(super) wall: i64,
    /// Since the machine was started, exact to the millisecond.
    pub(super) uptime: Duration,
    /// Which start that was.
    pub(super) boot: Option<u32>,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateRecord {
    pub(super) state: State,
    pub(super) account: RecordAccount,
    pub(super) stamp: RecordStamp,
}

impl StateRecord {
    /// The bytes of the line. Times that have no place in it (after 2286, up for 31 years) are cut to the last that has.
    pub(super) fn text(&self) -> [u8; WIDTH] {
        let state = match self.state {
            State::Open => "open ",
            State::Ended => "ended",
            State::Free => "free ",
            State::Lost => "lost ",
        };
        let RecordStamp { wall, uptime, boot } = self.stamp;
        let (account, wall) = (self.account.0, wall.clamp(0, 9_999_999_999_999));
        let uptime = uptime.as_millis().min(999_999_999_999);
        let boot = boot.map_or_else(|| "--------".to_owned(), |boot| format!("{boot:08x}"));
        let said = format!("{state} {account:016x} {wall:013} {uptime:012} {boot} ");
        let line = format!("{said}{:04x}\n", checksum(&said));
        let mut text = [b' '; WIDTH];
        text.iter_mut().zip(line.bytes()).for_each(|(place, byte)| *place = byte);
        text
    }

    /// What a line says; `None` if it is damaged.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let (said, sum) = text.split_at_checked(text.len().checked_sub(4)?)?;
        if u16::from_str_radix(sum, 16) != Ok(checksum(said)) {
            return None;
        }
        let mut words = said.split_ascii_whitespace();
        let state = match words.next()? {
            "open" => State::Open,
            "ended" => State::Ended,
            "free" => State::Free,
            "lost" => State::Lost,
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

fn checksum(said: &str) -> u16 {
    let [a, b, ..] = xxh3_64(said.as_bytes()).to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_written_and_fills_its_width() {
        for (state, boot) in
            [(State::Open, Some(7)), (State::Ended, None), (State::Free, Some(u32::MAX)), (State::Lost, Some(0))]
        {
            let stamp = RecordStamp { wall: 1_795_341_600_123, uptime: Duration::from_millis(123_456), boot };
            let line = StateRecord { state, account: RecordAccount::of("a"), stamp };
            let text = line.text();
            assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(WIDTH - 1));
            assert_eq!(StateRecord::read(&text), Some(line));
        }
        assert_eq!(4096 % WIDTH, 0);
    }

    #[test]
    fn a_damaged_line_says_nothing() {
        let stamp = RecordStamp { wall: i64::MAX, uptime: Duration::MAX, boot: None };
        let text = StateRecord { state: State::Open, account: RecordAccount::ANY, stamp }.text();
        assert!(StateRecord::read(&text).is_some());
        for place in 0..WIDTH {
            let mut damaged = text;
            damaged[place] ^= 1;
            assert_eq!(StateRecord::read(&damaged), None, "{place}");
        }
        assert_eq!(StateRecord::read(&[0; WIDTH]), None);
        assert_eq!(StateRecord::read(&[b'\n'; WIDTH]), None);
        assert_eq!(StateRecord::read(HEADER), None);
    }
}
