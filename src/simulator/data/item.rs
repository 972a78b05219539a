//! What is kept of an item, and the facts that follow from it.

use std::fmt::Write as _;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{in_share, mix};
use crate::simulator::profile::Profile;
use crate::window::Timestamp;

/// No segment lasts longer.
pub(super) const LONGEST: Duration = Duration::from_hours(2);

/// How many times the bytes of a changing item change before they are final.
const VERSIONS: u32 = 4;

/// A changing item of a lower version has no end time yet.
const ENDED: u32 = 2;

/// Segments in a row that make up one conversation.
const SEGMENTS: u64 = 3;

/// Agents of a stream.
const AGENTS: u64 = 48;

const CHANNELS: [&str; 6] = ["chat", "voice", "email", "sms", "whatsapp", "rtm"];

/// All that is held in memory of an item: 16 bytes. The rest derives from its key and the seed of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) struct Item {
    /// `segmentStartTime` in milliseconds since the epoch.
    pub(in crate::simulator) start: i64,
    /// The UTC day in the upper half, the place on that day in the lower.
    pub(in crate::simulator) key: u64,
}

impl Item {
    /// `segmentStartTime`
    pub(super) fn start(self) -> Timestamp {
        Timestamp::from_millis(self.start)
    }

    /// How long the segment lasts, in milliseconds; `None`: it never got an end.
    pub(super) fn lasts(self, seed: u64) -> Option<i64> {
        let dice = mix(seed ^ 0x656e_6473, self.key);
        if dice.is_multiple_of(50) {
            return None;
        }
        // Most take minutes, some more than an hour: a draw that is squared falls low more often than high.
        let draw = (dice >> 16) % 10_000;
        let longest = u64::try_from(LONGEST.as_millis()).unwrap_or_default();
        i64::try_from(5_000 + draw * draw * (longest - 6_000) / 100_000_000).ok()
    }

    /// The version of the item's bytes at `now`: from 0 to [`VERSIONS`] for a changing one, else at once the last.
    pub(super) fn version(self, profile: &Profile, seed: u64, now: Timestamp) -> u32 {
        if profile.changing <= 0.0 || !in_share(seed ^ 0x6368_616e, self.key, profile.changing) {
            return VERSIONS;
        }
        let age = now.since(self.start());
        if age >= profile.changes_until {
            return VERSIONS;
        }
        let step = profile.changes_until / VERSIONS;
        u32::try_from(age.as_nanos() / step.as_nanos().max(1)).unwrap_or(VERSIONS).min(VERSIONS - 1)
    }

    /// `segmentEndTime` in milliseconds, for the item in this version; `None` is null.
    pub(super) fn end(self, seed: u64, version: u32) -> Option<i64> {
        if version < ENDED { None } else { self.lasts(seed).map(|lasts| self.start + lasts) }
    }

    /// `segmentID`, unique: `ac-` and 128 bits in the form of a UUID.
    pub(super) fn segment_id(self, seed: u64) -> String {
        let mut id = String::with_capacity(39);
        id.push_str("ac-");
        push_uuid(&mut id, seed ^ 0x7365_676d, self.key);
        id
    }

    /// `conversationID`, shared by neighbours in time.
    pub(super) fn conversation_id(self, seed: u64) -> String {
        format!("conv-{:016x}", mix(seed ^ 0x636f_6e76, self.conversation()))
    }

    /// `botSessionID`, shared by a conversation; a few conversations have none.
    pub(super) fn session_id(self, seed: u64) -> Option<String> {
        let high = mix(seed ^ 0x7365_7373, self.conversation());
        let low = mix(seed ^ 0x6c6f_7765, self.conversation()) >> 32;
        (!high.is_multiple_of(12)).then(|| format!("{high:016x}{low:08x}"))
    }

    /// `channel`
    pub(super) fn channel(self, seed: u64) -> &'static str {
        let dice = mix(seed ^ 0x6368_6e6c, self.conversation()) % 12;
        // Half of all is chat.
        usize::try_from(dice).ok().and_then(|dice| CHANNELS.get(dice)).copied().unwrap_or(CHANNELS[0])
    }

    /// The number of the agent, from 0.
    pub(super) fn agent(self, seed: u64) -> u64 {
        mix(seed ^ 0x6167_656e, self.key) % AGENTS
    }

    fn conversation(self) -> u64 {
        (self.key >> 32 << 32) | ((self.key & u64::from(u32::MAX)) / SEGMENTS)
    }
}

/// `agent.agentId`
pub(super) fn agent_id(seed: u64, agent: u64) -> String {
    format!("agent-{:08x}", mix(seed ^ 0x6167_6964, agent) >> 32)
}

/// Appends 128 bits that depend on `seed` and `key`, as `8-4-4-4-12` hexadecimal digits.
pub(super) fn push_uuid(out: &mut String, seed: u64, key: u64) {
    let digits = format!("{:032x}", xxh3_128_with_seed(&key.to_le_bytes(), seed));
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    for (place, group) in groups.into_iter().enumerate() {
        let dash = if place == 0 { "" } else { "-" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{dash}{}", digits.get(group).unwrap_or_default());
    }
}
