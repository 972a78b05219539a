//! koregate: one Kore.ai credential and one quota for all services of a company.
//!
//! [`stack`] shows the path of a request from the socket to Kore. Each stage is a folder of that name: [`edge`]
//! authenticates it, [`api`] parses it, [`jobs`] fetches windows for callers that do not wait, [`cache`] serves cached chunks, [`paging`] fetches missing runs, [`retry`]
//! repeats failed calls, [`quota`] schedules calls within the limits, [`token`] signs them, and [`upstream`] makes
//! them. [`request`] holds the values that travel through all stages, and [`window`] the time arithmetic, without I/O
//! or a clock.
//!
//! Beside the stages stand [`config`], [`redis_client`] (shared state of replicas), [`server`] (listeners, TLS, drain),
//! [`admin`] (the operator's listener), [`telemetry`] (logs and metrics), [`traces`] (spans), [`audit`] (who read what), `mapped_bytes` (memory that the kernel can
//! send without a copy), [`segment_log`] (records in files), `problem` (problem documents), `writable` (whether a file could be made), [`environment`] with
//! [`network`] and [`clock`] (what a simulation replaces), [`blocking`] (work that takes long) and [`cli`]. The
//! simulator of the upstream is a package of its own, `koregate-simulator`.

pub mod admin;
pub mod api;
pub mod audit;
pub mod blocking;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod environment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz_targets;
mod hex;
pub mod jobs;
pub mod live;
mod mapped_bytes;
pub mod network;
pub mod paging;
mod problem;
pub mod quota;
pub mod redis_client;
pub mod replicas;
pub mod request;
pub mod retry;
pub mod segment_log;
pub mod server;
pub mod stack;
mod sync;
pub mod telemetry;
pub mod token;
pub mod traces;
mod units;
pub mod upstream;
pub mod window;
mod writable;
