//! The report of a purge to its requester.

use serde::Serialize;

use super::ids::IdCounts;
use crate::cache::{DeletionStatus, PurgeResult};

/// A note on what the requester of an erasure has to know.
const ERASURE_NOTE: &str = "This is the cache of koregate. Kore deletes asynchronously and may return the data for a while: \
                            what is fetched until then is cached again. Repeat the erasure later, or have it repeated \
                            with repeat_after";

/// The answer to a purge of an interval that was done, at least on this replica.
#[derive(Serialize)]
pub(super) struct PurgeReport<'a> {
    #[serde(flatten)]
    pub(super) effect: &'a PurgeEffect,
    #[serde(flatten)]
    pub(super) scope: Scope<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeat_at: Option<String>,
}

/// The answer to an erasure that was done, at least on this replica. It does not repeat the ids.
#[derive(Serialize)]
pub(super) struct ErasureReport<'a> {
    pub(super) accounts: &'a [PurgeEffect],
    #[serde(flatten)]
    pub(super) scope: Scope<'a>,
    pub(super) ids: IdCounts,
    /// Chunks that held an id, in the memory of this replica.
    memory_chunks: usize,
    /// The same in the memory of the other replicas that have confirmed.
    replica_chunks: u64,
    /// The same in Redis; null without Redis.
    redis_chunks: Option<u64>,
    complete: bool,
    pub(super) repeat_at: Option<String>,
    note: &'static str,
}

/// The scope of a purge, as its requester wrote it.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Scope<'a> {
    pub(super) stream: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
}

/// The effect of a purge on one account.
#[derive(Serialize)]
pub(super) struct PurgeEffect {
    pub(super) account: String,
    pub(super) epoch: u64,
    /// Chunks removed from the memory of this replica.
    pub(super) memory_chunks: usize,
    /// Chunks overwritten on the disk of this replica; null without a disk tier.
    pub(super) disk_chunks: Option<u64>,
    #[serde(flatten)]
    pub(super) remote: RemoteEffect,
    pub(super) complete: bool,
}

impl PurgeEffect {
    pub(super) fn of(account: &str, purged: &PurgeResult, is_erasure: bool) -> Self {
        let mut remote = RemoteEffect::of(purged, is_erasure);
        if let Some(Err(why)) = &purged.disk {
            remote.left.push(explain_disk(why));
        }
        let disk_chunks = purged.disk.as_ref().and_then(|disk| disk.as_ref().ok()).copied();
        let complete = remote.left.is_empty();
        let (account, epoch, memory_chunks) = (account.to_owned(), purged.epoch, purged.memory_chunks);
        Self { account, epoch, memory_chunks, disk_chunks, remote, complete }
    }

    /// The result for log and metric.
    pub(super) fn label(&self) -> &'static str {
        match (self.remote.is_here_only, self.complete) {
            (true, _) => "here_only",
            (false, false) => "incomplete",
            (false, true) => "complete",
        }
    }
}

impl<'a> ErasureReport<'a> {
    pub(super) fn new(effects: &'a [PurgeEffect], scope: Scope<'a>, ids: IdCounts, repeat_at: Option<String>) -> Self {
        let redis_chunks = effects.iter().map(|effect| effect.remote.redis_chunks);
        Self {
            accounts: effects,
            scope,
            ids,
            memory_chunks: effects.iter().map(|effect| effect.memory_chunks).sum(),
            replica_chunks: effects.iter().filter_map(|effect| effect.remote.replica_chunks).sum(),
            redis_chunks: redis_chunks.sum(),
            complete: effects.iter().all(|effect| effect.complete),
            repeat_at,
            note: ERASURE_NOTE,
        }
    }
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Replicas {
    pub(super) confirmed: usize,
    /// Number of other replicas; null if unknown.
    expected: Option<usize>,
}

/// The effect of a purge beyond the memory of this replica.
#[derive(Default, Serialize)]
pub(super) struct RemoteEffect {
    /// Whether Redis did not take the purge, so that no other replica knows of it.
    #[serde(skip)]
    pub(super) is_here_only: bool,
    /// Chunks removed from the memory of the other replicas that have confirmed; of an erasure only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replica_chunks: Option<u64>,
    /// Chunks deleted from Redis; null without Redis.
    pub(super) redis_chunks: Option<u64>,
    /// Replicas that have confirmed; null without Redis.
    pub(super) replicas: Option<Replicas>,
    /// Explanation of what is not done.
    pub(super) left: Vec<String>,
}

impl RemoteEffect {
    fn of(purged: &PurgeResult, is_erasure: bool) -> Self {
        match &purged.delivery {
            None => Self::default(),
            Some(Err(why)) => Self {
                is_here_only: true,
                left: vec![format!(
                    "Redis does not take it ({why}): other replicas do not know of it and go on serving what they \
                     have, and what is in Redis stays there. This replica tries again for as long as it runs; ask again to \
                     know how far it is"
                )],
                ..Self::default()
            },
            Some(Ok(delivery)) => {
                let (confirmed, expected) = (delivery.confirmed, delivery.expected);
                let (chunks, undeleted) = explain_deletion(&delivery.deletion);
                Self {
                    is_here_only: false,
                    replica_chunks: is_erasure.then_some(delivery.replica_chunks),
                    redis_chunks: Some(chunks),
                    replicas: Some(Replicas { confirmed, expected }),
                    left: explain_confirmations(confirmed, expected, is_erasure).into_iter().chain(undeleted).collect(),
                }
            }
        }
    }
}

/// The explanation of missing confirmations; `None` if there are none.
fn explain_confirmations(confirmed: usize, expected: Option<usize>, is_erasure: bool) -> Option<String> {
    // A replica of an earlier version finds a purge in Redis that it cannot read, and which stands for everything.
    let earlier = if is_erasure {
        ". One of an earlier version does not confirm an erasure by ids; it drops all that it has of the account"
    } else {
        ""
    };
    match expected {
        Some(expected) if confirmed >= expected => None,
        Some(expected) => Some(format!(
            "{} of {expected} other replicas have not confirmed that it has left their memory. Each looks for \
             purges once a second, and before it reads anything from Redis; one that does not reach Redis serves what it \
             has until then{earlier}",
            expected - confirmed
        )),
        None => Some(
            "other replicas could not be told. Each looks for purges once a second, and before it reads anything from \
             Redis"
                .to_owned(),
        ),
    }
}

/// The number of chunks deleted from Redis, and the explanation of those that are not.
fn explain_deletion(deletion: &DeletionStatus) -> (u64, Option<String>) {
    match deletion {
        DeletionStatus::Complete(count) => (*count, None),
        DeletionStatus::InProgress(count) => {
            (*count, Some("there is much to delete from Redis; it goes on. Nobody reads it there".to_owned()))
        }
        DeletionStatus::Failed(count, why) => (
            *count,
            Some(format!(
                "not everything could be deleted from Redis ({why}); this replica tries again for as long as it runs. \
                 Nobody reads it there"
            )),
        ),
    }
}

/// The explanation of a failure of the disk tier.
fn explain_disk(why: &str) -> String {
    format!(
        "the disk of this replica could not be cleaned ({why}). Nobody reads it there, but a restart may: ask again when \
         the disk works"
    )
}
