//! Who is there: each replica counts, and who counts on is alive. Pure: time is an argument, and no replica's clock is
//! compared with another's.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::MonotonicTime;
use crate::redis_client::ReplicaId;

/// Who has not counted for so long, and for as long as nobody looked, is gone, most likely: twice the longest interval at
/// which a replica counts, and some.
pub(super) const SILENT: Duration = Duration::from_secs(12);
/// What each replica adds to the interval at which one at rest reads how far all have counted: so what all read grows with
/// their number, and not with its square.
const READ_INTERVAL_PER_REPLICA: Duration = Duration::from_millis(100);
/// And after so long it is crossed out; if it is alive after all, it counts on from one.
const GONE: Duration = Duration::from_mins(10);

/// What one replica has seen of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// How far each has counted, and when that was seen to change.
    seen: HashMap<ReplicaId, (i64, MonotonicTime)>,
    /// When was last looked.
    looked: MonotonicTime,
}

impl Members {
    /// How far each has counted by `now`; Redis has answered without a break since `steady`. Gives those that are to be
    /// crossed out.
    pub(super) fn look(
        &mut self,
        now: MonotonicTime,
        counts: impl IntoIterator<Item = (ReplicaId, i64)>,
        steady: Option<MonotonicTime>,
    ) -> Vec<ReplicaId> {
        // After an outage it may have counted just before, and died in it.
        let is_recent = steady.is_some_and(|since| since <= self.looked);
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

    /// One has said that it is there.
    pub(super) fn meet(&mut self, now: MonotonicTime, replica: &ReplicaId) {
        self.seen.entry(replica.clone()).or_insert((0, now)).1 = now;
    }

    /// Those that were there when was last looked.
    pub(super) fn there(&self) -> BTreeSet<ReplicaId> {
        self.since(self.looked.saturating_sub(SILENT + self.read_interval()))
    }

    /// How often to look, while there is nothing else to do.
    pub(super) fn read_interval(&self) -> Duration {
        READ_INTERVAL_PER_REPLICA.saturating_mul(u32::try_from(self.seen.len()).unwrap_or(u32::MAX))
    }

    /// Those that were seen to count on since then.
    pub(super) fn since(&self, then: MonotonicTime) -> BTreeSet<ReplicaId> {
        self.seen.iter().filter(|(_, (_, changed))| *changed >= then).map(|(replica, _)| replica.clone()).collect()
    }
}
