//! Canonical form of the contact with Redis, for the model check.

use super::RedisContact;
use crate::quota::lease::tests::model::Fingerprint;

impl RedisContact {
    pub(in crate::quota::lease) fn fingerprint(&self, out: &mut Fingerprint<'_>) {
        let ages = [Some(self.started), self.active, self.answered, self.steady_since];
        out.put(ages.map(|time| time.map_or(i64::MAX, |time| out.age(time))));
        out.put((self.is_failing, self.was_suspended));
    }
}
