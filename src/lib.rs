//! koregate: one Kore.ai credential and one quota for all services of a company.
//!
//! The way of a request, from the socket to Kore, stands in [`stack`]. Each stage is a folder of that name:
//! [`edge`] lets it in, [`api`] understands it, [`cache`] serves what it has, [`repage`] walks what is missing,
//! [`retry`] mends what can be mended, [`quota`] makes it wait for its turn, [`token`] signs it, and [`upstream`] makes
//! the call. [`window`] is the time they all speak of, without I/O or a clock.
//!
//! Beside the way stand [`config`] (what the operator decides), [`fleet`] (the way to Redis, for what replicas share),
//! [`server`] (listeners, TLS, drain), [`admin`] (what the operator looks at), [`telemetry`] (logs and metrics),
//! [`simulator`] (an upstream for tests and the demo), `pages` (memory that the kernel may send as it is) and [`cli`].

pub mod admin;
pub mod api;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
mod hex;
mod mapped_bytes;
pub mod paging;
pub mod quota;
pub mod redis_client;
pub mod request;
pub mod retry;
pub mod server;
pub mod simulator;
pub mod stack;
pub mod telemetry;
pub mod token;
mod units;
pub mod upstream;
pub mod window;
