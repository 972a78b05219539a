//! The report of a purge to its requester.

use serde::Serialize;

use crate::cache::{DeletionStatus, PurgeResult};

/// The answer to a purge that was done, at least on this replica.
#[derive(Serialize)]
pub(super) struct PurgeReport {
    pub(super) account: String,
    pub(super) stream: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) epoch: u64,
    /// Chunks removed from the memory of this replica.
    pub(super) memory_chunks: usize,
    /// Chunks overwritten on the disk of this replica; null without a disk tier.
    pub(super) disk_chunks: Option<u64>,
    /// Chunks deleted from Redis; null without Redis.
    pub(super) redis_chunks: Option<u64>,
    /// Replicas that have confirmed; null without Redis.
    pub(super) replicas: Option<Replicas>,
    pub(super) complete: bool,
    /// Explanation of what is not done.
    pub(super) left: Vec<String>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Replicas {
    pub(super) confirmed: usize,
    /// Number of other replicas; null if unknown.
    expected: Option<usize>,
}

/// The effect of a purge beyond the memory of this replica.
#[derive(Default)]
pub(super) struct RemoteEffect {
    /// Whether Redis did not take the purge, so that no other replica knows of it.
    pub(super) is_here_only: bool,
    pub(super) redis_chunks: Option<u64>,
    pub(super) replicas: Option<Replicas>,
    /// Explanation of what is not done.
    pub(super) left: Vec<String>,
}

impl RemoteEffect {
    pub(super) fn of(purged: &PurgeResult) -> Self {
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
                    redis_chunks: Some(chunks),
                    replicas: Some(Replicas { confirmed, expected }),
                    left: explain_confirmations(confirmed, expected).into_iter().chain(undeleted).collect(),
                }
            }
        }
    }
}

/// The explanation of missing confirmations; `None` if there are none.
fn explain_confirmations(confirmed: usize, expected: Option<usize>) -> Option<String> {
    match expected {
        Some(expected) if confirmed >= expected => None,
        Some(expected) => Some(format!(
            "{} of {expected} other replicas have not confirmed that it has left their memory. Each looks for \
             purges once a second, and before it reads anything from Redis; one that does not reach Redis serves what it \
             has until then",
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
pub(super) fn explain_disk(why: &str) -> String {
    format!(
        "the disk of this replica could not be cleaned ({why}). Nobody reads it there, but a restart may: ask again when \
         the disk works"
    )
}
