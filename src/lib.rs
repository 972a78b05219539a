//! koregate

pub mod api;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod quota;
pub mod repage;
pub mod retry;
pub mod simulator;
pub mod telemetry;
pub mod token;
pub mod upstream;
pub mod window;
