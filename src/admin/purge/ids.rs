//! The ids of a purge request. They are hashed as they are read: nothing behind this point knows an id.

use serde::Serialize;
use serde_json::value::RawValue;

use super::refused::{Refused, bad};
use crate::request::{IdHashes, IdKind};

/// Most ids in one request.
const MAX_IDS: usize = 1_000;

/// The hashed ids of a purge request, by their kind; `None` if the kind is not named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RequestedIds {
    conversations: Option<Vec<u32>>,
    sessions: Option<Vec<u32>>,
    segments: Option<Vec<u32>>,
}

/// How many ids of each kind a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct IdCounts {
    conversations: usize,
    sessions: usize,
    segments: usize,
}

impl std::fmt::Display for IdCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { conversations, sessions, segments } = self;
        write!(f, "{conversations} conversations, {sessions} sessions, {segments} segments")
    }
}

impl RequestedIds {
    /// Whether a parameter names ids.
    pub(super) fn is_name(name: &str) -> bool {
        kind(name).is_some()
    }

    /// Takes the ids of a parameter of the body.
    ///
    /// # Errors
    /// If the value is no array of texts, is empty or given twice, or there are too many ids.
    pub(super) fn take(&mut self, name: &str, value: &RawValue) -> Result<(), Refused> {
        let Some(kind) = kind(name) else { return Err(bad(name, "it does not name ids")) };
        let ids: Vec<String> = serde_json::from_str(value.get()).map_err(|_| bad(name, "it is no array of texts"))?;
        if ids.is_empty() {
            return Err(bad(name, "it is empty; leave it out if all is meant"));
        }
        if ids.iter().any(|id| id.trim().is_empty()) {
            return Err(bad(name, "an id is empty"));
        }
        let hashes = ids.iter().map(|id| kind.hash(id)).collect();
        let slot = match kind {
            IdKind::Conversation => &mut self.conversations,
            IdKind::Session => &mut self.sessions,
            IdKind::Segment => &mut self.segments,
        };
        if slot.replace(hashes).is_some() {
            return Err(bad(name, "it stands twice"));
        }
        let IdCounts { conversations, sessions, segments } = self.counts();
        if conversations + sessions + segments > MAX_IDS {
            return Err(bad(name, "there are more than 1000 ids; send them in several requests"));
        }
        Ok(())
    }

    /// How many ids there are of each kind.
    pub(super) fn counts(&self) -> IdCounts {
        let count = |ids: &Option<Vec<u32>>| ids.as_ref().map_or(0, Vec::len);
        let [conversations, sessions, segments] = [&self.conversations, &self.sessions, &self.segments].map(count);
        IdCounts { conversations, sessions, segments }
    }

    /// All hashes; `None` if the request names no ids.
    pub(super) fn hashes(&self) -> Option<IdHashes> {
        let kinds = [&self.conversations, &self.sessions, &self.segments];
        let is_named = kinds.iter().any(|ids| ids.is_some());
        is_named.then(|| kinds.into_iter().flatten().flatten().copied().collect())
    }
}

fn kind(name: &str) -> Option<IdKind> {
    match name {
        "conversationIds" => Some(IdKind::Conversation),
        "sessionIds" => Some(IdKind::Session),
        "segmentIds" => Some(IdKind::Segment),
        _ => None,
    }
}
