//! Gathers the views of the admin plane from the stages: `status`, `coverage`, `runs`, and `problems` with the history.

mod coverage;
mod problems;
mod runs;
mod status;
