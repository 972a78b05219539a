//! The commands.

pub mod check;
pub mod simulate;
pub mod token;
