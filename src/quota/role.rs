//! The role of this process for an account: whether another replica is the leader, so that this one makes no calls.

use crate::replicas::ReplicaId;

/// The part that this process takes in the calls of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not known yet which replica is the leader; it takes moments to find out.
    Unknown,
    /// The process makes calls: it shares the quota with no other, is the leader of all replicas, or has lost contact
    /// with Redis and uses its share of the quota.
    Leader,
    /// The given replica makes the calls of all.
    Follower(ReplicaId),
}
