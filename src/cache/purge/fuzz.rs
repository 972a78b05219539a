//! Fuzz target of the purges in Redis.

use super::replicator::StoredPurges;
use crate::redis_client::Reply;
use crate::request::IdFilter;
use crate::window::Interval;

/// The purges that replies hold. The purge that the marker names is always among them, so that chunks of earlier runs
/// are purged, whatever else the hash holds.
pub(crate) fn purges(replies: &[Reply]) {
    let [marker, Reply::Array(fields), ..] = replies else { return };
    let Ok(StoredPurges { marker, tombstones }) = StoredPurges::decode(marker, fields) else { return };
    let digits = marker.split(|byte| *byte == b'-').next().and_then(|epoch| std::str::from_utf8(epoch).ok());
    let last: u64 = digits.and_then(|digits| digits.parse().ok()).filter(|epoch| *epoch < 1 << 62).unwrap_or_default();
    assert!(tombstones.epoch() >= last);
    assert!(tombstones.iter().all(|(epoch, _)| epoch > tombstones.floor()));
    for (epoch, tombstone) in tombstones.iter().take(20) {
        let stream = tombstone.stream.as_deref().unwrap_or("any");
        let interval = tombstone.interval.intersection(Interval::EVER);
        assert!(interval.is_empty() || tombstones.is_purged(stream, interval, epoch - 1, &IdFilter::Any));
    }
}
