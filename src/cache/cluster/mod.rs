//! Fetches across replicas: one replica, the leader, makes all calls of an account, and the others send it what they
//! miss.
//!
//! Each replica looks into its own memory and into Redis. What is still missing, a follower requests from the leader as
//! remote fetches. The leader answers them by the code that answers its own requests, so windows that many replicas
//! request become the runs that one gateway would have made. The data goes through Redis (`cache/redis/handover.rs`),
//! and the messages say where it is.
//!
//! | file | contents |
//! | --- | --- |
//! | `exchange.rs` | receives and sends messages |
//! | `follower.rs` | remote fetches of this replica |
//! | `pending.rs` | one of them while it is unanswered |
//! | `leader.rs` | remote fetches of other replicas that this one answers |
//! | `served.rs` | one of them, with its reply |
//! | `batch_window.rs` | the leader's wait for batches of other replicas |
//! | `announced_batches.rs` | batches that other replicas have announced |
//! | `wire_error.rs` | errors of the stages as they are sent |
//!
//! Messages may be lost. A remote fetch is sent again each second until it is answered, which also says that a request
//! still waits, and for how long; one that was answered before is answered again.
//!
//! A follower **detaches** from a leader with which it cannot exchange data, because one of them cannot read the
//! other's messages (another key or version) or they divide time differently: it then fetches for itself, with permits
//! of that leader (`quota/scheduler/lending.rs`).

mod announced_batches;
mod batch_window;
mod exchange;
mod follower;
mod leader;
mod pending;
mod served;
mod wire_error;

pub(super) use self::exchange::Cluster;
