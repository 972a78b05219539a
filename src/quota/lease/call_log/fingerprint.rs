//! Canonical form of the call log, for the model check.

use super::CallLog;
use crate::quota::lease::tests::model::Fingerprint;

impl CallLog {
    pub(in crate::quota::lease) fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        out.set(
            self.own
                .iter()
                .map(|(name, call)| {
                    let flags = [call.is_open, call.is_recorded, call.is_partitioned].map(u8::from);
                    (out.call(name), out.age(call.at), flags)
                })
                .collect(),
        );
        out.set(self.others.iter().map(|(name, call)| (out.call(name), out.age(call.at), call.is_recorded)).collect());
        out.set(self.cancelled.iter().map(|name| out.call(name)).collect());
        out.set(self.assumed.values().flatten().map(|name| out.call(name)).collect());
    }
}
