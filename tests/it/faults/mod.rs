//! Faults on real processes: gateways that are killed, Redis that fails over, and networks that break, each while the
//! quota is in full use. The simulator has no limit of its own, so it counts every call that a gateway makes too many.
//!
//! `./test` runs short tests of some faults. `just kill-storm` runs those of all, which take minutes and print the rows
//! of the table in `docs/correctness.md`.
//!
//! | file | contains |
//! | --- | --- |
//! | `fleet` | [`fleet::Fleet`]: gateway processes that share a quota, and the measurement of a fault |
//! | `load` | [`load::Load`]: callers that use the quota up |
//! | `kill_storm`, `failover`, `partitions`, `redis_partitions` | tests |

mod failover;
mod fleet;
mod kill_storm;
mod load;
mod partitions;
mod redis_partitions;
