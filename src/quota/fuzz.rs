//! The fuzz targets of the modules in this folder.

pub(crate) use super::lease::fuzz::exchange_reply;
pub use super::state_file::fuzz::state_file;
