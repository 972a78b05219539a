//! koregate

pub mod clock;
pub mod config;
pub mod window;
