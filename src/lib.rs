//! koregate

pub mod cli;
pub mod clock;
pub mod config;
pub mod simulator;
pub mod window;
