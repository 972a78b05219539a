//! Requests: windows, filters, parameters, dry runs and refusals.

mod dry_run;
mod filters;
mod jobs;
mod parameters;
mod refusals;
mod retention;
mod windows;
