//! Canonical form of what is known of the other replicas, for the model check.

use super::Members;
use crate::quota::lease::tests::model::Fingerprint;

impl Members {
    pub(in crate::quota::lease) fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        out.set(
            self.heartbeats
                .iter()
                .map(|(replica, heartbeat)| {
                    (out.place(replica), out.heartbeats(replica, heartbeat.count), out.age(heartbeat.moved_at))
                })
                .collect(),
        );
        out.put((out.age(self.read_at), self.is_complete));
    }
}
