//! The quota: rolling limits, fairness, parallel runs, accounting, and the state file.

mod concurrency;
mod fairness;
mod limits;
mod savings;
mod state_file;
mod usage;
