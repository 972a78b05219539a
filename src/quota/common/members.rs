//! Who is there: each replica counts, and who counts on is alive. Pure: time is an argument, and no replica's clock is
//! compared with another's.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Tick;
use crate::fleet::ReplicaId;

/// Who has not counted for so long is gone, most likely.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// A look tells when somebody has counted only if the one before it is no older than this.
const RECENT: Duration = Duration::from_secs(1);
/// And after so long it is crossed out; if it is alive after all, it counts on from one.
const GONE: Duration = Duration::from_mins(10);

/// What one replica has seen of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// How far each has counted, and when that was seen to change.
    seen: HashMap<ReplicaId, (i64, Tick)>,
    /// When was last looked.
    looked: Tick,
}

impl Members {
    /// How far each has counted by `now`. Gives those that are to be crossed out.
    pub(super) fn look(&mut self, now: Tick, counts: impl IntoIterator<Item = (ReplicaId, i64)>) -> Vec<ReplicaId> {
        // After an outage it may have counted just before, and died in it.
        let is_recent = now < self.looked + RECENT;
        for (replica, count) in counts {
            let seen = self.seen.entry(replica).or_insert((count, now));
            if std::mem::replace(&mut seen.0, count) != count && is_recent {
                seen.1 = now;
            }
        }
        self.looked = now;
        // Who is missing now was lost by Redis, perhaps, and is still there.
        self.seen.extract_if(|_, (_, changed)| *changed + GONE <= now).map(|(replica, _)| replica).collect()
    }

    /// Those that were there when was last looked.
    pub(super) fn there(&self) -> BTreeSet<ReplicaId> {
        self.since(self.looked.saturating_sub(SILENT))
    }

    /// Those that were seen to count on since then.
    pub(super) fn since(&self, then: Tick) -> BTreeSet<ReplicaId> {
        self.seen.iter().filter(|(_, (_, changed))| *changed >= then).map(|(replica, _)| replica.clone()).collect()
    }
}
