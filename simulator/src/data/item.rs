//! The stored part of an item, and the properties that derive from it.

use std::fmt::Write as _;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{hash, is_in_share};
use crate::profile::ItemChanges;
use crate::time::UnixTime;

/// The maximum duration of a segment.
pub(super) const MAX_DURATION: Duration = Duration::from_hours(2);

/// The final version of an item's bytes; a changing item starts at version 0.
const FINAL_VERSION: u32 = 4;

/// The first version of a changing item that has an end time.
const FIRST_ENDED_VERSION: u32 = 2;

/// The number of consecutive segments that share a conversation.
const SEGMENTS_PER_CONVERSATION: u64 = 3;

/// The number of agents of a stream.
const AGENT_COUNT: u64 = 48;

const CHANNELS: [&str; 6] = ["chat", "voice", "email", "sms", "whatsapp", "rtm"];

/// The stored part of an item: 16 bytes. All other properties derive from the key and the seed of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimelineItem {
    /// `segmentStartTime` in milliseconds since the epoch.
    pub(crate) start: i64,
    /// The UTC day in the upper half, and a number that is unique on that day in the lower half.
    pub(crate) key: u64,
}

impl TimelineItem {
    /// `segmentStartTime`
    pub(super) fn start(self) -> UnixTime {
        UnixTime::from_millis(self.start)
    }

    /// The duration of the segment in milliseconds. `None` for the 2 % of segments that never end.
    pub(super) fn duration_ms(self, seed: u64) -> Option<i64> {
        let random = hash(seed ^ 0x656e_6473, self.key);
        if random.is_multiple_of(50) {
            return None;
        }
        // A squared draw favours low values: most segments last minutes, and some more than an hour.
        let draw = (random >> 16) % 10_000;
        let max = u64::try_from(MAX_DURATION.as_millis()).unwrap_or_default();
        i64::try_from(5_000 + draw * draw * (max - 6_000) / 100_000_000).ok()
    }

    /// The version of the item's bytes at `now`: 0 to [`FINAL_VERSION`] for a changing item, otherwise the final one.
    pub(super) fn version(self, changes: &ItemChanges, seed: u64, now: UnixTime) -> u32 {
        if changes.changing <= 0.0 || !is_in_share(seed ^ 0x6368_616e, self.key, changes.changing) {
            return FINAL_VERSION;
        }
        let age = now.since(self.start());
        if age >= changes.changes_until {
            return FINAL_VERSION;
        }
        let step = changes.changes_until / FINAL_VERSION;
        u32::try_from(age.as_nanos() / step.as_nanos().max(1)).unwrap_or(FINAL_VERSION).min(FINAL_VERSION - 1)
    }

    /// `segmentEndTime` in milliseconds, in this version of the item. `None` stands for null.
    pub(super) fn end(self, seed: u64, version: u32) -> Option<i64> {
        if version < FIRST_ENDED_VERSION { None } else { self.duration_ms(seed).map(|duration| self.start + duration) }
    }

    /// The unique `segmentID`: `ac-` and 128 bits in the form of a UUID.
    pub(super) fn segment_id(self, seed: u64) -> String {
        let mut id = String::with_capacity(39);
        id.push_str("ac-");
        push_uuid(&mut id, seed ^ 0x7365_676d, self.key);
        id
    }

    /// `conversationID`, which consecutive items share.
    pub(super) fn conversation_id(self, seed: u64) -> String {
        format!("conv-{:016x}", hash(seed ^ 0x636f_6e76, self.conversation()))
    }

    /// `botSessionID`, one for each conversation. One conversation in twelve has none.
    pub(super) fn session_id(self, seed: u64) -> Option<String> {
        let high = hash(seed ^ 0x7365_7373, self.conversation());
        let low = hash(seed ^ 0x6c6f_7765, self.conversation()) >> 32;
        (!high.is_multiple_of(12)).then(|| format!("{high:016x}{low:08x}"))
    }

    /// `channel`
    pub(super) fn channel(self, seed: u64) -> &'static str {
        let index = hash(seed ^ 0x6368_6e6c, self.conversation()) % 12;
        // An index beyond the list is chat, so chat has more than half of all items.
        usize::try_from(index).ok().and_then(|index| CHANNELS.get(index)).copied().unwrap_or(CHANNELS[0])
    }

    /// The number of the agent, from 0.
    pub(super) fn agent(self, seed: u64) -> u64 {
        hash(seed ^ 0x6167_656e, self.key) % AGENT_COUNT
    }

    fn conversation(self) -> u64 {
        (self.key >> 32 << 32) | ((self.key & u64::from(u32::MAX)) / SEGMENTS_PER_CONVERSATION)
    }
}

/// `agent.agentId`
pub(super) fn agent_id(seed: u64, agent: u64) -> String {
    format!("agent-{:08x}", hash(seed ^ 0x6167_6964, agent) >> 32)
}

/// Appends 128 bits that depend on `seed` and `key`, as `8-4-4-4-12` hexadecimal digits.
pub(super) fn push_uuid(out: &mut String, seed: u64, key: u64) {
    let digits = format!("{:032x}", xxh3_128_with_seed(&key.to_le_bytes(), seed));
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    for (index, group) in groups.into_iter().enumerate() {
        let dash = if index == 0 { "" } else { "-" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{dash}{}", digits.get(group).unwrap_or_default());
    }
}
