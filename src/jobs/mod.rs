//! The jobs stage: windows that are fetched for a caller that does not wait (`Prefer: respond-async`).
//!
//! A job sends the window's query to the stages below, drops the items, and ends with them in the cache. Requests for
//! windows pass through the stage as they are.
//!
//! With Redis, the record of a job lies there, and each replica answers for it. A job has an owner, the replica that
//! runs it, and the owner has a lease. When the lease has ended, another replica adopts the job: it asks for the window
//! again, of which Redis has what was fetched before.
//!
//! | file | contents |
//! | --- | --- |
//! | `record.rs` | [`JobRecord`]: the state of a job, its progress, and the rule of adoption; pure |
//! | `registry.rs` | the jobs of this replica; pure |
//! | `store.rs` | the records, the index and the leases in Redis |
//! | `runner.rs` | the task of a job |
//! | `adoption.rs` | takes over the jobs of replicas that are gone |
//! | `pulse.rs` | renews the lease, and looks for such jobs |
//! | `manager.rs` | the state that all of them share |
//! | `handle.rs` | [`Jobs`]: creates, finds and cancels jobs |
//! | `command.rs` | [`JobCommand`]: requests about jobs |
//! | `stage.rs` | [`JobsLayer`]: the stage |
//! | `error.rs` | why there is no job |

mod adoption;
mod command;
mod error;
mod handle;
mod manager;
mod pulse;
mod record;
mod registry;
mod runner;
mod stage;
mod store;

pub use self::command::{JobCommand, JobRequest};
pub use self::error::JobError;
pub use self::handle::Jobs;
pub use self::record::{JobOutcome, JobProgress, JobRecord, JobState};
pub use self::stage::{JobsLayer, JobsStage};
