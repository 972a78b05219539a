//! What a gateway takes from the machine: time, network and identity. A simulation replaces all of it, so that a run
//! depends on nothing but its seed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::Clock;
use crate::network::Network;
use crate::replicas::ReplicaId;

/// What a gateway takes from the machine. The default is the machine itself.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The time of day.
    pub clock: Clock,
    /// Milliseconds since the machine was booted, which the state file of the quota records; `None` asks the machine.
    pub uptime: Option<Arc<AtomicU64>>,
    /// Where connections are made.
    pub network: Network,
    /// The identity among the replicas; `None` draws one.
    pub replica: Option<ReplicaId>,
}

impl From<Clock> for Environment {
    /// The machine, with another time of day.
    fn from(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }
}
