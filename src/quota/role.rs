//! Who makes the calls of an account.

use crate::redis_client::ReplicaId;

/// Who makes the calls of an account, as this process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is being found out; that takes moments.
    Unknown,
    /// This process does: it shares the quota with nobody, makes the calls of all replicas, or has lost the others and
    /// makes do with its share.
    Calls,
    /// Another replica does, for all.
    Follows(ReplicaId),
}
