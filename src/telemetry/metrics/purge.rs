//! Events of purges.

use std::fmt::Display;

use metrics::counter;

/// The log line of a purge by an operator.
#[derive(Clone, Copy)]
pub struct PurgeRecord<'a> {
    /// The account.
    pub account: &'a str,
    /// The stream; `None` means all of the account.
    pub stream: Option<&'a str>,
    /// Start of the purged interval as the operator wrote it; `None` means no bound.
    pub from: Option<&'a str>,
    /// End of the purged interval as the operator wrote it; `None` means no bound.
    pub to: Option<&'a str>,
    /// How many ids of which kind were erased; `None` if all was purged.
    pub erased: Option<&'a str>,
    /// The operator.
    pub requester: &'a dyn Display,
    /// The epoch of the purge.
    pub epoch: u64,
    /// `complete`, `incomplete` or `here_only`.
    pub result: &'static str,
    /// Chunks that were removed from the memory of this replica.
    pub memory_chunks: usize,
    /// Chunks that were overwritten on the disk of this replica; `None` without a disk tier, or if it failed.
    pub disk_chunks: Option<u64>,
    /// Chunks that were deleted from Redis; `None` if there was nothing to delete, or Redis could not be written.
    pub redis_chunks: Option<u64>,
    /// The number of replicas that have confirmed the purge.
    pub confirmed: usize,
    /// The work that is not done; `None` if all is.
    pub left: Option<&'a str>,
}

/// An operator has purged.
pub fn purge(record: &PurgeRecord<'_>) {
    let PurgeRecord {
        account,
        stream,
        from,
        to,
        erased,
        requester,
        epoch,
        result,
        memory_chunks,
        disk_chunks,
        redis_chunks,
        confirmed,
        left,
    } = *record;
    counter!("koregate_purges_total", "account" => account.to_owned(), "result" => result).increment(1);
    match left {
        None => tracing::info!(
            account,
            stream,
            from,
            to,
            erased,
            %requester,
            epoch,
            result,
            memory_chunks,
            disk_chunks,
            redis_chunks,
            confirmed,
            "an operator has purged"
        ),
        Some(left) => tracing::warn!(
            account,
            stream,
            from,
            to,
            erased,
            %requester,
            epoch,
            result,
            memory_chunks,
            disk_chunks,
            redis_chunks,
            confirmed,
            left,
            "an operator has purged, but not all is done"
        ),
    }
}

/// A purge that Redis refused at first was written to Redis, and sent to the other replicas.
pub fn purge_replicated_late(account: &str, epoch: u64, confirmed: usize) {
    tracing::info!(account, epoch, confirmed, "a purge that Redis refused at first was written to Redis");
}
