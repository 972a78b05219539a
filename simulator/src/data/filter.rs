//! The filter in the body of a request.

use serde::Deserialize;

use super::item::{TimelineItem, agent_id};

/// A filter for items. An item must match all members; it matches a member if it has one of the values. An empty member
/// matches all items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemFilter {
    /// `botSessionID`; an item without one does not match.
    pub session_ids: Vec<String>,
    /// `conversationID`
    pub conversation_ids: Vec<String>,
    /// `channel`
    pub channels: Vec<String>,
    /// `agent.agentId`
    pub agent_ids: Vec<String>,
}

impl ItemFilter {
    /// Parses the body of a request. An empty body matches all items. Unknown members are ignored, as in Kore's APIs.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(body) }
    }

    /// Whether the item matches.
    pub(super) fn matches(&self, seed: u64, item: TimelineItem) -> bool {
        let Self { session_ids, conversation_ids, channels, agent_ids } = self;
        (channels.is_empty() || channels.iter().any(|channel| channel == item.channel(seed)))
            && (agent_ids.is_empty() || agent_ids.contains(&agent_id(seed, item.agent(seed))))
            && (conversation_ids.is_empty() || conversation_ids.contains(&item.conversation_id(seed)))
            && (session_ids.is_empty() || item.session_id(seed).is_some_and(|id| session_ids.contains(&id)))
    }
}
