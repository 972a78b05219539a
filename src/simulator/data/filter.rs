//! The filters of a request's body.

use serde::Deserialize;

use super::item::{Item, agent_id};

/// Which items are wanted: AND across the members, OR within one; an empty member does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// `botSessionID`; an item without one matches none.
    pub session_ids: Vec<String>,
    /// `conversationID`
    pub conversation_ids: Vec<String>,
    /// `channel`
    pub channels: Vec<String>,
    /// `agent.agentId`
    pub agent_ids: Vec<String>,
}

impl Filter {
    /// A filter from the body of a request; no body, no filter. Unknown members are ignored, as Kore's APIs do.
    pub(in crate::simulator) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(body) }
    }

    /// Whether the item is wanted.
    pub(super) fn admits(&self, seed: u64, item: Item) -> bool {
        let Self { session_ids, conversation_ids, channels, agent_ids } = self;
        (channels.is_empty() || channels.iter().any(|wanted| wanted == item.channel(seed)))
            && (agent_ids.is_empty() || agent_ids.contains(&agent_id(seed, item.agent(seed))))
            && (conversation_ids.is_empty() || conversation_ids.contains(&item.conversation_id(seed)))
            && (session_ids.is_empty() || item.session_id(seed).is_some_and(|id| session_ids.contains(&id)))
    }
}
