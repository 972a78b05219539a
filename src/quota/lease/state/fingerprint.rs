//! Canonical form of the state of the lease, for the model check.

use super::{Leadership, LeaseState};
use crate::quota::lease::outage::Outage;
use crate::quota::lease::tests::model::Fingerprint;

impl LeaseState {
    pub(in crate::quota::lease) fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        match self {
            Self::Joining { outage } => {
                out.put((1, outage.is_some()));
                if let Some(outage) = outage {
                    outage.fingerprint(out);
                }
            }
            Self::Leading(leadership) => leadership.fingerprint(out),
            Self::Following { leader } => out.put((3, out.place(leader))),
            Self::Partitioned(partition) => {
                out.put((4, partition.replicas, partition.is_exchanging));
                partition.outage.fingerprint(out);
            }
        }
    }
}

impl Leadership {
    fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        out.put((2, self.wanted));
        // Whether a time that has passed did so long ago makes no difference.
        out.put([self.until, self.spends_from, self.not_before].map(|time| out.age(time).min(0)));
        out.set(self.granted.iter().map(|grant| (out.number(grant.number), out.age(grant.until).min(0))).collect());
    }
}

impl Outage {
    fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        out.put((out.age(self.since), self.replicas));
        out.set(self.members.iter().map(|replica| out.place(replica)).collect());
    }
}
